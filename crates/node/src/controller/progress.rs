//! How far replicas are that are being made, and when they will be done.

use std::collections::BTreeMap;
use std::time::Instant;

use api::admin::{Phase, Replacement};
use api::meta::{ReplicaReport, ReplicaState};
use api::placement::{Replica, ReplicaRole, Shard};
use mailbox::ShardId;

use super::plan::Scene;

/// Since when each replica has been in its phase, and how much was done then.
#[derive(Default)]
pub(super) struct Progress {
    begun: BTreeMap<(ShardId, u64), Begun>,
}

struct Begun {
    at: Instant,
    phase: Phase,
    phase_at: Instant,
    done_then: u64,
}

impl Progress {
    /// Every replica that is being made, or is not whole yet.
    pub fn of(&mut self, scene: &Scene<'_>) -> Vec<Replacement> {
        let mut all = Vec::new();
        let mut begun = BTreeMap::new();
        for shard in &scene.placement.shards {
            for replica in &shard.replicas {
                let report = scene.report(shard.shard, replica);
                let lacks_bodies = report.is_some_and(|report| report.n_missing_chunks > 0);
                if replica.role == ReplicaRole::Voter && !lacks_bodies {
                    continue;
                }
                let key = (shard.shard, replica.replica_id);
                let measured = measure(scene, shard, replica);
                let (phase, done, _) = measured;
                let before = self.begun.remove(&key);
                let now = Instant::now();
                let begin = |at| Begun { at, phase, phase_at: now, done_then: done };
                let since = match before {
                    Some(before) if before.phase == phase => before,
                    Some(before) => begin(before.at),
                    None => begin(now),
                };
                all.push(tell(shard, replica, report, (measured, &since)));
                begun.insert(key, since);
            }
        }
        self.begun = begun;
        all
    }
}

/// In which phase a replica is, with what is done of what there is to do: entries or octets.
fn measure(scene: &Scene<'_>, shard: &Shard, replica: &Replica) -> (Phase, u64, u64) {
    let Some(report) = scene.report(shard.shard, replica) else { return (Phase::Placed, 0, 0) };
    let Some((_, leader)) = scene.leader(shard) else { return (Phase::Placed, 0, 0) };
    // Why not once it got something: one that gets all rows at once starts until it has them.
    if report.state == ReplicaState::Starting && report.received_bytes == 0 {
        return (Phase::Placed, 0, 0);
    }
    if report.n_missing_chunks > 0 {
        let done = report.received_bytes;
        return (Phase::Bodies, done, done + report.missing_bytes);
    }
    match scene.lacks(shard, replica, leader) {
        Some("not started") => (Phase::Placed, 0, 0),
        Some(_) => (Phase::Rows, report.applied.min(leader.committed), leader.committed),
        None => (Phase::Whole, 0, 0),
    }
}

fn tell(
    shard: &Shard,
    replica: &Replica,
    report: Option<&ReplicaReport>,
    ((phase, done, total), begun): ((Phase, u64, u64), &Begun),
) -> Replacement {
    let ms = |at: Instant| u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (gained, left) = (done.saturating_sub(begun.done_then), total.saturating_sub(done));
    let eta = ms(begun.phase_at) as f64 * left as f64 / gained as f64;
    Replacement {
        shard: shard.shard,
        replica_id: replica.replica_id,
        node: replica.node.clone(),
        disk_id: replica.disk_id,
        replaces: replica.replaces,
        phase,
        done,
        total,
        received_bytes: report.map_or(0, |report| report.received_bytes),
        elapsed_ms: ms(begun.at),
        eta_ms: (gained > 0).then_some(eta as u64),
    }
}
