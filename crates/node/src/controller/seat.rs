//! On which disk a new replica goes: one that is well and has room, on a node without another replica
//! of the shard, where replicas could run lately, in another zone where there is one, and among those one
//! that is not nearly full, on which more is free, and that carries least.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use api::placement::{Disk, DiskId, DiskState, Node, Placement, Replica, ReplicaRole, Shard};

use super::plan::{Condition, Scene, hung_for};
use crate::meta::command::Seat;

/// What is free on a disk is compared in so many parts of it: smaller differences count less than what it
/// carries. A disk with less than one part is nearly full.
const SHARES: u64 = 8;

/// What each disk and node carries, with what is planned in this round.
#[derive(Clone)]
pub(super) struct Seats {
    replicas: BTreeMap<DiskId, usize>,
    learners: BTreeMap<DiskId, usize>,
    of_node: BTreeMap<String, usize>,
}

impl Seats {
    /// What is placed.
    pub fn of(placement: &Placement) -> Self {
        let mut seats =
            Self { replicas: BTreeMap::new(), learners: BTreeMap::new(), of_node: BTreeMap::new() };
        for replica in placement.shards.iter().flat_map(|shard| &shard.replicas) {
            seats.count(&replica.node, replica.disk_id);
            if replica.role == ReplicaRole::Learner {
                *seats.learners.entry(replica.disk_id).or_default() += 1;
            }
        }
        seats
    }

    fn count(&mut self, node: &str, disk_id: DiskId) {
        *self.replicas.entry(disk_id).or_default() += 1;
        *self.of_node.entry(node.to_owned()).or_default() += 1;
    }

    /// A learner is planned there.
    pub fn take(&mut self, seat: &Seat) {
        self.count(&seat.node, seat.disk_id);
        *self.learners.entry(seat.disk_id).or_default() += 1;
    }

    /// Learners on a disk.
    pub fn n_learners(&self, disk_id: DiskId) -> usize {
        self.learners.get(&disk_id).copied().unwrap_or_default()
    }

    /// The best place for a replica instead of `old`, or for a further one.
    pub fn best(&self, scene: &Scene<'_>, shard: &Shard, old: Option<&Replica>) -> Option<Seat> {
        let gone: Vec<u64> = old.map(|old| old.replica_id).into_iter().collect();
        self.best_without(scene, shard, (&gone, 0))
    }

    /// The best place for a learner that does not fit where it is: one where so much is free, that nobody
    /// else fills, and that it gets when it is made anew.
    pub fn roomier(
        &self,
        scene: &Scene<'_>,
        shard: &Shard,
        (learner, free_bytes): (&Replica, u64),
    ) -> Option<Seat> {
        let gone = [Some(learner.replica_id), learner.replaces];
        let gone: Vec<u64> = gone.into_iter().flatten().collect();
        let seats = self.without(learner);
        let seat = seats.best_without(scene, shard, (&gone, free_bytes))?;
        let is_free = seat.disk_id != learner.disk_id && self.n_learners(seat.disk_id) == 0;
        // Why: it would be made where it does not fit, again and again. One that is not shunned is got at
        // last, since those before it are shunned when they were tried.
        let is_got = !scene.shunned.contains(&seat.disk_id)
            || seats.best_without(scene, shard, (&gone, 0)).as_ref() == Some(&seat);
        (is_free && is_got).then_some(seat)
    }

    /// What is carried once a learner is gone.
    fn without(&self, learner: &Replica) -> Self {
        let mut seats = self.clone();
        let counts = [
            seats.replicas.get_mut(&learner.disk_id),
            seats.learners.get_mut(&learner.disk_id),
            seats.of_node.get_mut(&learner.node),
        ];
        for n in counts.into_iter().flatten() {
            *n = n.saturating_sub(1);
        }
        seats
    }

    fn best_without(
        &self,
        scene: &Scene<'_>,
        shard: &Shard,
        (gone, free_bytes_min): (&[u64], u64),
    ) -> Option<Seat> {
        let others = || shard.replicas.iter().filter(|one| !gone.contains(&one.replica_id));
        let zone_of = |name: &str| scene.placement.node(name).map(|node| node.zone.as_str());
        let zones: BTreeSet<&str> = others().filter_map(|one| zone_of(&one.node)).collect();
        let open = |node: &&Node| !others().any(|one| one.node == node.name);
        let nodes = scene.placement.nodes.iter().filter(open);
        let disks = nodes.flat_map(|node| node.disks.iter().map(move |disk| (node, disk)));
        let told = |node: &Node, disk: &Disk| scene.told(&node.name, disk.disk_id);
        let good = disks.filter(|(node, disk)| {
            takes(scene, node, disk)
                && told(node, disk).is_some_and(|told| told.free_bytes >= free_bytes_min)
        });
        let best = good.min_by_key(|(node, disk)| {
            let same_zone = !node.zone.is_empty() && zones.contains(node.zone.as_str());
            let of_disk = self.replicas.get(&disk.disk_id).copied().unwrap_or_default();
            // Why the disk first: a new disk on the same node is emptier than any other.
            let of_node = self.of_node.get(&node.name).copied().unwrap_or_default();
            let is_shunned = scene.shunned.contains(&disk.disk_id);
            // Why the learners in between: many that are filled at once are spread over all other disks.
            let share = told(node, disk).map_or(0, free_share);
            let room = (share == 0, self.n_learners(disk.disk_id), Reverse(share));
            (is_shunned, same_zone, room, of_disk, of_node, disk.disk_id)
        });
        best.map(|(node, disk)| Seat { node: node.name.clone(), disk_id: disk.disk_id })
    }
}

/// How many of so many parts of a disk are free.
fn free_share(told: &Disk) -> u64 {
    told.free_bytes / (told.size_bytes / SHARES).max(1)
}

/// Whether a disk takes replicas now.
pub(super) fn takes(scene: &Scene<'_>, node: &Node, disk: &Disk) -> bool {
    let report = scene.fresh(&node.name);
    let told =
        report.and_then(|report| report.disks.iter().find(|told| told.disk_id == disk.disk_id));
    let hangs = report.is_some_and(|report| hung_for(report, disk.disk_id).is_some());
    disk.state == DiskState::Ok
        && scene.place(&node.name, disk.disk_id) == Condition::Good
        && told.is_some_and(|told| !told.is_full())
        && !hangs
}
