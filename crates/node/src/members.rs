//! Changes of a shard's members, done where the shard is led, on the word of the controller.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::meta::{MemberChange, MemberVerb, MetaError};
use replica::{Member, Role, Status};

use crate::controller::lag_max;
use crate::refuse;
use crate::replicas::Running;
use crate::shared::Shared;

/// Does what is asked, once; what is done already is done.
pub(crate) async fn change(shared: &Arc<Shared>, change: MemberChange) -> Result<(), MetaError> {
    let shard = change.shard;
    let running = shared.replicas.of_shard(shard);
    let running = running.ok_or(MetaError::NotLeader { leader: None })?;
    let status = running.replica.status();
    if status.role != Role::Leader {
        return Err(MetaError::NotLeader { leader: status.leader.map(|(_, member)| member.node) });
    }
    // Why: who asks may have been deposed meanwhile, and speak of members as they were.
    let voters: BTreeSet<u64> = status.voters.keys().copied().collect();
    if voters != change.from_voters {
        return Err(refused(format!("shard {shard} has other voters by now")));
    }
    tracing::info!(%shard, what = ?change.what, "members change");
    // Why a task: whoever asks may give up, and a joint change is not left half done for that.
    let doing = tokio::spawn(async move {
        let Ok(_one) = running.changing.try_lock() else {
            return Err(MetaError::Unavailable("a change is under way".into()));
        };
        act(&running, &status, change.what).await
    });
    doing.await.unwrap_or_else(|error| Err(MetaError::Unavailable(error.to_string())))
}

async fn act(running: &Running, status: &Status, verb: MemberVerb) -> Result<(), MetaError> {
    let replica = &running.replica;
    let done = match verb {
        MemberVerb::AddLearner(new) if is_member(status, new.replica_id) => Ok(()),
        MemberVerb::AddLearner(new) => {
            // Why the result is dropped: without a checkpoint it takes longer, from the first entry on.
            drop(replica.make_way(new.replaces).await);
            let member = Member { node: new.node, disk_id: new.disk_id.0 };
            replica.add_learner(new.replica_id, member).await
        }
        MemberVerb::RemoveLearner(id) if status.voters.contains_key(&id) => {
            return Err(refused(format!("replica {id} votes")));
        }
        MemberVerb::RemoveLearner(id) if status.learners.contains_key(&id) => {
            replica.remove_learner(id).await
        }
        // Durability: a majority says that this replica still leads, so nobody let the other one vote.
        MemberVerb::RemoveLearner(_) => replica.read().await.map(drop),
        MemberVerb::Voters(ids) => {
            let behind = ids.iter().find(|id| !may_vote(running, status, **id));
            if let Some(id) = behind {
                return Err(refused(format!("replica {id} is too far behind to vote")));
            }
            replica.change_members(ids).await
        }
        MemberVerb::Lead(id) => replica.transfer_leader(Some(id)).await,
    };
    done.map_err(refuse::meta)
}

fn is_member(status: &Status, id: u64) -> bool {
    status.voters.contains_key(&id) || status.learners.contains_key(&id)
}

/// Whether a replica may vote from now on: it does already, or it keeps up.
fn may_vote(running: &Running, status: &Status, id: u64) -> bool {
    let matched = status.matched.get(&id);
    status.voters.contains_key(&id)
        || id == running.replica.replica_id()
        || matched
            .is_some_and(|matched| matched + lag_max(status.committed) >= status.last_log_index)
}

fn refused(reason: String) -> MetaError {
    MetaError::Refused(reason)
}
