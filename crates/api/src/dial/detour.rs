//! Ways to nodes that this process cannot connect to, and others can: another node passes a connection on, as
//! octets. What is said on it is between the two ends, which prove to each other who they are as on any
//! other connection, so that deadlines, roles and streams are what they are everywhere.
//!
//! They begin where the leader of a shard is looked for (`crate::client`), and nowhere else: only there
//! another node says who is to be reached. There is none to a leader that the placement does not list.
//!
//! The node in between is asked on a connection of its own: it is told a node's name, says one octet when it
//! has connected there itself, and then carries octets both ways (`crate::serve`).

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::Instant;

use crate::tls::is_name;

/// What the node in between says when it has connected.
const CONNECTED: u8 = b'+';
/// How often it is looked whether the straight way is there again. Not more often: it may come and go, and
/// each change costs those who wait an answer.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Nodes that are reached through another one. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Detours {
    by_node: Arc<Mutex<HashMap<String, Detour>>>,
    /// How many these are: whoever calls a node mostly learns from this that there is none.
    n_nodes: Arc<AtomicUsize>,
}

struct Detour {
    via: String,
    /// Whether that one could not connect to the node either.
    has_failed: bool,
    /// Whether a connection went this way.
    was_taken: bool,
    /// Whether the straight way is there, and when that was looked for.
    is_over: bool,
    looked: Instant,
}

impl Detour {
    fn through(via: String) -> Self {
        let looked = Instant::now();
        Self { via, has_failed: false, was_taken: false, is_over: false, looked }
    }
}

/// What is to be done before a node is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// It is called.
    Call,
    /// It is called, and meanwhile the straight way is looked for.
    Look,
    /// It is called anew, on the straight way.
    Leave,
}

impl Detours {
    /// Whether all nodes are reached by themselves; costs no lock.
    pub(crate) fn is_empty(&self) -> bool {
        // Why relaxed: whoever sees a detour late takes it, or leaves it, with the next call.
        self.n_nodes.load(Ordering::Relaxed) == 0
    }

    /// From now on a node that cannot be connected to is reached through one of these: the same one as
    /// before as long as that works, else the next one.
    pub(crate) fn begin(&self, node: &str, through: &BTreeSet<String>) {
        let mut by_node = self.by_node();
        let before = by_node.get(node);
        if before.is_some_and(|detour| !detour.has_failed && through.contains(&detour.via)) {
            return;
        }
        let next = before.and_then(|detour| through.iter().find(|one| **one > detour.via));
        let Some(via) = next.or(through.first()).cloned() else { return };
        let mut detour = Detour::through(via);
        if let Some(before) = before {
            (detour.looked, detour.was_taken) = (before.looked, before.was_taken);
        }
        by_node.insert(node.to_owned(), detour);
        self.n_nodes.store(by_node.len(), Ordering::Relaxed);
    }

    /// This one does not reach the node.
    pub(super) fn has_failed(&self, node: &str, via: &str) {
        if let Some(detour) = self.by_node().get_mut(node).filter(|detour| detour.via == via) {
            detour.has_failed = true;
        }
    }

    /// A connection to the node goes through this one.
    pub(crate) fn was_taken(&self, node: &str, via: &str) {
        let mut by_node = self.by_node();
        // Why a new one: it may have been over while this one connected.
        let detour =
            by_node.entry(node.to_owned()).or_insert_with(|| Detour::through(via.to_owned()));
        detour.was_taken = true;
        self.n_nodes.store(by_node.len(), Ordering::Relaxed);
    }

    /// Through whom, unless that one cannot connect either.
    pub(crate) fn via(&self, node: &str) -> Option<String> {
        let by_node = self.by_node();
        by_node.get(node).filter(|detour| !detour.has_failed).map(|detour| detour.via.clone())
    }

    /// Whoever is told [`Next::Look`] looks, and says it with [`Detours::is_over`].
    pub(crate) fn next(&self, node: &str, now: Instant) -> Next {
        let mut by_node = self.by_node();
        let Some(detour) = by_node.get_mut(node) else { return Next::Call };
        if detour.is_over {
            // Why not always: before anybody went this way the straight one may have been there again.
            let next = if detour.was_taken { Next::Leave } else { Next::Call };
            by_node.remove(node);
            self.n_nodes.store(by_node.len(), Ordering::Relaxed);
            return next;
        }
        if now.saturating_duration_since(detour.looked) < LOOK_EVERY {
            return Next::Call;
        }
        detour.looked = now;
        Next::Look
    }

    /// The straight way is there again.
    pub(crate) fn is_over(&self, node: &str) {
        if let Some(detour) = self.by_node().get_mut(node) {
            detour.is_over = true;
        }
    }

    fn by_node(&self) -> MutexGuard<'_, HashMap<String, Detour>> {
        self.by_node.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks whoever listens to connect to a node; done when it has.
pub(super) async fn ask(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    node: &str,
) -> io::Result<()> {
    let len = u8::try_from(node.len()).map_err(io::Error::other)?;
    stream.write_all(&[&[len][..], node.as_bytes()].concat()).await?;
    stream.flush().await?;
    match stream.read_u8().await {
        Ok(CONNECTED) => Ok(()),
        Ok(_) => Err(io::Error::other("not understood")),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(io::Error::other("cannot connect either"))
        }
        Err(error) => Err(error),
    }
}

/// Which node is asked for.
pub(crate) async fn asked(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let len = stream.read_u8().await?;
    let mut name = vec![0; len.into()];
    stream.read_exact(&mut name).await?;
    let name = String::from_utf8(name).map_err(io::Error::other)?;
    if is_name(&name) { Ok(name) } else { Err(io::Error::other("no name of a node")) }
}

/// Says that the node was connected to.
pub(crate) async fn tell_connected(stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    stream.write_u8(CONNECTED).await?;
    stream.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn another_one_is_asked_when_one_is_gone_or_does_not_reach_the_node_either() {
        let detours = Detours::default();
        let begin = |through: &[&str]| {
            detours.begin("n1", &nodes(through));
            detours.via("n1").unwrap_or_default()
        };
        assert_eq!(begin(&[]), "");
        assert_eq!(begin(&["n2", "n3", "n4"]), "n2");
        assert_eq!(begin(&["n3", "n2"]), "n2");
        detours.has_failed("n1", "n3");
        assert_eq!(begin(&["n2", "n3"]), "n2", "another one failed, before");
        detours.has_failed("n1", "n2");
        assert_eq!(detours.via("n1"), None, "it is not tried again");
        assert_eq!(begin(&["n2", "n3"]), "n3");
        detours.has_failed("n1", "n3");
        assert_eq!(begin(&["n2", "n3"]), "n2", "the last one is followed by the first");
        assert_eq!(begin(&["n3"]), "n3", "it is gone");
        detours.has_failed("n1", "n3");
        assert_eq!(begin(&["n3"]), "n3", "there is no other");
    }

    #[test]
    fn the_straight_way_is_looked_for_now_and_then_and_taken_once() {
        let (detours, began) = (Detours::default(), Instant::now());
        let at = |seconds| began + Duration::from_secs(seconds);
        assert_eq!((detours.next("n1", at(0)), detours.is_empty()), (Next::Call, true));
        detours.begin("n1", &nodes(&["n2"]));
        assert!(!detours.is_empty());
        assert_eq!(detours.next("n1", at(59)), Next::Call);
        detours.was_taken("n1", "n2");
        detours.begin("n1", &nodes(&["n3"]));
        assert_eq!(detours.next("n1", at(62)), Next::Look);
        assert_eq!(detours.next("n1", at(63)), Next::Call, "somebody looks");
        assert_eq!(detours.next("n1", at(123)), Next::Look);
        detours.is_over("n1");
        assert_eq!(detours.next("n1", at(123)), Next::Leave);
        assert_eq!((detours.next("n1", at(200)), detours.is_empty()), (Next::Call, true));
        assert_eq!(detours.via("n1"), None);
        assert_eq!(detours.via("n2"), None);
    }

    #[test]
    fn nothing_is_left_where_nobody_went() {
        let (detours, now) = (Detours::default(), Instant::now());
        detours.begin("n1", &nodes(&["n2"]));
        detours.is_over("n1");
        assert_eq!((detours.next("n1", now), detours.via("n1")), (Next::Call, None));
        // It was connected to when it was over.
        detours.was_taken("n1", "n2");
        assert!(!detours.is_empty());
        detours.is_over("n1");
        assert_eq!((detours.next("n1", now), detours.is_empty()), (Next::Leave, true));
    }

    #[tokio::test]
    async fn a_node_is_asked_for_by_its_name() {
        let (mut ours, mut theirs) = tokio::io::duplex(256);
        let asking = async {
            let name = asked(&mut theirs).await.unwrap();
            tell_connected(&mut theirs).await.unwrap();
            name
        };
        let (told, name) = tokio::join!(ask(&mut ours, "n1"), asking);
        assert_eq!((told.is_ok(), name.as_str()), (true, "n1"));
        for wrong in [&b"\x00"[..], b"\x02N1", b"\x02n", b"\x02\xff\xff", b""] {
            let mut octets = wrong;
            assert!(asked(&mut octets).await.is_err(), "{wrong:?}");
        }
        drop(theirs);
        assert!(ask(&mut ours, "n1").await.is_err());
    }
}
