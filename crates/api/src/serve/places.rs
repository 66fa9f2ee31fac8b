//! Places for connections of processes that proved who they are. Each role has its own, and one process
//! few of them: whoever has a frontend's key keeps out neither nodes nor operators.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::counter::{Counted, Counter};
use crate::tls::{Peer, Role};

/// Limit: connections of frontends, or of nodes, or of operators: hundreds of each with a handful each.
const OF_ROLE_MAX: usize = 4096;
/// Limit: connections of one node. It has a handful, and one for each address in its configuration that leads
/// here; those of a process before it may still be there. Frontends and operators have no such limit: all of
/// them may share one certificate, as the frontends of a Kubernetes deployment do.
const OF_PEER_MAX: u32 = 64;

/// All places.
pub(super) struct Places {
    frontends: Arc<Semaphore>,
    nodes: Arc<Semaphore>,
    operators: Arc<Semaphore>,
    peers: Arc<Counter<Peer>>,
}

/// One of them, until it is dropped.
pub(super) struct Seat {
    _permit: OwnedSemaphorePermit,
    _counted: Option<Counted<Peer>>,
}

impl Places {
    pub(super) fn new() -> Self {
        let [frontends, nodes, operators] = [(); 3].map(|()| Arc::new(Semaphore::new(OF_ROLE_MAX)));
        Self { frontends, nodes, operators, peers: Counter::new(OF_PEER_MAX) }
    }

    /// A place for one more connection, unless there are too many.
    pub(super) fn take(&self, peer: &Peer) -> Option<Seat> {
        let (places, is_counted) = match peer.role {
            Role::Frontend => (&self.frontends, false),
            Role::Node => (&self.nodes, true),
            Role::Admin => (&self.operators, false),
        };
        let counted = match is_counted {
            true => Some(self.peers.enter(peer.clone())?),
            false => None,
        };
        let permit = Arc::clone(places).try_acquire_owned().ok()?;
        Some(Seat { _permit: permit, _counted: counted })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(role: Role, n: usize) -> Peer {
        Peer { name: format!("p{n}"), role }
    }

    /// As many as it gets.
    fn take_all(places: &Places, peer: &Peer) -> Vec<Seat> {
        std::iter::from_fn(|| places.take(peer)).collect()
    }

    #[test]
    fn one_process_keeps_no_other_out() {
        let places = Places::new();
        let mut seats = take_all(&places, &peer(Role::Node, 1));
        assert_eq!(seats.len(), OF_PEER_MAX as usize);
        assert!(places.take(&peer(Role::Node, 2)).is_some());
        seats.pop();
        assert!(places.take(&peer(Role::Node, 1)).is_some(), "one has gone");
        // Many frontends have one name.
        let seats = take_all(&places, &peer(Role::Frontend, 1));
        assert_eq!(seats.len(), OF_ROLE_MAX);
    }

    #[test]
    fn all_processes_of_a_role_keep_no_other_role_out() {
        let places = Places::new();
        let seats: Vec<_> =
            (0..100).flat_map(|n| take_all(&places, &peer(Role::Frontend, n))).collect();
        assert_eq!(seats.len(), OF_ROLE_MAX);
        assert!(places.take(&peer(Role::Node, 1)).is_some());
        assert_eq!(take_all(&places, &peer(Role::Admin, 1)).len(), OF_ROLE_MAX);
    }
}
