//! Where hosts are by their names. The system is asked at every reconnect; while it knows nothing, or does
//! not answer, they are looked for where they connected from, and where they were: who is at an address is
//! proven by its certificate.
//!
//! Promises: a name is asked for once at a time, however many want it, since each question takes a thread for
//! as long as the system takes; what is answered late is used then.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use super::NotConnected;

/// How long whoever connects waits for an answer, from when the question was asked. One that takes longer is
/// found by who connects next: with a resolver that is down the system takes five seconds to ask another one.
const PATIENCE: Duration = Duration::from_millis(1_000);
/// A person is told when a name has not resolved for so long,
const WARN_AFTER: Duration = Duration::from_secs(5);
/// and again whenever it was so long since.
const WARN_AGAIN_AFTER: Duration = Duration::from_secs(300);
/// Limit: names that are remembered; beyond it all are forgotten. A cluster has hundreds at most.
const NAMES_MAX: usize = 4096;

/// Those of this process: each of its connections finds what another one has found.
pub(crate) static NAMES: LazyLock<Names> = LazyLock::new(|| Names::new(ask_system));

/// Asks for the addresses of a `host:port`.
type Ask = fn(String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>>;
/// What was answered, or why nothing was.
type Answer = Result<Vec<SocketAddr>, String>;

/// See the module.
pub(crate) struct Names {
    ask: Ask,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    by_name: HashMap<String, Name>,
    /// Where nodes came from that connected to this process.
    nodes: HashMap<String, IpAddr>,
}

/// What is known of one `host:port`.
#[derive(Default)]
struct Name {
    /// What was answered last.
    addresses: Vec<SocketAddr>,
    asking: Option<Asking>,
    /// When a person is to hear that there is no answer.
    warn_at: Option<Instant>,
}

/// A question under way.
#[derive(Clone)]
struct Asking {
    since: Instant,
    answer: watch::Receiver<Option<Answer>>,
}

fn ask_system(address: String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
    Box::pin(async move { Ok(tokio::net::lookup_host(address).await?.collect()) })
}

impl Names {
    fn new(ask: Ask) -> Self {
        Self { ask, state: Arc::default() }
    }

    /// Where a `host:port` is, or was; `node` is who listens there, `None` if that is not known.
    pub(crate) async fn resolve(
        &self,
        node: Option<&str>,
        address: &str,
    ) -> Result<Vec<SocketAddr>, NotConnected> {
        if let Ok(address) = address.parse() {
            return Ok(vec![address]);
        }
        let mut asking = self.asking(address);
        let answered = asking.answer.wait_for(Option::is_some);
        let answer = match timeout_at(asking.since + PATIENCE, answered).await {
            Ok(Ok(answer)) => answer.clone().unwrap_or_else(|| Err("no answer".to_owned())),
            Ok(Err(_)) => Err("not asked to the end".to_owned()),
            Err(_) => Err("too slow".to_owned()),
        };
        let why = match answer {
            Ok(addresses) => return Ok(addresses),
            Err(why) => why,
        };
        let (known, is_to_be_told) = {
            let mut state = self.state();
            (state.known(node, address), state.is_to_be_told(address, Instant::now()))
        };
        if is_to_be_told {
            let (error, n_known) = (&why, known.len());
            warn!(address, error, n_known, "name does not resolve: it is asked for again");
        }
        match known.is_empty() {
            true => Err(NotConnected(format!("resolve {address}: {why}"))),
            false => Ok(known),
        }
    }

    /// A node connected from there.
    pub(crate) fn came_from(&self, node: &str, from: IpAddr) {
        let (mut state, from) = (self.state(), from.to_canonical());
        if state.nodes.get(node) != Some(&from) {
            if state.nodes.len() >= NAMES_MAX {
                state.nodes.clear();
            }
            state.nodes.insert(node.to_owned(), from);
        }
    }

    /// The question under way, or a new one.
    fn asking(&self, address: &str) -> Asking {
        let mut state = self.state();
        if state.by_name.len() >= NAMES_MAX && !state.by_name.contains_key(address) {
            state.by_name.clear();
        }
        let name = state.by_name.entry(address.to_owned()).or_default();
        // Why not any: what asked may have ended with its runtime.
        if let Some(asking) = name.asking.as_ref().filter(|it| it.answer.has_changed().is_ok()) {
            return asking.clone();
        }
        let (sender, answer) = watch::channel(None);
        let asking = name.asking.insert(Asking { since: Instant::now(), answer }).clone();
        drop(state);
        let (answering, state) = ((self.ask)(address.to_owned()), Arc::clone(&self.state));
        let address = address.to_owned();
        tokio::spawn(async move {
            let answer = match answering.await {
                Ok(found) if found.is_empty() => Err("nothing found".to_owned()),
                Ok(found) => Ok(found),
                Err(error) => Err(error.to_string()),
            };
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(name) = state.by_name.get_mut(&address) {
                name.asking = None;
                if let Ok(found) = &answer {
                    name.addresses.clone_from(found);
                    name.warn_at = None;
                }
            }
            drop(state);
            sender.send_replace(Some(answer));
        });
        asking
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Where the node came from that listens there, which it proved, and where it was when it was found last.
    fn known(&self, node: Option<&str>, address: &str) -> Vec<SocketAddr> {
        let came_from = address.rsplit_once(':').and_then(|(host, port)| {
            // Why no other node in place of one that is not known: before there is a cluster, each has to be
            // told who waits. Hosts are mostly called as the nodes on them.
            let node = node.or(host.split('.').next())?;
            Some(SocketAddr::new(*self.nodes.get(node)?, port.parse().ok()?))
        });
        let found = self.by_name.get(address).into_iter().flat_map(|name| &name.addresses);
        let others = found.copied().filter(|found| Some(*found) != came_from);
        came_from.into_iter().chain(others).collect()
    }

    fn is_to_be_told(&mut self, address: &str, now: Instant) -> bool {
        let Some(name) = self.by_name.get_mut(address) else { return false };
        let warn_at = name.warn_at.get_or_insert(now + WARN_AFTER);
        let is_due = now >= *warn_at;
        if is_due {
            *warn_at = now + WARN_AGAIN_AFTER;
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::time::sleep;

    use super::*;

    const SLOW: Duration = Duration::from_secs(5);

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// A host of this name is found at 10.0.0.`k`; `down-k` at no time, `late-k` after long.
    fn ask(address: String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move {
            let (host, port) = address.rsplit_once(':').unwrap();
            match host.rsplit_once('-').unwrap() {
                ("down", _) => Err(io::Error::other("nobody answers")),
                ("late", k) => {
                    sleep(SLOW).await;
                    Ok(vec![at(&format!("10.0.0.{k}:{port}"))])
                }
                (_, k) => Ok(vec![at(&format!("10.0.0.{k}:{port}"))]),
            }
        })
    }

    async fn resolve(names: &Names, node: Option<&str>, address: &str) -> Answer {
        names.resolve(node, address).await.map_err(|NotConnected(why)| why)
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_needs_nobody_to_resolve_it() {
        let names = Names::new(|_| Box::pin(std::future::pending()));
        for address in ["10.0.0.1:7400", "[::1]:7400"] {
            assert_eq!(resolve(&names, None, address).await, Ok(vec![at(address)]));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_answer_is_used_by_who_connects_next() {
        let (names, began) = (Names::new(ask), Instant::now());
        let told = resolve(&names, None, "late-7:1").await;
        assert_eq!(told, Err("resolve late-7:1: too slow".to_owned()));
        assert_eq!(began.elapsed().as_millis(), PATIENCE.as_millis());
        assert!(resolve(&names, None, "late-7:1").await.is_err());
        assert_eq!(began.elapsed().as_millis(), PATIENCE.as_millis(), "it was waited for before");
        sleep(SLOW).await;
        let told = resolve(&names, None, "late-7:1").await;
        assert_eq!(told, Ok(vec![at("10.0.0.7:1")]), "where it was, while it is asked for again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_asked_for_once_at_a_time() {
        static N_ASKED: AtomicU64 = AtomicU64::new(0);
        let names = Names::new(|address| {
            N_ASKED.fetch_add(1, Ordering::Relaxed);
            ask(address)
        });
        let all = (0..100).map(|_| resolve(&names, None, "late-1:1"));
        futures_util::future::join_all(all).await;
        assert_eq!(N_ASKED.load(Ordering::Relaxed), 1);
        sleep(SLOW).await;
        let _ = resolve(&names, None, "late-1:1").await;
        assert_eq!(N_ASKED.load(Ordering::Relaxed), 2, "at each reconnect");
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_no_name_any_more_is_looked_for_where_it_was() {
        let names = Names::new(ask);
        let told = resolve(&names, Some("n1"), "down-1:1").await;
        assert_eq!(told, Err("resolve down-1:1: nobody answers".to_owned()));
        names.state().by_name.entry("down-1:1".to_owned()).or_default().addresses =
            vec![at("10.0.0.1:1")];
        assert_eq!(resolve(&names, Some("n1"), "down-1:1").await, Ok(vec![at("10.0.0.1:1")]));
        // It connected from elsewhere since.
        names.came_from("n1", "::ffff:10.0.0.9".parse().unwrap());
        let known = Ok(vec![at("10.0.0.9:1"), at("10.0.0.1:1")]);
        assert_eq!(resolve(&names, Some("n1"), "down-1:1").await, known);
        names.came_from("n1", "10.0.0.1".parse().unwrap());
        assert_eq!(resolve(&names, Some("n1"), "down-1:1").await, Ok(vec![at("10.0.0.1:1")]));
    }

    #[tokio::test(start_paused = true)]
    async fn who_never_had_one_is_looked_for_where_it_connects_from() {
        let names = Names::new(ask);
        names.came_from("n1", "10.0.0.1".parse().unwrap());
        names.came_from("down-2", "10.0.0.2".parse().unwrap());
        assert_eq!(resolve(&names, Some("n1"), "down-1:74").await, Ok(vec![at("10.0.0.1:74")]));
        assert!(resolve(&names, Some("n3"), "down-3:74").await.is_err());
        // Of a seed nothing is known but the name of its host.
        let told = resolve(&names, None, "down-2.example.test:74").await;
        assert_eq!(told, Ok(vec![at("10.0.0.2:74")]));
        assert!(resolve(&names, None, "down-3.example.test:74").await.is_err());
        assert_eq!(resolve(&names, None, "host-3:74").await, Ok(vec![at("10.0.0.3:74")]));
    }

    #[test]
    fn a_name_that_does_not_resolve_is_told_after_a_while_and_then_seldom() {
        let (mut state, start) = (State::default(), Instant::now());
        state.by_name.insert("n1:1".to_owned(), Name::default());
        let at = |seconds| start + Duration::from_secs(seconds);
        let is_told = |second: &u64| state.is_to_be_told("n1:1", at(*second));
        assert_eq!((0..400).filter(is_told).collect::<Vec<_>>(), [5, 305]);
    }
}
