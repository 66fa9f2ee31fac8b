//! Leaders where the placement prefers them: the first replica of each shard leads it whenever it can,
//! unless its disk is full and another's is not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

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
/// Limit: the same of one that loses leadership again and again. What follows this node hears as well as
/// any may still be nobody whom its followers hear in time: each attempt costs them an election.
const STEADY_MAX: u32 = 300;
/// Who lost leadership so soon after it began must be found able twice as often the next time,
const SOON: Duration = Duration::from_secs(30);
/// until so long passed without that. Longer than the looks it takes at most.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);
/// Entries by which it may be behind.
const LAG_MAX: u64 = 64;

/// Hands leaderships to the preferred replicas, until the node stops.
pub(crate) async fn spread(shared: Arc<Shared>) {
    let mut shards: BTreeMap<ShardId, Steadiness> = BTreeMap::new();
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
            let status = running.replica.status();
            let steadiness = shards.entry(shard).or_default();
            if let Some((leader, _)) = &status.leader {
                steadiness.is_led_by(*leader, Instant::now());
            }
            let found = better(&placement, &running, &status);
            let Some(to) = steadiness.found(found, Instant::now()) else { continue };
            tracing::info!(%shard, replica = to, "leadership goes to the preferred replica");
            match running.replica.prefer_leader(to).await {
                Ok(()) => steadiness.was_handed_to(to, Instant::now()),
                Err(error) => tracing::debug!(%shard, %error, "leadership not handed over"),
            }
        }
    }
}

/// How sure it is that who is preferred would go on leading one shard.
#[derive(Default)]
struct Steadiness {
    /// Who was found able in place of the leader, and how often in a row.
    found: Option<(u64, u32)>,
    /// Who led when that was last known, and since when.
    leader: Option<(u64, Instant)>,
    /// Who lost leadership soon: how often in a row it must be found able now, and when it lost it.
    lost: BTreeMap<u64, (u32, Instant)>,
}

impl Steadiness {
    /// This one leads at present.
    fn is_led_by(&mut self, leader: u64, now: Instant) {
        if self.leader.is_some_and(|(before, _)| before == leader) {
            return;
        }
        if let Some((before, since)) = self.leader.replace((leader, now))
            && now.duration_since(since) < SOON
        {
            let times = (2 * self.times_wanted(before, now)).min(STEADY_MAX);
            self.lost.retain(|_, (_, at)| now.duration_since(*at) < FORGOTTEN_AFTER);
            self.lost.insert(before, (times, now));
        }
    }

    /// Leadership is on its way to this one: if this node leads on, it did not take it.
    fn was_handed_to(&mut self, to: u64, now: Instant) {
        self.leader = Some((to, now));
    }

    /// Who was found able to lead in place of this node; given back when it is time.
    fn found(&mut self, able: Option<u64>, now: Instant) -> Option<u64> {
        let times = match (able, self.found) {
            (Some(to), Some((before, times))) if to == before => times + 1,
            _ => 1,
        };
        self.found = able.map(|to| (to, times));
        let to = able.filter(|to| times >= self.times_wanted(*to, now))?;
        self.found = None;
        Some(to)
    }

    fn times_wanted(&self, replica: u64, now: Instant) -> u32 {
        let lost = self.lost.get(&replica);
        let lately = lost.filter(|(_, at)| now.duration_since(*at) < FORGOTTEN_AFTER);
        lately.map_or(STEADY, |(times, _)| *times)
    }
}

/// The replica that should lead instead of this one.
fn better(placement: &Placement, running: &Running, status: &Status) -> Option<u64> {
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
                || keeps_up(status, placed.replica_id))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// How many looks it takes until leadership goes to 1.
    fn n_looks(steadiness: &mut Steadiness, now: &mut Instant) -> u32 {
        for n in 1.. {
            *now += LOOK_EVERY;
            steadiness.is_led_by(2, *now);
            if steadiness.found(Some(1), *now) == Some(1) {
                return n;
            }
        }
        0
    }

    #[test]
    fn who_loses_leadership_again_and_again_is_given_it_less_and_less_often() {
        let (mut steadiness, mut now) = (Steadiness::default(), Instant::now());
        for wanted in [3, 6, 12, 24, 48, 96, 192, 300, 300] {
            assert_eq!(n_looks(&mut steadiness, &mut now), wanted);
            steadiness.was_handed_to(1, now);
            now += Duration::from_secs(2);
        }
        // It leads now, and goes on for long.
        steadiness.is_led_by(1, now);
        now += FORGOTTEN_AFTER;
        assert_eq!(n_looks(&mut steadiness, &mut now), STEADY);
    }

    #[test]
    fn who_lost_leadership_that_another_gave_it_is_known_too() {
        let (mut steadiness, mut now) = (Steadiness::default(), Instant::now());
        steadiness.is_led_by(3, now);
        now += SOON;
        steadiness.is_led_by(1, now);
        now += SOON / 2;
        assert_eq!(n_looks(&mut steadiness, &mut now), 2 * STEADY);
    }

    #[test]
    fn who_is_not_able_now_and_then_is_left_alone() {
        let (mut steadiness, now) = (Steadiness::default(), Instant::now());
        for able in [Some(1), Some(1), None, Some(1), Some(1), Some(3), Some(3), Some(1)] {
            assert_eq!(steadiness.found(able, now), None);
        }
    }
}
