//! Peers over gRPC: two streams per pair of nodes and direction, one for the traffic that elections and
//! deliveries wait for, one for bulk, each on a connection of its own so that bulk holds up nothing.
//!
//! [`GrpcTransport`] is the sending side. The receiving side is one of the services that
//! [`crate::serve::serve`] offers. Requests of one shard and lane are begun in the order they were
//! sent; answers come in any order.

mod answering;
mod link;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::timeout;

pub(crate) use self::answering::RaftService;
use self::link::Link;
use crate::dial::detour::Detours;
use crate::dial::{Dialer, Resolver, Target};
use crate::peer::{BoxFuture, PeerError, PeerRequest, PeerResponse, PeerTransport};
use crate::tls::Identity;

/// Which of the two streams a request takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// What elections and deliveries wait for.
    Prompt,
    /// Snapshots, chunks.
    Bulk,
}

/// The lane for each [`PeerRequest::kind`]. Order is kept only within a lane.
pub type LaneOf = fn(u8) -> Lane;

/// The sending side. Cheap to clone; the last clone dropped closes all connections.
#[derive(Clone)]
pub struct GrpcTransport {
    links: Arc<Links>,
}

struct Links {
    dialer: Dialer,
    resolver: Resolver,
    lane_of: LaneOf,
    by_node: Mutex<HashMap<(String, Lane), Arc<Link>>>,
}

impl GrpcTransport {
    /// Nothing is connected until it is needed. Must be used within a tokio runtime.
    pub fn new(
        identity: Identity,
        bind: Option<IpAddr>,
        resolver: Resolver,
        lane_of: LaneOf,
    ) -> Self {
        // Why no detours: who leads a group has to reach its members itself.
        let dialer = Dialer { identity, bind, detours: Detours::default() };
        let by_node = Mutex::new(HashMap::new());
        Self { links: Arc::new(Links { dialer, resolver, lane_of, by_node }) }
    }
}

impl Links {
    fn link(&self, node: &str, lane: Lane) -> Arc<Link> {
        let mut by_node = self.by_node.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (node.to_owned(), lane);
        let link = by_node.entry(key).or_insert_with(|| {
            let target = Target::Node(node.to_owned(), Arc::clone(&self.resolver));
            Link::start(self.dialer.channel(target))
        });
        Arc::clone(link)
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        let by_node = self.by_node.get_mut().unwrap_or_else(PoisonError::into_inner);
        by_node.values().for_each(|link| link.stop());
    }
}

impl PeerTransport for GrpcTransport {
    /// The request is queued before this function returns, which is what order means.
    fn call(&self, request: PeerRequest) -> BoxFuture<'static, Result<PeerResponse, PeerError>> {
        let link = self.links.link(&request.node, (self.links.lane_of)(request.kind));
        let deadline = request.deadline;
        let waiting = link.send(request);
        Box::pin(async move {
            let mut waiting = waiting?;
            match timeout(deadline, waiting.answer()).await {
                Ok(result) => result,
                Err(_) => Err(PeerError::Deadline),
            }
        })
    }
}
