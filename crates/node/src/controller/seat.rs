//! On which disk a new replica goes: one that is well and has room, on a node without another replica
//! of the shard, where replicas could run lately, in another zone where there is one, and among those one
//! that is not nearly full, on which more is free, and that carries least.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use api::placement::{Disk, DiskId, DiskState, Node, Replica, ReplicaRole, Shard};

use super::plan::{Condition, Scene, hung_for};
use crate::meta::command::Seat;

/// What is free on a disk is compared in so many parts of it: smaller differences count less than what it
/// carries. A disk with less than one part is nearly full.
const SHARES: u64 = 8;

/// The disks that take replicas now, with what they and their nodes carry, and with what is planned in this
/// round.
#[derive(Clone)]
pub(super) struct Seats<'a>(Vec<Open<'a>>);

/// One of them. Why the counts are here: where a node or a zone is lost, all disks are compared for each of
/// some hundred or thousand replicas.
#[derive(Clone)]
struct Open<'a> {
    node: &'a Node,
    disk_id: DiskId,
    told: &'a Disk,
    is_shunned: bool,
    n_replicas: usize,
    n_learners: usize,
    n_of_node: usize,
}

impl<'a> Seats<'a> {
    /// What is placed.
    pub fn of(scene: &Scene<'a>) -> Self {
        let (mut replicas, mut learners, mut of_node) =
            (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for replica in scene.placement.shards.iter().flat_map(|shard| &shard.replicas) {
            *replicas.entry(replica.disk_id).or_insert(0) += 1;
            *of_node.entry(replica.node.as_str()).or_insert(0) += 1;
            if replica.role == ReplicaRole::Learner {
                *learners.entry(replica.disk_id).or_insert(0) += 1;
            }
        }
        let nodes = scene.placement.nodes.iter();
        let disks = nodes.flat_map(|node| node.disks.iter().map(move |disk| (node, disk)));
        let open = disks.filter(|(node, disk)| takes(scene, node, disk));
        let open = open.filter_map(|(node, disk)| {
            let of_disk = |counts: &BTreeMap<DiskId, usize>| {
                counts.get(&disk.disk_id).copied().unwrap_or_default()
            };
            Some(Open {
                node,
                disk_id: disk.disk_id,
                told: scene.told(&node.name, disk.disk_id)?,
                is_shunned: scene.shunned.contains(&disk.disk_id),
                n_replicas: of_disk(&replicas),
                n_learners: of_disk(&learners),
                n_of_node: of_node.get(node.name.as_str()).copied().unwrap_or_default(),
            })
        });
        Self(open.collect())
    }

    /// Changes what is counted of a learner there.
    fn count(&mut self, node: &str, disk_id: DiskId, change: impl Fn(usize) -> usize) {
        for open in self.0.iter_mut().filter(|open| open.node.name == node) {
            open.n_of_node = change(open.n_of_node);
            if open.disk_id == disk_id {
                open.n_replicas = change(open.n_replicas);
                open.n_learners = change(open.n_learners);
            }
        }
    }

    /// A learner is planned there.
    pub fn take(&mut self, seat: &Seat) {
        self.count(&seat.node, seat.disk_id, |n| n + 1);
    }

    /// Learners on a disk that takes replicas.
    pub fn n_learners(&self, disk_id: DiskId) -> usize {
        let open = self.0.iter().find(|open| open.disk_id == disk_id);
        open.map_or(0, |open| open.n_learners)
    }

    /// Whether so many learners or more are on each of them.
    pub fn are_all_filled(&self, n_learners: usize) -> bool {
        !self.0.is_empty() && self.0.iter().all(|open| open.n_learners >= n_learners)
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
        seats.count(&learner.node, learner.disk_id, |n| n.saturating_sub(1));
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
        let is_open = |open: &&Open<'_>| {
            open.told.free_bytes >= free_bytes_min
                && !others().any(|one| one.node == open.node.name)
        };
        let best = self.0.iter().filter(is_open).min_by_key(|open| {
            let zone = open.node.zone.as_str();
            let same_zone = !zone.is_empty() && zones.contains(zone);
            // Why the learners in between: many that are filled at once are spread over all other disks.
            let share = free_share(open.told);
            let room = (share == 0, open.n_learners, Reverse(share));
            // Why the disk before its node: a new disk on the same node is emptier than any other.
            let carried = (open.n_replicas, open.n_of_node);
            (open.is_shunned, same_zone, room, carried, open.disk_id)
        });
        best.map(|open| Seat { node: open.node.name.clone(), disk_id: open.disk_id })
    }
}

/// How many of so many parts of a disk are free.
fn free_share(told: &Disk) -> u64 {
    told.free_bytes / (told.size_bytes / SHARES).max(1)
}

/// Whether a disk takes replicas now.
fn takes(scene: &Scene<'_>, node: &Node, disk: &Disk) -> bool {
    let report = scene.fresh(&node.name);
    let told =
        report.and_then(|report| report.disks.iter().find(|told| told.disk_id == disk.disk_id));
    let hangs = report.is_some_and(|report| hung_for(report, disk.disk_id).is_some());
    disk.state == DiskState::Ok
        && scene.place(&node.name, disk.disk_id) == Condition::Good
        && told.is_some_and(|told| !told.is_full())
        && !hangs
}
