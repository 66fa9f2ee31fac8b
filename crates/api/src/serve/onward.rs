//! Connections that are passed on: a frontend or an operator that cannot connect to a node is connected to it
//! here. Octets are carried both ways and nothing is read of them; the node at the other end sees who it is
//! by its certificate, as ever. It is connected to by this node itself, so there is no second hop.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::debug;

use super::Accepted;
use crate::dial::{NAMES, Resolver, detour, open};
use crate::tls::Role;

/// Limit: connections passed on at once. A frontend has two to each node it cannot reach; each takes some
/// 100 KiB here.
const PASSED_ON_MAX: usize = 256;
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
    places: Semaphore,
}

impl Passing {
    pub(super) fn new(onward: Onward) -> Arc<Self> {
        Arc::new(Self { onward, places: Semaphore::new(PASSED_ON_MAX) })
    }

    /// Passes a connection on to its end.
    pub(super) async fn pass_on(&self, mut from: Accepted) {
        // Why not for nodes: whether one reaches another is what elections are about.
        if from.peer.role == Role::Node {
            return debug!(peer = from.peer.name, "connection not passed on: it is a node's");
        }
        let Ok(_place) = self.places.try_acquire() else {
            return debug!(peer = from.peer.name, "connection not passed on: too many");
        };
        let begun = timeout(BEGIN_WITHIN, self.begin(&mut from)).await;
        let mut to = match begun.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(to) => to,
            Err(error) => return debug!(%error, peer = from.peer.name, "connection not passed on"),
        };
        let (to_read, to_write) = to.split();
        let (from_read, from_write) = tokio::io::split(from);
        // Why the first end is the end of both: neither HTTP/2 nor TLS says anything with one way closed.
        tokio::select! {
            () = carry(from_read, to_write) => {}
            () = carry(to_read, from_write) => {}
        }
    }

    /// Connects to the node that is asked for, and says so.
    async fn begin(&self, from: &mut Accepted) -> io::Result<TcpStream> {
        let node = detour::asked(from).await?;
        let unknown = || io::Error::other("no such node");
        let address = (self.onward.resolver)(&node).ok_or_else(unknown)?;
        let addresses = NAMES.resolve(Some(&node), &address).await.map_err(io::Error::other)?;
        let mut last = unknown();
        for address in addresses {
            match open(address, self.onward.bind).await {
                Ok(to) => {
                    detour::tell_connected(from).await?;
                    return Ok(to);
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
