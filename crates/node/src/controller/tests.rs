//! Scenarios without any input or output: a model of a cluster in which the steps of each plan are done,
//! lost or cut short, until nothing is left to do.

mod large;
mod room;
mod unwell;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use api::admin::Phase;
use api::meta::{DiskScrub, MemberChange, MemberVerb, ReplicaReport, ReplicaState, Report};
use api::placement::{
    ClusterId, Disk, DiskId, DiskState, META_SHARD, Node, NodeId, Placement, ReplicaRole,
};
use mailbox::{LogTime, RowDigest, Rows, ShardId};
use proptest::prelude::*;

use super::plan::{Action, Condition, Heard, Plan, Scene, plan};
use super::progress::Progress;
use crate::meta::command::Entry;
use crate::meta::{self, Command, Outcome};

const REPLACE_AFTER: Duration = Duration::from_secs(600);

/// A shard's group as its log has it.
#[derive(Clone, Debug, Default)]
struct Group {
    /// One set, or both sides of a joint change.
    configs: Vec<BTreeSet<u64>>,
    learners: BTreeSet<u64>,
    leader: u64,
}

/// A cluster on paper.
#[derive(Clone)]
struct World {
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    digest: RowDigest,
    /// Which disks each node has, with what they are; a node that is away is not here.
    up: BTreeMap<String, Vec<DiskId>>,
    silent: BTreeMap<String, Duration>,
    groups: BTreeMap<ShardId, Group>,
    /// Replicas that have every row and body.
    whole: BTreeSet<u64>,
    poisoned: BTreeSet<DiskId>,
    unwell: BTreeMap<(ShardId, u64), Duration>,
    /// Replicas that were forced to stand alone, and did.
    recovered: BTreeSet<u64>,
    /// Disks on which replicas could not run lately.
    shunned: BTreeSet<DiskId>,
    /// What is free on disks that are not half empty.
    free_bytes: BTreeMap<DiskId, u64>,
    /// Bodies of each shard.
    shard_bytes: u64,
    /// For how long the controller has been looking.
    watching: Duration,
    /// Entries of each shard, all committed.
    n_entries: u64,
    /// Replicas that a shard has.
    n_copies: usize,
    /// Reports of nodes that began anew since, which the next plan still sees.
    stale: BTreeMap<String, Heard>,
}

fn disk_id(node: u8, disk: u8) -> DiskId {
    DiskId([16 * node + disk; 16])
}

fn node(n: u8, disks: &[DiskId]) -> Node {
    let disk = |disk_id: &DiskId| Disk {
        disk_id: *disk_id,
        start_count: 1,
        size_bytes: 1 << 40,
        free_bytes: 1 << 39,
        state: DiskState::Ok,
        path: "/srv".into(),
        start_id: 0,
        previous_start_id: 0,
        n_synced: None,
    };
    Node {
        name: format!("n{n}"),
        node_id: NodeId([n; 16]),
        address: format!("127.0.0.{n}:7400"),
        zone: String::new(),
        disks: disks.iter().map(disk).collect(),
        draining: false,
        run_id: 0,
    }
}

impl World {
    fn new(n_nodes: u8, n_disks: u8, n_shards: u32) -> Self {
        Self::of_copies(n_nodes, n_disks, n_shards, 3)
    }

    fn of_copies(n_nodes: u8, n_disks: u8, n_shards: u32, n_copies: u32) -> Self {
        let disks = |n| (0..n_disks).map(|d| disk_id(n, d)).collect::<Vec<_>>();
        let nodes: Vec<Node> = (1..=n_nodes).map(|n| node(n, &disks(n))).collect();
        let up = (1..=n_nodes).map(|n| (format!("n{n}"), disks(n))).collect();
        let mut world = Self {
            rows: BTreeMap::new(),
            digest: RowDigest::default(),
            up,
            silent: BTreeMap::new(),
            groups: BTreeMap::new(),
            whole: BTreeSet::new(),
            poisoned: BTreeSet::new(),
            unwell: BTreeMap::new(),
            shunned: BTreeSet::new(),
            free_bytes: BTreeMap::new(),
            shard_bytes: 0,
            watching: REPLACE_AFTER * 10,
            n_entries: 10_000,
            n_copies: n_copies as usize,
            stale: BTreeMap::new(),
            recovered: BTreeSet::new(),
        };
        let founding = meta::plan::founding(ClusterId([9; 16]), nodes, n_shards, n_copies);
        world.note(Command::Initialize(Box::new(founding)));
        for shard in world.placement().shards {
            let ids: BTreeSet<u64> = shard.replicas.iter().map(|one| one.replica_id).collect();
            world.whole.extend(&ids);
            let leader = *ids.first().unwrap();
            let group = Group { configs: vec![ids], leader, ..Group::default() };
            world.groups.insert(shard.shard, group);
            if shard.shard != META_SHARD {
                let leads = shard.replicas[0].node.clone();
                world.note(Command::NoteLeaders(vec![(shard.shard, leads)]));
            }
        }
        world
    }

    fn placement(&self) -> Placement {
        meta::placement(&self.rows).unwrap()
    }

    fn note(&mut self, command: Command) -> Outcome {
        let mut rows = Rows::new(&self.rows, self.digest);
        let outcome = meta::apply(&mut rows, &Entry { time: LogTime(1), command });
        let (changes, digest) = rows.into_changes();
        for (key, value) in changes {
            match value {
                Some(value) => self.rows.insert(key, value),
                None => self.rows.remove(&key),
            };
        }
        self.digest = digest;
        outcome
    }

    /// Whether a placed replica runs: its node is up and has its disk.
    fn runs(&self, placement: &Placement, id: u64) -> bool {
        let mut all = placement.shards.iter().flat_map(|shard| &shard.replicas);
        all.find(|one| one.replica_id == id).is_some_and(|one| {
            let disks = self.up.get(&one.node);
            disks.is_some_and(|disks| disks.contains(&one.disk_id))
                && !self.poisoned.contains(&one.disk_id)
        })
    }

    /// Elects leaders: a whole voter that runs, if a majority of each side does.
    fn elect(&mut self) {
        let placement = self.placement();
        for group in self.groups.clone() {
            let (shard, mut group) = group;
            let alive = |id: &u64| self.runs(&placement, *id);
            let can = group
                .configs
                .iter()
                .all(|side| side.iter().filter(|id| alive(id)).count() * 2 > side.len());
            let voters: BTreeSet<u64> = group.configs.iter().flatten().copied().collect();
            let fit = |id: &u64| alive(id) && self.whole.contains(id);
            if !can {
                group.leader = 0;
            } else if !voters.contains(&group.leader) || !fit(&group.leader) {
                group.leader = voters.iter().copied().find(fit).unwrap_or(0);
            }
            self.groups.insert(shard, group);
        }
    }

    fn reports(&self) -> BTreeMap<String, Heard> {
        let placement = self.placement();
        let mut heard = BTreeMap::new();
        for known in &placement.nodes {
            if let Some(stale) = self.stale.get(&known.name) {
                heard.insert(known.name.clone(), stale.clone());
                continue;
            }
            let Some(disks) = self.up.get(&known.name) else {
                let age = self.silent.get(&known.name).copied().unwrap_or(REPLACE_AFTER / 2);
                heard.insert(known.name.clone(), Heard { age, report: Report::default() });
                continue;
            };
            let told = disks.iter().map(|id| Disk {
                state: match self.poisoned.contains(id) {
                    true => DiskState::Poisoned,
                    false => DiskState::Ok,
                },
                free_bytes: self.free_on(*id),
                ..node(1, &[*id]).disks[0].clone()
            });
            let mut report = Report {
                scrubs: Vec::new(),
                node: known.name.clone(),
                disks: told.collect(),
                replicas: Vec::new(),
                run_id: known.run_id,
                placement_version: 0,
                is_last: false,
                version: String::new(),
                uptime_ms: 0,
            };
            for shard in &placement.shards {
                for placed in shard.replicas.iter().filter(|one| one.node == known.name) {
                    if self.runs(&placement, placed.replica_id) {
                        let mut one = self.report(shard.shard, placed.replica_id);
                        if !self.whole.contains(&placed.replica_id) && self.shard_bytes > 0 {
                            (one.n_missing_chunks, one.missing_bytes) = (1, self.shard_bytes);
                        }
                        report.replicas.push(one);
                    }
                }
            }
            let age = Duration::from_millis(500);
            heard.insert(known.name.clone(), Heard { age, report });
        }
        heard
    }

    fn free_on(&self, disk_id: DiskId) -> u64 {
        self.free_bytes.get(&disk_id).copied().unwrap_or(1 << 39)
    }

    /// Whether the bodies of a replica find room on its disk.
    fn fits(&self, placement: &Placement, id: u64) -> bool {
        let mut all = placement.shards.iter().flat_map(|shard| &shard.replicas);
        all.any(|one| one.replica_id == id && self.free_on(one.disk_id) > self.shard_bytes)
    }

    fn report(&self, shard: ShardId, id: u64) -> ReplicaReport {
        let group = &self.groups[&shard];
        let leads = group.leader == id;
        let all = group.configs.iter().flatten().chain(&group.learners);
        // Who has no rows yet does not know of bodies either.
        let at = |id: &u64| if self.whole.contains(id) { self.n_entries } else { 0 };
        ReplicaReport {
            shard,
            replica_id: id,
            disk_id: DiskId::default(),
            state: if leads { ReplicaState::Leader } else { ReplicaState::Follower },
            term: 1,
            leader: None,
            last_log: self.n_entries,
            committed: self.n_entries,
            applied: at(&id),
            digest: [0; 32],
            n_missing_chunks: 0,
            n_chunks: 0,
            chunk_bytes: 0,
            followers: if leads { all.map(|id| (*id, at(id))).collect() } else { Vec::new() },
            voters: group
                .configs
                .iter()
                .flatten()
                .copied()
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect(),
            learners: group.learners.iter().copied().collect(),
            is_joint: group.configs.len() > 1,
            missing_bytes: 0,
            received_bytes: 0,
            is_recovered: self.recovered.contains(&id),
        }
    }

    fn plan(&mut self) -> Plan {
        self.elect();
        let (placement, heard) = (self.placement(), self.reports());
        self.stale.clear();
        let scene = Scene::new(&placement, &heard, (self.watching, REPLACE_AFTER));
        self.shunned.extend(scene.cramped());
        plan(&Scene { unwell: &self.unwell, shunned: &self.shunned, ..scene })
    }

    /// Does a step; with `cut` only its first half, as when everybody involved dies.
    fn act(&mut self, action: &Action, cut: bool) {
        match action {
            Action::Note(command) => drop(self.note(command.clone())),
            Action::Ask(_, change, then) => {
                self.change(change, cut);
                if let (Some(command), false) = (then, cut) {
                    self.note(command.clone());
                }
            }
        }
    }

    fn change(&mut self, change: &MemberChange, cut: bool) {
        let whole = self.whole.clone();
        let group = self.groups.get_mut(&change.shard).unwrap();
        let voters: BTreeSet<u64> = group.configs.iter().flatten().copied().collect();
        assert_eq!(voters, change.from_voters, "the plan knows the members");
        match &change.what {
            MemberVerb::AddLearner(new) => {
                assert_eq!(group.configs.len(), 1, "no learner is added in a joint change");
                group.learners.insert(new.replica_id);
            }
            MemberVerb::RemoveLearner(id) => {
                assert!(!voters.contains(id));
                group.learners.remove(id);
            }
            MemberVerb::Voters(ids) => {
                let mut new = ids.difference(&voters);
                assert!(new.all(|id| whole.contains(id)), "what votes has everything");
                let last = group.configs.last().unwrap().clone();
                group.configs = if last == *ids { vec![last] } else { vec![last, ids.clone()] };
                group.learners.retain(|id| !ids.contains(id));
                if !cut && group.configs.len() > 1 {
                    group.configs.remove(0);
                }
            }
            MemberVerb::Lead(id) => group.leader = *id,
        }
    }

    /// Plans and acts until nothing is left to do; learners become whole between two rounds.
    fn settle(&mut self) -> Plan {
        for _ in 0..200 {
            let was_stale = !self.stale.is_empty();
            let plan = self.plan();
            for action in &plan.actions {
                self.act(action, false);
            }
            self.check();
            let n_whole = self.whole.len();
            self.fill();
            if plan.actions.is_empty() && self.whole.len() == n_whole && !was_stale {
                return plan;
            }
        }
        panic!("never settles: {:#?}", self.plan());
    }

    /// Learners that follow and run get everything.
    fn fill(&mut self) {
        self.elect();
        let placement = self.placement();
        for group in self.groups.values().filter(|group| group.leader != 0) {
            let runs = |id: &&u64| self.runs(&placement, **id) && self.fits(&placement, **id);
            let learners: Vec<u64> = group.learners.iter().filter(runs).copied().collect();
            self.whole.extend(learners);
        }
    }

    fn check(&self) {
        let placement = self.placement();
        for shard in &placement.shards {
            let learners = shard.replicas.iter().filter(|one| one.role == ReplicaRole::Learner);
            assert!(learners.count() <= 1, "one change per shard at a time");
            let group = &self.groups[&shard.shard];
            for side in &group.configs {
                let n = side.len();
                let wanted = match self.n_copies {
                    _ if !shard.outcasts.is_empty() => n.min(3),
                    // The only one has another beside it before it goes.
                    1 => n.clamp(1, 2),
                    n => n,
                };
                assert_eq!(n, wanted, "{shard:?} {group:?}");
            }
        }
    }

    /// Every shard has three voters that run and are whole, and its group knows exactly those.
    fn is_whole(&mut self) -> bool {
        self.elect();
        let placement = self.placement();
        placement.shards.iter().all(|shard| {
            let ids: BTreeSet<u64> = shard.replicas.iter().map(|one| one.replica_id).collect();
            let group = &self.groups[&shard.shard];
            let fit = |id: &u64| self.runs(&placement, *id) && self.whole.contains(id);
            group.configs == [ids.clone()]
                && group.learners.is_empty()
                && ids.iter().all(fit)
                && shard.replicas.iter().all(|one| one.role == ReplicaRole::Voter)
        })
    }

    fn wipe(&mut self, n: u8, new: &[DiskId]) {
        let name = format!("n{n}");
        let run_id = self.placement().node(&name).map_or(1, |node| node.run_id + 1);
        self.stale.insert(name.clone(), self.reports().remove(&name).unwrap());
        self.up.insert(name, new.to_vec());
        let outcome = self.note(Command::RegisterNode(Node { run_id, ..node(n, new) }));
        assert_eq!(outcome, Outcome::Done);
    }
}

#[test]
fn a_whole_cluster_is_left_alone() {
    let mut world = World::new(4, 2, 5);
    assert_eq!(world.plan(), Plan::default());
}

#[test]
fn a_wiped_node_of_three_is_filled_again_on_its_new_disk() {
    let mut world = World::new(3, 1, 4);
    let old: BTreeSet<u64> = world.whole.clone();
    world.wipe(3, &[disk_id(3, 7)]);
    world.settle();
    assert!(world.is_whole());
    let placement = world.placement();
    for shard in &placement.shards {
        let on_new: Vec<_> =
            shard.replicas.iter().filter(|one| one.disk_id == disk_id(3, 7)).collect();
        assert_eq!(on_new.len(), 1, "{shard:?}");
        assert!(!old.contains(&on_new[0].replica_id), "an id came back");
    }
    let disks = &placement.node("n3").unwrap().disks;
    assert_eq!(disks.len(), 1, "the disk that is gone is forgotten: {disks:?}");
    // What left does not come back, and is no fault of the disk beside it.
    let again = world.note(Command::RegisterNode(node(3, &[disk_id(3, 0), disk_id(3, 7)])));
    assert!(matches!(again, Outcome::Done), "{again:?}");
    let placement = world.placement();
    let disks = &placement.node("n3").unwrap().disks;
    assert!(matches!(&disks[..], [only] if only.disk_id == disk_id(3, 7)), "{disks:?}");
    let again = world.note(Command::RegisterNode(node(3, &[disk_id(3, 0)])));
    assert!(matches!(again, Outcome::Refused(why) if why.contains("has left this cluster")));
}

#[test]
fn a_disk_of_several_that_fails_is_replaced_at_once_wherever_there_is_room() {
    let mut world = World::new(3, 2, 6);
    world.poisoned.insert(disk_id(2, 1));
    world.note(Command::SetDiskState(disk_id(2, 1), DiskState::Poisoned));
    world.settle();
    assert!(world.is_whole());
    let placement = world.placement();
    let mut all = placement.shards.iter().flat_map(|shard| &shard.replicas);
    assert!(all.all(|one| one.disk_id != disk_id(2, 1)));
}

#[test]
fn a_node_that_is_away_is_replaced_after_a_while_and_not_before() {
    let mut world = World::new(4, 1, 4);
    world.up.remove("n2");
    let plan = world.plan();
    assert_eq!(plan.actions, []);
    world.silent.insert("n2".into(), REPLACE_AFTER);
    world.settle();
    assert!(world.is_whole());
    assert!(world.placement().shards.iter().all(|s| s.replicas.iter().all(|r| r.node != "n2")));
}

#[test]
fn in_a_cluster_of_three_a_node_that_is_away_is_waited_for_and_said() {
    let mut world = World::new(3, 1, 1);
    world.up.remove("n2");
    world.silent.insert("n2".into(), REPLACE_AFTER);
    let plan = world.settle();
    assert_eq!(plan.waiting.len(), 2, "{:?}", plan.waiting);
    assert!(plan.waiting[1].contains("on n2 (node away): no suitable disk on another node"));
}

#[test]
fn a_drained_node_is_emptied_and_can_leave() {
    let mut world = World::new(4, 1, 4);
    world.note(Command::SetDraining("n1".into(), true));
    let refused = world.note(Command::RemoveNode("n1".into()));
    assert!(matches!(refused, Outcome::Refused(why) if why.contains("drain it first")));
    world.settle();
    assert!(world.is_whole());
    assert!(world.placement().shards.iter().all(|s| s.replicas.iter().all(|r| r.node != "n1")));
    assert_eq!(world.note(Command::RemoveNode("n1".into())), Outcome::Done);
    assert!(world.placement().node("n1").is_none());
    let again = world.note(Command::RegisterNode(node(1, &[disk_id(1, 0)])));
    assert!(matches!(again, Outcome::Refused(_)), "{again:?}");
}

#[test]
fn a_drain_waits_while_another_copy_is_missing() {
    let mut world = World::new(4, 1, 1);
    world.up.remove("n2");
    world.note(Command::SetDraining("n1".into(), true));
    let plan = world.settle();
    let first = |shard: &api::placement::Shard, name: &str| {
        shard.replicas.iter().any(|one| one.node == name)
    };
    let both = |s: &api::placement::Shard| first(s, "n1") && first(s, "n2");
    let placement = world.placement();
    let kept = placement.shards.iter().filter(|shard| both(shard)).count();
    assert!(kept > 0, "the scenario has such a shard");
    let said = plan.waiting.iter().filter(|line| line.contains("comes first")).count();
    assert_eq!(said, kept, "{:?}", plan.waiting);
}

#[test]
fn a_retired_disk_is_emptied_and_says_so() {
    let mut world = World::new(3, 2, 6);
    world.note(Command::SetDiskState(disk_id(1, 0), DiskState::Draining));
    world.settle();
    assert!(world.is_whole());
    let placement = world.placement();
    let disks = &placement.node("n1").unwrap().disks;
    assert_eq!(disks[0].state, DiskState::Retired);
    let back = world.note(Command::SetDiskState(disk_id(1, 0), DiskState::Ok));
    assert!(matches!(back, Outcome::Refused(_)));
}

#[test]
fn a_replica_that_cannot_run_on_a_good_disk_is_made_anew() {
    let mut world = World::new(3, 1, 1);
    let shard = world.placement().shards[1].clone();
    let old = shard.replicas[0].replica_id;
    world.unwell.insert((shard.shard, old), Duration::from_secs(31));
    world.settle();
    let now = world.placement().shards[1].replicas.clone();
    assert!(now.iter().all(|one| one.replica_id != old), "{now:?}");
    assert_eq!(now[0].node, shard.replicas[0].node, "there is no other node");
}

#[test]
fn without_a_majority_nothing_is_changed() {
    let mut world = World::new(4, 1, 1);
    world.up.remove("n1");
    world.up.remove("n2");
    for name in ["n1", "n2"] {
        world.silent.insert(name.into(), REPLACE_AFTER * 2);
    }
    let before = world.placement();
    let plan = world.settle();
    let after = world.placement();
    for (shard, then) in after.shards.iter().zip(&before.shards) {
        let n_lost = shard.replicas.iter().filter(|r| ["n1", "n2"].contains(&&*r.node)).count();
        assert!(n_lost < 2 || shard == then, "{shard:?}");
    }
    assert!(plan.waiting.iter().any(|line| line.contains("no leader")));
}

#[test]
fn a_shard_that_was_forced_to_one_replica_gets_all_of_them_again() {
    let mut world = World::new(4, 1, 1);
    let shard = world.placement().shards[1].clone();
    let (kept, lost) = (shard.replicas[0].clone(), &shard.replicas[1..]);
    for one in lost {
        world.up.remove(&one.node);
        world.silent.insert(one.node.clone(), REPLACE_AFTER * 2);
    }
    world.note(Command::ForceShard(shard.shard, kept.replica_id));
    let plan = world.plan();
    assert!(plan.waiting.iter().any(|line| line.ends_with("recovers")), "{:?}", plan.waiting);
    let alone = BTreeSet::from([kept.replica_id]);
    let group = Group { configs: vec![alone], leader: kept.replica_id, ..Group::default() };
    world.groups.insert(shard.shard, group);
    world.recovered.insert(kept.replica_id);
    for one in lost {
        let n = one.node.trim_start_matches('n').parse().unwrap();
        world.happen(&Event::Back(n), &mut 0);
    }
    world.settle();
    assert!(world.is_whole());
    let now = world.placement().shards[1].clone();
    assert_eq!(now.forced, None);
    assert!(lost.iter().all(|old| now.replicas.iter().all(|one| one.replica_id != old.replica_id)));
}

#[test]
fn a_replica_that_starts_is_not_told_as_one_that_gets_bodies() {
    let world = World::new(3, 1, 1);
    let (placement, mut heard) = (world.placement(), world.reports());
    let all = heard.values_mut().flat_map(|heard| &mut heard.report.replicas);
    let mut followers = all.filter(|one| one.state == ReplicaState::Follower);
    let one = followers.next().unwrap();
    (one.state, one.n_missing_chunks) = (ReplicaState::Starting, 1);
    let scene = Scene::new(&placement, &heard, (REPLACE_AFTER, REPLACE_AFTER));
    let told = Progress::default().of(&scene);
    assert_eq!(told.iter().map(|one| one.phase).collect::<Vec<_>>(), [Phase::Placed]);
}

#[test]
fn a_place_is_good_only_by_its_node_own_word() {
    let mut world = World::new(3, 1, 1);
    world.up.remove("n3");
    let (placement, heard) = (world.placement(), world.reports());
    let scene = Scene::new(&placement, &heard, (REPLACE_AFTER, REPLACE_AFTER));
    assert_eq!(scene.place("n1", disk_id(1, 0)), Condition::Good);
    assert_eq!(scene.place("n3", disk_id(3, 0)), Condition::Away);
    assert_eq!(scene.place("n1", disk_id(3, 0)), Condition::Lost("disk removed"));
    for (secs, condition) in [(599, Condition::Good), (600, Condition::Lost("disk hangs"))] {
        let (mut heard, disk_id) = (heard.clone(), disk_id(1, 0));
        let hangs = DiskScrub { disk_id, unanswered_ms: secs * 1000, ..DiskScrub::default() };
        heard.get_mut("n1").unwrap().report.scrubs.push(hangs);
        let scene = Scene::new(&placement, &heard, (REPLACE_AFTER, REPLACE_AFTER));
        assert_eq!(scene.place("n1", disk_id), condition);
    }
}

#[test]
fn what_was_heard_in_an_earlier_time_of_leading_says_nothing() {
    let mut world = World::new(5, 1, 4);
    world.up.remove("n2");
    world.silent.insert("n2".into(), REPLACE_AFTER * 1000);
    world.watching = Duration::from_secs(1);
    assert_eq!(world.plan().actions, []);
    world.watching = REPLACE_AFTER;
    world.settle();
    assert!(world.is_whole());
}

#[test]
fn two_nodes_that_are_drained_at_once_do_not_wait_for_each_other() {
    let mut world = World::new(5, 1, 6);
    for name in ["n1", "n2"] {
        world.note(Command::SetDraining(name.into(), true));
    }
    let plan = world.settle();
    assert!(world.is_whole(), "{:?}", plan.waiting);
    for name in ["n1", "n2"] {
        assert_eq!(
            world.note(Command::RemoveNode(name.into())),
            Outcome::Done,
            "{:?}",
            plan.waiting
        );
    }
}

/// `change` asserts that what votes has everything.
#[test]
fn in_a_young_shard_too_a_learner_votes_only_when_it_has_everything() {
    for n_entries in [1, 9, 100, 1_500, 5_000] {
        let mut world = World::new(4, 1, 2);
        world.n_entries = n_entries;
        world.note(Command::SetDraining("n1".into(), true));
        // It is placed and added, and nothing has come to it yet.
        for _ in 0..4 {
            for action in world.plan().actions {
                world.act(&action, false);
            }
        }
        world.settle();
        assert!(world.is_whole());
        assert_eq!(world.note(Command::RemoveNode("n1".into())), Outcome::Done);
    }
}

#[test]
fn the_only_copy_of_a_shard_can_be_drained_away() {
    let mut world = World::of_copies(3, 1, 3, 1);
    world.note(Command::SetDraining("n1".into(), true));
    let plan = world.settle();
    assert!(world.is_whole(), "{:?}", plan.waiting);
    assert_eq!(world.note(Command::RemoveNode("n1".into())), Outcome::Done);
}

#[test]
fn a_copy_that_is_lost_while_another_one_moves_is_replaced_by_what_was_made() {
    let mut world = World::new(4, 1, 1);
    let shard = world.placement().shards[1].clone();
    let (moving, lost) = (&shard.replicas[1], &shard.replicas[2]);
    world.note(Command::SetDraining(moving.node.clone(), true));
    for _ in 0..2 {
        for action in world.plan().actions {
            world.act(&action, false);
        }
    }
    assert_eq!(world.groups[&shard.shard].learners.len(), 1, "it is being made");
    world.up.remove(&lost.node);
    world.silent.insert(lost.node.clone(), REPLACE_AFTER);
    world.settle();
    let now = world.placement().shards[1].clone();
    let ids: BTreeSet<u64> = now.replicas.iter().map(|one| one.replica_id).collect();
    assert!(ids.contains(&moving.replica_id), "a good copy went: {now:?}");
    assert!(!ids.contains(&lost.replica_id), "{now:?}");
    let whole = |id: &u64| world.runs(&world.placement(), *id) && world.whole.contains(id);
    assert_eq!(ids.iter().filter(|id| whole(id)).count(), 3, "{now:?}");
}

/// What happens to a cluster.
#[derive(Clone, Debug)]
enum Event {
    Wipe(u8),
    Away(u8),
    Back(u8),
    Poison(u8),
    Drain(u8, bool),
    /// So many steps of plans, each done whole, in half or not at all.
    Steps(Vec<u8>),
}

fn event() -> impl Strategy<Value = Event> {
    let n = || 1u8..6;
    prop_oneof![
        1 => n().prop_map(Event::Wipe),
        1 => n().prop_map(Event::Away),
        2 => n().prop_map(Event::Back),
        1 => n().prop_map(Event::Poison),
        1 => (n(), any::<bool>()).prop_map(|(n, on)| Event::Drain(n, on)),
        4 => prop::collection::vec(0u8..4, 1..6).prop_map(Event::Steps),
    ]
}

impl World {
    /// Whether each group would still have a majority of whole voters without this node.
    fn can_lose(&self, n: u8) -> bool {
        let mut without = self.clone();
        without.up.remove(&format!("n{n}"));
        without.elect();
        without.groups.values().all(|group| group.leader != 0)
    }

    fn happen(&mut self, event: &Event, next_disk: &mut u8) {
        let has = |world: &Self, n: u8| world.up.contains_key(&format!("n{n}"));
        match event {
            Event::Wipe(n) if self.can_lose(*n) && *next_disk < 15 => {
                *next_disk += 1;
                self.wipe(*n, &[disk_id(*n, *next_disk)]);
            }
            Event::Poison(n) if has(self, *n) && self.can_lose(*n) && *next_disk < 15 => {
                *next_disk += 1;
                let old = self.up[&format!("n{n}")][0];
                self.poisoned.insert(old);
                self.note(Command::SetDiskState(old, DiskState::Poisoned));
                let mut disks = self.up[&format!("n{n}")].clone();
                disks.push(disk_id(*n, *next_disk));
                self.wipe(*n, &disks);
            }
            Event::Away(n) if self.can_lose(*n) => {
                self.up.remove(&format!("n{n}"));
                self.silent.insert(format!("n{n}"), REPLACE_AFTER);
            }
            Event::Back(n) if !has(self, *n) => {
                let known = self.placement().node(&format!("n{n}")).unwrap().disks.clone();
                let ids = known.iter().map(|disk| disk.disk_id).collect();
                self.up.insert(format!("n{n}"), ids);
            }
            Event::Drain(n, on) => drop(self.note(Command::SetDraining(format!("n{n}"), *on))),
            Event::Steps(fates) => {
                for fate in fates {
                    let plan = self.plan();
                    for action in plan.actions.iter().take(usize::from(*fate)) {
                        self.act(action, *fate == 1);
                        self.check();
                    }
                    if *fate == 3 {
                        self.fill();
                    }
                }
            }
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Whatever happened, as long as a majority lived, everything is whole again in the end.
    #[test]
    fn every_history_ends_whole(events in prop::collection::vec(event(), 1..24)) {
        let mut world = World::new(5, 1, 3);
        let mut next_disk = 0;
        for event in &events {
            world.happen(event, &mut next_disk);
        }
        for n in 1..6 {
            world.happen(&Event::Back(n), &mut next_disk);
            world.happen(&Event::Drain(n, false), &mut next_disk);
        }
        let plan = world.settle();
        prop_assert!(world.is_whole(), "{:?}\n{:?}", plan.waiting, world.placement().shards);
        prop_assert!(plan.waiting.is_empty(), "{:?}", plan.waiting);
    }
}
