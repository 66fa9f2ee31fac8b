//! Connections that are passed on: who cannot connect to the node that leads a shard is connected to it here.
//! Octets are carried both ways and nothing is read of them; the node at the other end sees who it is by its
//! certificate, as ever. A client of ours makes one hop; who makes more takes one address's places at each.
//!
//! Promises: whoever has many connections passed on keeps no other's from it, and no node from another one.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::debug;

use super::{Accepted, HANDSHAKE_TIMEOUT, HANDSHAKES_OF_ORIGIN_MAX};
use crate::counter::{Counted, Counter, Origin};
use crate::dial::{NAMES, Resolver, detour, open};
use crate::tls::Role;

/// Limit: connections of frontends, or of operators, that are passed on at once. A frontend has two to each
/// node it cannot reach; each takes some 100 KiB here.
const OF_ROLE_MAX: usize = 256;
/// Limit: those of them from one address, be they one frontend's to eight nodes or eight frontends' to one.
/// Why not by name: all frontends may share one certificate.
const OF_ORIGIN_MAX: u32 = 16;
/// Limit: those of them to one node that may not have proved yet who they are. There they all come from this
/// node's address, and most of the places that has are left to this node itself.
const UNPROVEN_OF_NODE_MAX: u32 = HANDSHAKES_OF_ORIGIN_MAX / 4;
/// How long it may take to be told of a node and to connect there.
const BEGIN_WITHIN: Duration = Duration::from_secs(5);
/// Both ends say something each second while they live (`KEEPALIVE_INTERVAL`). Who is silent for so long, or
/// takes nothing, is gone.
const SILENT_MAX: Duration = Duration::from_secs(10);
/// Octets carried at once: one record of TLS.
const PIECE_BYTES: usize = 16 * 1024;

/// How connections are passed on to other nodes.
#[derive(Clone)]
pub struct Onward {
    /// Where these are.
    pub resolver: Resolver,
    /// The address to come from.
    pub bind: Option<IpAddr>,
}

/// Those that are passed on.
pub(super) struct Passing {
    onward: Onward,
    /// The name of this node.
    ours: String,
    frontends: Semaphore,
    operators: Semaphore,
    origins: Arc<Counter<Origin>>,
    /// By the node they lead to.
    unproven: Arc<Counter<String>>,
}

/// A place for one of them, until it is dropped.
struct Place<'a> {
    _permit: SemaphorePermit<'a>,
    _counted: Counted<Origin>,
}

impl Passing {
    pub(super) fn new(onward: Onward, ours: String) -> Arc<Self> {
        let [frontends, operators] = [(); 2].map(|()| Semaphore::new(OF_ROLE_MAX));
        let (origins, unproven) = (Counter::new(OF_ORIGIN_MAX), Counter::new(UNPROVEN_OF_NODE_MAX));
        Arc::new(Self { onward, ours, frontends, operators, origins, unproven })
    }

    /// Passes on whatever comes. Done when nothing comes any more and all have ended; dropped, they end.
    pub(super) async fn run(self: Arc<Self>, mut coming: mpsc::Receiver<Accepted>) {
        let mut connections = JoinSet::new();
        while let Some(from) = coming.recv().await {
            while connections.try_join_next().is_some() {}
            let passing = Arc::clone(&self);
            connections.spawn(async move { passing.pass_on(from).await });
        }
        while connections.join_next().await.is_some() {}
    }

    /// Passes a connection on to its end.
    async fn pass_on(&self, mut from: Accepted) {
        let Some(_place) = self.take(from.peer.role, from.address) else {
            return debug!(peer = from.peer.name, "connection not passed on: no place for it");
        };
        let begun = timeout(BEGIN_WITHIN, self.begin(&mut from)).await;
        let begun = begun.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let (mut to, unproven) = match begun {
            Ok(begun) => begun,
            Err(error) => return debug!(%error, peer = from.peer.name, "connection not passed on"),
        };
        let carrying = async move {
            let (to_read, to_write) = to.split();
            let (from_read, from_write) = tokio::io::split(from);
            // Why the first end is the end of both: neither HTTP/2 nor TLS says anything with one way
            // closed.
            tokio::select! {
                () = carry(from_read, to_write) => {}
                () = carry(to_read, from_write) => {}
            }
        };
        tokio::pin!(carrying);
        // Whoever has proved nothing by then is sent away by the node at the other end.
        if timeout(HANDSHAKE_TIMEOUT, carrying.as_mut()).await.is_err() {
            drop(unproven);
            carrying.await;
        }
    }

    /// A place for one more, unless there are too many.
    fn take(&self, role: Role, from: IpAddr) -> Option<Place<'_>> {
        let places = match role {
            Role::Frontend => &self.frontends,
            Role::Admin => &self.operators,
            // Why none: whether one node reaches another is what elections are about.
            Role::Node => return None,
        };
        let counted = self.origins.enter(from.into())?;
        let permit = places.try_acquire().ok()?;
        Some(Place { _permit: permit, _counted: counted })
    }

    /// Connects to the node that is asked for, and says so.
    async fn begin(&self, from: &mut Accepted) -> io::Result<(TcpStream, Counted<String>)> {
        let node = detour::asked(from).await?;
        if node == self.ours {
            return Err(io::Error::other("it is this node"));
        }
        let unknown = || io::Error::other("no such node");
        let address = (self.onward.resolver)(&node).ok_or_else(unknown)?;
        let addresses = NAMES.resolve(Some(&node), &address).await.map_err(io::Error::other)?;
        let too_many = || io::Error::other("too many to that node");
        let unproven = self.unproven.enter(node).ok_or_else(too_many)?;
        let mut last = unknown();
        for address in addresses {
            match open(address, self.onward.bind).await {
                Ok(to) => {
                    detour::tell_connected(from).await?;
                    return Ok((to, unproven));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// Carries octets one way until one end is gone.
async fn carry(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    let mut piece = vec![0; PIECE_BYTES];
    while let Ok(Ok(n @ 1..)) = timeout(SILENT_MAX, from.read(&mut piece)).await {
        let written = async {
            to.write_all(&piece[..n]).await?;
            to.flush().await
        };
        if !matches!(timeout(SILENT_MAX, written).await, Ok(Ok(()))) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;
    use tokio::time::Instant;

    use super::*;

    /// As many as it gets.
    fn take_all(passing: &Passing, role: Role, k: u8) -> Vec<Place<'_>> {
        std::iter::from_fn(|| passing.take(role, IpAddr::from([10, 0, 0, k]))).collect()
    }

    #[test]
    fn who_has_many_passed_on_keeps_no_other_out_and_gives_places_back() {
        let onward = Onward { resolver: Arc::new(|_| None), bind: None };
        let passing = Passing::new(onward, "n1".to_owned());
        let mut first = take_all(&passing, Role::Frontend, 1);
        assert_eq!(first.len(), OF_ORIGIN_MAX as usize);
        first.pop();
        assert_eq!(take_all(&passing, Role::Frontend, 1).len(), 1, "one has gone");
        let others: Vec<_> = (2..100).flat_map(|k| take_all(&passing, Role::Frontend, k)).collect();
        assert_eq!(first.len() + others.len(), OF_ROLE_MAX);
        assert!(passing.take(Role::Frontend, IpAddr::from([10, 0, 0, 100])).is_none());
        assert_eq!(take_all(&passing, Role::Admin, 100).len(), OF_ORIGIN_MAX as usize);
        assert!(take_all(&passing, Role::Node, 101).is_empty());
        drop(others);
        assert_eq!(take_all(&passing, Role::Frontend, 2).len(), OF_ORIGIN_MAX as usize);
    }

    #[tokio::test(start_paused = true)]
    async fn octets_are_carried_until_an_end_is_gone_or_silent() {
        let (mut client, from) = duplex(64);
        let (to, mut node) = duplex(64);
        let carrying = tokio::spawn(carry(from, to));
        let said = vec![7; 100_000];
        let (told, heard) = tokio::join!(client.write_all(&said), async {
            let mut heard = vec![0; said.len()];
            node.read_exact(&mut heard).await.map(|_| heard)
        });
        assert_eq!((told.is_ok(), heard.unwrap()), (true, said));
        drop(client);
        carrying.await.unwrap();
        assert_eq!(node.read(&mut [0; 1]).await.unwrap(), 0);

        // Nothing comes; and what comes is not taken.
        for n_bytes in [0, 100_000] {
            let ((mut client, from), (to, _node)) = (duplex(100_000), duplex(64));
            let began = Instant::now();
            client.write_all(&vec![7; n_bytes]).await.unwrap();
            carry(from, to).await;
            assert!(began.elapsed() < 2 * SILENT_MAX);
        }
    }
}
