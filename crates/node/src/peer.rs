//! What replicas of other nodes ask: each request goes to exactly the replica it names, or nowhere.

use std::sync::Arc;

use api::peer::{BoxFuture, PeerError, PeerHandler, PeerRequest, PeerResponse};

use crate::fault;
use crate::shared::Shared;

/// The replicas of this node.
pub(crate) struct Peers(pub Arc<Shared>);

impl PeerHandler for Peers {
    fn handle(
        &self,
        from_node: String,
        request: PeerRequest,
    ) -> BoxFuture<'static, Result<PeerResponse, PeerError>> {
        let placement = self.0.known.placement();
        let shard = placement.shard(request.shard);
        if shard.is_some_and(|shard| shard.outcasts.contains(&request.from_replica)) {
            let refused = PeerError::Refused("the sender was put out of the group".into());
            return Box::pin(async move { Err(refused) });
        }
        let running = self.0.replicas.exactly(request.shard, request.to_replica);
        let gate = self.0.gates.peers.clone();
        Box::pin(async move {
            if gate.is_closed() {
                // What came over a wire that is cut now never arrived.
                fault::silence(request.deadline).await;
                return Err(PeerError::Deadline);
            }
            let Some(running) = running else {
                let (shard, replica) = (request.shard, request.to_replica);
                tracing::debug!(%shard, replica, from_node, "no such replica here");
                return Err(PeerError::Refused(format!("no replica {replica} of {shard} here")));
            };
            running.replica.handle(request).await
        })
    }
}
