//! What other replicas ask of this one.

use std::sync::PoisonError;

use api::peer::{PeerError, PeerRequest, PeerResponse};
use bytes::Bytes;
use openraft::raft::AppendEntriesResponse;

use crate::codec::BadBytes;
use crate::core::Core;
use crate::receive;
use crate::replica::Replica;
use crate::wire::{self, kind};

impl Replica {
    /// Answers another replica of the group. A request for another replica or another disk is
    /// refused: ids are never reused, so it speaks of a past that is not ours.
    pub async fn handle(&self, request: PeerRequest) -> Result<PeerResponse, PeerError> {
        let config = &self.inner.config;
        let is_ours = request.shard == config.shard
            && request.to_replica == config.replica_id
            && (request.to_disk == [0; 16] || request.to_disk == config.disk.disk_id());
        if !is_ours {
            return Err(PeerError::Refused("another replica or disk lives here".into()));
        }
        let core = self.core().map_err(|_| refused("replica stopped"))?;
        let from = request.from_replica;
        let asks_memory = matches!(
            request.kind,
            kind::SEEN | kind::LOST | kind::CHUNKS | kind::CHUNK_LIST | kind::VOTE | kind::ENTRY
        );
        if !asks_memory && !core.care.may_vote() {
            if request.kind == kind::PRE_VOTE
                && let (_, Some(asker)) = wire::read_pre_vote(request.meta).map_err(bad)?
            {
                core.memory.was_asked_by(from, asker);
            }
            // Why also entries: a log that is shorter than the leader knows it must not be taken
            // for the one the leader knows. Whoever can lead with this replica can confirm it.
            return Err(refused("state not confirmed yet"));
        }
        let meta = match request.kind {
            kind::APPEND | kind::HEARTBEAT => append(&core, request.meta, request.bodies).await?,
            kind::VOTE => {
                let vote = wire::read_vote_request(request.meta).map_err(bad)?;
                core.memory.note(from, vote.vote, None);
                if !core.care.may_vote() {
                    return Err(refused("state not confirmed yet"));
                }
                let response = core.raft.vote(vote).await.map_err(refused)?;
                wire::put_vote_response(&response)
            }
            kind::PRE_VOTE => {
                let (vote, _) = wire::read_pre_vote(request.meta).map_err(bad)?;
                let response = core.raft.pre_vote(vote).await.map_err(refused)?;
                wire::put_vote_response(&response)
            }
            kind::WOULD_LEAD => {
                self.would_lead(&core)?;
                Bytes::new()
            }
            kind::TRANSFER => {
                self.would_lead(&core)?;
                let transfer = wire::read_transfer(request.meta).map_err(bad)?;
                let response = core.raft.handle_transfer_leader(transfer).await.map_err(refused)?;
                response.map_err(refused)?;
                Bytes::new()
            }
            kind::SNAPSHOT_BEGIN => receive::begin(&core, request.meta).await?,
            kind::SNAPSHOT_PIECE => receive::piece(&core, request.meta, request.bodies).await?,
            kind::SNAPSHOT_END => receive::end(&core, request.meta).await?,
            kind::CHUNKS => return core.serve_chunks(request.meta).await,
            kind::CHUNK_LIST => core.serve_list(request.meta).await?,
            kind::ENTRY => return core.serve_entry(request.meta).await,
            kind::COMPARE => core.serve_compare(request.meta)?,
            kind::REBUILD => core.serve_rebuild(request.meta)?,
            kind::SEEN => core.tell_seen(from).await?,
            kind::LOST => lost(&core, request.meta)?,
            _ => return Err(refused("unknown kind of request")),
        };
        Ok(PeerResponse { meta, bodies: Vec::new() })
    }

    /// Refuses leadership where it would be given up at once.
    fn would_lead(&self, core: &Core) -> Result<(), PeerError> {
        if core.care.is_incomplete() {
            return Err(refused("bodies are missing here"));
        }
        let config = &self.inner.config;
        if config.disk.unanswered() > config.timing.disk_hung {
            return Err(refused("the disk hangs"));
        }
        Ok(())
    }
}

async fn append(core: &Core, meta: Bytes, bodies: Vec<Bytes>) -> Result<Bytes, PeerError> {
    if !bodies.is_empty() && core.claim.disk.refuses_bodies() {
        // Why here: for openraft a log that cannot be written is the end. So it goes on with what is here,
        // votes, and has its log cut and the journal collected, until there is space.
        return Err(refused("the disk is full"));
    }
    core.care.received(bodies.iter().map(Bytes::len).sum());
    let request = wire::read_append(meta, bodies).map_err(bad)?;
    let response = core.raft.append_entries(request).await.map_err(refused)?;
    if !matches!(response, AppendEntriesResponse::HigherVote(_)) {
        let now = Some(tokio::time::Instant::now());
        *core.led_at.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }
    Ok(wire::put_append_response(&response))
}

fn lost(core: &Core, meta: Bytes) -> Result<Bytes, PeerError> {
    if core.has_lost(&wire::read_seen(meta).map_err(bad)?) {
        core.care.was_rolled_back();
    }
    Ok(Bytes::new())
}

pub(crate) fn bad(error: BadBytes) -> PeerError {
    refused(error)
}

pub(crate) fn refused(error: impl std::fmt::Display) -> PeerError {
    PeerError::Refused(error.to_string())
}

#[cfg(test)]
mod tests;
