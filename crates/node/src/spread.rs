//! Leaders where the placement prefers them: the first replica of each shard leads it whenever it can,
//! unless its disk is full and another's is not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::placement::{Disk, Placement, Replica, ReplicaRole};
use mailbox::ShardId;
use replica::{Role, Status};

use crate::replicas::Running;
use crate::shared::Shared;

/// How often to look.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often in a row the preferred replica must be found able to lead, so that one that comes and goes
/// is left alone.
const STEADY: u32 = 3;
/// Entries by which it may be behind.
const LAG_MAX: u64 = 64;

/// Hands leaderships to the preferred replicas, until the node stops.
pub(crate) async fn spread(shared: Arc<Shared>) {
    let mut steady: BTreeMap<ShardId, (u64, u32)> = BTreeMap::new();
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        if shared.is_draining() {
            continue;
        }
        let placement = shared.known.placement();
        for running in shared.replicas.all() {
            let shard = running.replica.shard();
            let Some(to) = better(&placement, &running) else {
                steady.remove(&shard);
                continue;
            };
            let (seen, times) = steady.entry(shard).or_insert((to, 0));
            *times = if *seen == to { *times + 1 } else { 1 };
            *seen = to;
            if *times >= STEADY {
                steady.remove(&shard);
                tracing::info!(%shard, replica = to, "leadership goes to the preferred replica");
                if let Err(error) = running.replica.transfer_leader(Some(to)).await {
                    tracing::debug!(%shard, %error, "leadership not handed over");
                }
            }
        }
    }
}

/// The replica that should lead instead of this one.
fn better(placement: &Placement, running: &Running) -> Option<u64> {
    let status = running.replica.status();
    if status.role != Role::Leader || status.is_joint {
        return None;
    }
    let shard = placement.shard(running.replica.shard())?;
    let drains = |node: &str| placement.node(node).is_none_or(|node| node.draining);
    let leaves = |id: u64| shard.replicas.iter().any(|other| other.replaces == Some(id));
    let able = shard.replicas.iter().filter(|placed| {
        placed.role == ReplicaRole::Voter
            && !drains(&placed.node)
            && !leaves(placed.replica_id)
            && (placed.replica_id == running.replica.replica_id()
                || keeps_up(&status, placed.replica_id))
    });
    let is_full = |placed: &Replica| {
        let disks = placement.nodes.iter().flat_map(|node| &node.disks);
        let mut found = disks.filter(|disk| disk.disk_id == placed.disk_id);
        found.any(Disk::is_full)
    };
    // Why the full ones last: who leads on a full disk refuses what the others could take.
    let preferred = able.min_by_key(|placed| is_full(placed))?.replica_id;
    (preferred != running.replica.replica_id()).then_some(preferred)
}

fn keeps_up(status: &Status, replica_id: u64) -> bool {
    let matched = status.matched.get(&replica_id).copied();
    // Why both: in an idle shard the log of a replica that is down is as long as any.
    status.answers(replica_id)
        && matched.is_some_and(|matched| matched + LAG_MAX >= status.last_log_index)
}
