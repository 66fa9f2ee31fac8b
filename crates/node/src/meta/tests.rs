//! Random histories of commands: the invariants hold after each, and replicas agree.

use std::collections::{BTreeMap, BTreeSet};

use api::meta::Report;
use api::placement::{
    ClusterId, Disk, DiskId, DiskState, META_SHARD, Node, NodeId, Placement, ReplicaRole,
};
use mailbox::{LogTime, RowDigest, Rows, ShardId};
use proptest::prelude::*;

use super::command::{Command, Entry, Founding, Outcome, Seat};
use super::{apply, mark as mark_of, placement, plan};

/// Rows as a replica keeps them.
#[derive(Clone, Default)]
struct Store {
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    digest: RowDigest,
}

impl Store {
    fn apply(&mut self, command: Command) -> Outcome {
        let mut rows = Rows::new(&self.rows, self.digest);
        let entry = Entry { time: LogTime(1), command };
        let coded = mailbox::codec::encode(&entry);
        let outcome = apply(&mut rows, &mailbox::codec::decode(&coded).unwrap());
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

    fn placement(&self) -> Placement {
        placement(&self.rows).unwrap()
    }
}

fn disk(node: u8, disk: u8) -> Disk {
    Disk {
        disk_id: DiskId([16 * node + disk; 16]),
        start_count: 1,
        size_bytes: 1 << 40,
        free_bytes: 1 << 39,
        state: DiskState::Ok,
        path: format!("/srv/{disk}"),
        start_id: 1,
        previous_start_id: 0,
        n_synced: None,
    }
}

fn node(n: u8, n_disks: u8) -> Node {
    Node {
        name: format!("n{n}"),
        node_id: NodeId([n; 16]),
        address: format!("127.0.0.{n}:7400"),
        zone: format!("z{}", n % 3),
        disks: (0..n_disks).map(|d| disk(n, d)).collect(),
        draining: false,
        run_id: 0,
    }
}

fn seat(n: u8, d: u8) -> Seat {
    Seat { node: format!("n{n}"), disk_id: disk(n, d).disk_id }
}

fn cluster_of(n_nodes: u8, n_disks: u8, n_shards: u32) -> Store {
    let nodes = (1..=n_nodes).map(|n| node(n, n_disks)).collect();
    let founding = plan::founding(ClusterId([9; 16]), nodes, n_shards, 3);
    let mut store = Store::default();
    assert_eq!(store.apply(Command::Initialize(Box::new(founding))), Outcome::Done);
    store
}

/// What must be true of every placement, and of every later one after an earlier one.
fn check(before: &Placement, now: &Placement, outcome: &Outcome, minted: &mut BTreeSet<u64>) {
    let changed = Placement { version: before.version, ..now.clone() } != *before;
    assert!(now.version >= before.version, "the version went back");
    assert!(!changed || now.version > before.version, "changed without a new version");
    if matches!(outcome, Outcome::Refused(_)) {
        assert_eq!(now, before, "a refusal changed something");
    }
    for shard in &now.shards {
        let voters = || shard.replicas.iter().filter(|r| r.role == ReplicaRole::Voter);
        let nodes: BTreeSet<_> = voters().map(|replica| &replica.node).collect();
        assert_eq!(nodes.len(), voters().count(), "two voters of {} on one node", shard.shard);
        assert!(!nodes.is_empty(), "shard {} has no voter", shard.shard);
        for replica in &shard.replicas {
            let node = now.node(&replica.node).expect("replicas lie on known nodes");
            assert!(node.disks.iter().any(|disk| disk.disk_id == replica.disk_id));
            let old = before.shard(shard.shard);
            let known = old.and_then(|old| {
                old.replicas.iter().find(|old| old.replica_id == replica.replica_id)
            });
            match known {
                Some(old) => assert_eq!(old.disk_id, replica.disk_id, "a replica moved"),
                None => assert!(minted.insert(replica.replica_id), "an id was given out twice"),
            }
        }
    }
    let poisoned = |placement: &Placement| -> BTreeSet<_> {
        let disks = placement.nodes.iter().flat_map(|node| node.disks.clone());
        disks.filter(|d| d.state == DiskState::Poisoned).map(|d| d.disk_id.0).collect()
    };
    let disks = now.nodes.iter().flat_map(|node| &node.disks);
    let known: BTreeSet<_> = disks.map(|disk| disk.disk_id.0).collect();
    let still = poisoned(before).intersection(&known).copied().collect::<BTreeSet<_>>();
    assert!(still.is_subset(&poisoned(now)), "a poisoned disk came back");
    assert_eq!(now.directory_slots.len(), 1024);
    assert!(now.directory_slots.iter().all(|shard| now.shard(*shard).is_some()));
    assert!(now.nodes.is_sorted_by_key(|node| node.name.clone()));
    assert!(now.shards.is_sorted_by_key(|shard| shard.shard));
}

fn some_seat() -> impl Strategy<Value = Seat> {
    (1u8..6, 0u8..2).prop_map(|(n, d)| seat(n, d))
}

fn some_state() -> impl Strategy<Value = DiskState> {
    prop_oneof![
        2 => Just(DiskState::Ok),
        1 => Just(DiskState::Poisoned),
        1 => Just(DiskState::Draining),
        1 => Just(DiskState::Retired)
    ]
}

fn some_node() -> impl Strategy<Value = Node> {
    (1u8..7, 1u8..4, 0u64..3, some_state(), any::<bool>()).prop_map(
        |(n, disks, starts, state, foreign)| {
            let mut node = node(n, disks);
            node.disks[0].start_count = starts;
            node.disks[0].state = state;
            if foreign {
                node.name = "n1".into();
            }
            node
        },
    )
}

fn some_command() -> impl Strategy<Value = Command> {
    let shard = || (0u32..5).prop_map(ShardId);
    let replica = || 1u64..24;
    prop_oneof![
        some_node().prop_map(Command::RegisterNode),
        (some_seat(), some_state()).prop_map(|(s, to)| Command::SetDiskState(s.disk_id, to)),
        (1u8..6, any::<bool>()).prop_map(|(n, on)| Command::SetDraining(format!("n{n}"), on)),
        prop::collection::vec(some_seat(), 0..4).prop_map(Command::CreateShard),
        (shard(), some_seat(), prop::option::of(replica()))
            .prop_map(|(s, seat, old)| Command::PlaceReplica(s, seat, old)),
        (shard(), replica(), prop::option::of(replica()))
            .prop_map(|(s, new, old)| Command::PromoteReplica(s, new, old)),
        (shard(), replica()).prop_map(|(s, id)| Command::RemoveReplica(s, id)),
        (shard(), 1u8..6).prop_map(|(s, n)| Command::NoteLeaders(vec![(s, format!("n{n}"))])),
        ("[a-c]", prop::option::of("[a-z]{0,3}"))
            .prop_map(|(name, value)| Command::SetSetting(name, value)),
        (some_seat(), 0u64..4).prop_map(|(s, n)| Command::NoteSpace(s.disk_id, n << 30)),
        (1u8..7).prop_map(|n| Command::RemoveNode(format!("n{n}"))),
        some_seat().prop_map(|seat| Command::ForgetDisk(seat.disk_id)),
        (shard(), replica()).prop_map(|(s, id)| Command::ForceShard(s, id)),
        (shard(), replica()).prop_map(|(s, id)| Command::RecoveredShard(s, id)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn histories_keep_the_invariants_and_replicas_agree(
        commands in prop::collection::vec(some_command(), 1..60),
    ) {
        let mut one = cluster_of(4, 2, 2);
        let mut other = one.clone();
        let mut before = one.placement();
        let ids = before.shards.iter().flat_map(|shard| shard.replicas.iter());
        let mut minted: BTreeSet<u64> = ids.map(|replica| replica.replica_id).collect();
        for command in commands {
            let outcome = one.apply(command.clone());
            prop_assert_eq!(&outcome, &other.apply(command));
            let now = one.placement();
            check(&before, &now, &outcome, &mut minted);
            before = now;
        }
        prop_assert!(one.rows == other.rows && one.digest == other.digest);
    }

    #[test]
    fn plans_spread_replicas_and_preferred_leaders(
        n_nodes in 1u8..8, n_disks in 1u8..4, n_shards in 1u32..20,
    ) {
        let placement = cluster_of(n_nodes, n_disks, n_shards).placement();
        let n = plan::n_replicas(3, usize::from(n_nodes));
        let count = |pick: &dyn Fn(&api::placement::Shard, &str) -> bool| {
            let led = |name: &str| {
                placement.shards.iter().skip(1).filter(|shard| pick(shard, name)).count()
            };
            let counts: Vec<_> = placement.nodes.iter().map(|node| led(&node.name)).collect();
            (*counts.iter().min().unwrap(), *counts.iter().max().unwrap())
        };
        let (least, most) = count(&|shard, name| shard.replicas[0].node == name);
        prop_assert!(most - least <= 2, "preferred leaders: {least} to {most}");
        if n_nodes % 3 == 0 || n_nodes < 3 {
            let (least, most) = count(&|shard, name| shard.replicas.iter().any(|r| r.node == name));
            prop_assert!(n_nodes == 2 || most - least <= 1, "replicas: {least} to {most}");
        }
        prop_assert!(placement.shards.iter().all(|shard| shard.replicas.len() == n));
    }
}

#[test]
fn a_cluster_is_formed_once() {
    let mut store = Store::default();
    assert_eq!(store.apply(Command::RegisterNode(node(1, 1))), Outcome::NoCluster);
    assert!(placement(&store.rows).is_none());
    let founding = |id| plan::founding(ClusterId([id; 16]), vec![node(1, 1)], 2, 3);
    let initialize = |id| Command::Initialize(Box::new(founding(id)));
    assert_eq!(store.apply(initialize(1)), Outcome::Done);
    let formed = store.placement();
    assert_eq!(store.apply(initialize(1)), Outcome::Done);
    assert!(matches!(store.apply(initialize(2)), Outcome::Refused(_)));
    assert_eq!(store.placement(), formed);
    assert_eq!(formed.shards[0].replicas[0].replica_id, 1);
    assert_eq!(formed.shards.len(), 3);
}

#[test]
fn a_founding_against_the_rules_leaves_nothing() {
    let good = plan::founding(ClusterId([1; 16]), (1..4).map(|n| node(n, 1)).collect(), 1, 3);
    let mut bad = vec![Founding { shards: vec![], ..good.clone() }];
    bad.push(Founding { meta: vec![], ..good.clone() });
    bad.push(Founding { shards: vec![vec![seat(1, 0), seat(1, 0)]], ..good.clone() });
    bad.push(Founding { shards: vec![vec![seat(5, 0)]], ..good.clone() });
    bad.push(Founding { nodes: vec![node(1, 1), node(1, 1)], ..good });
    for founding in bad {
        let mut store = Store::default();
        let outcome = store.apply(Command::Initialize(Box::new(founding)));
        assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
        assert!(store.rows.is_empty());
    }
}

#[test]
fn a_rolled_back_disk_and_a_disk_of_another_node_are_refused() {
    let mut store = cluster_of(3, 1, 1);
    let mut again = node(1, 1);
    again.disks[0].start_count = 3;
    assert_eq!(store.apply(Command::RegisterNode(again.clone())), Outcome::Done);
    again.disks[0].start_count = 2;
    let refused = |outcome: Outcome, word: &str| {
        assert!(matches!(&outcome, Outcome::Refused(why) if why.contains(word)), "{outcome:?}");
    };
    refused(store.apply(Command::RegisterNode(again)), "rolled back");
    let mut copy = node(1, 1);
    copy.disks[0].start_count = 9;
    (copy.disks[0].start_id, copy.disks[0].previous_start_id) = (2, 1);
    assert_eq!(store.apply(Command::RegisterNode(copy.clone())), Outcome::Done);
    assert_eq!(store.apply(Command::RegisterNode(copy.clone())), Outcome::Done, "said twice");
    // As it was before that start: it draws another number, and knows only the one before.
    copy.disks[0].start_id = 3;
    refused(store.apply(Command::RegisterNode(copy)), "is an older copy of itself");
    let thief = Node { disks: vec![disk(1, 0)], ..node(4, 1) };
    refused(store.apply(Command::RegisterNode(thief)), "belongs to node n1");
}

#[test]
fn a_disk_with_fewer_batches_than_were_marked_is_refused() {
    let mut store = cluster_of(3, 2, 1);
    let said = |n_synced: Option<u64>| {
        let mut said = node(1, 2);
        said.disks[1].n_synced = n_synced;
        Command::RegisterNode(said)
    };
    let (id, other) = (disk(1, 1).disk_id, DiskId([0xee; 16]));
    let before = store.placement();
    let mark = |n_synced| Command::NoteMarks(vec![(id, n_synced), (other, 7)]);
    assert_eq!(store.apply(said(Some(3))), Outcome::Done, "nothing is known yet");
    assert_eq!(store.apply(mark(500)), Outcome::Done);
    assert_eq!(store.apply(mark(400)), Outcome::Done);
    assert_eq!(mark_of(&store.rows, id), Some(500), "a mark never goes back");
    assert_eq!(mark_of(&store.rows, other), None, "nobody has that disk");
    assert_eq!(store.apply(said(Some(500))), Outcome::Done);
    assert_eq!(store.apply(said(None)), Outcome::Done, "who does not tell is not judged");
    assert_eq!(store.placement(), before, "nobody has to hear of marks");
    let rows = store.rows.clone();
    let Outcome::Refused(why) = store.apply(said(Some(499))) else { panic!("not refused") };
    assert!(why.contains("was rolled back: 500 batches written, now 499: empty /srv/1"), "{why}");
    assert_eq!(store.rows, rows);
    let mut without = node(1, 1);
    without.disks[0].n_synced = Some(1);
    assert_eq!(store.apply(Command::RegisterNode(without)), Outcome::Done);
    for shard in store.placement().shards {
        let here = shard.replicas.iter().find(|replica| replica.disk_id == id);
        assert!(here.is_none(), "the disk has to be empty to be forgotten");
    }
    assert_eq!(store.apply(Command::ForgetDisk(id)), Outcome::Done);
    assert_eq!(mark_of(&store.rows, id), None);
}

/// As where a file system is mounted read-only at one start, and at the next one is not.
#[test]
fn a_disk_that_could_not_be_opened_once_is_judged_by_what_was_known_before() {
    let mut store = cluster_of(3, 2, 1);
    let id = disk(1, 1).disk_id;
    let said = |start_count: u64, (start_id, previous_start_id): (u64, u64), state: DiskState| {
        let mut said = node(1, 2);
        let disk = &mut said.disks[1];
        (disk.start_count, disk.state) = (start_count, state);
        (disk.start_id, disk.previous_start_id) = (start_id, previous_start_id);
        disk.n_synced = Some(500);
        Command::RegisterNode(said)
    };
    let known = |store: &Store| {
        let node = store.placement().node("n1").unwrap().clone();
        node.disks.into_iter().find(|disk| disk.disk_id == id).unwrap()
    };
    let (ok, failed) = (DiskState::Ok, DiskState::Poisoned);
    assert_eq!(store.apply(said(4, (7, 1), ok)), Outcome::Done);
    assert_eq!(store.apply(Command::NoteMarks(vec![(id, 500)])), Outcome::Done);
    // What was drawn for that start is not on the disk.
    assert_eq!(store.apply(said(Disk::NOT_OPENED, (8, 7), failed)), Outcome::Done);
    let now = known(&store);
    assert_eq!((now.start_count, now.start_id, now.state), (4, 7, failed));
    let refused = |outcome: Outcome, word: &str| {
        assert!(matches!(&outcome, Outcome::Refused(why) if why.contains(word)), "{outcome:?}");
    };
    refused(store.apply(said(3, (9, 7), ok)), "was rolled back: 4 starts, now 3: empty /srv/1");
    refused(store.apply(said(5, (9, 6), ok)), "in /srv/1 is an older copy of itself");
    assert_eq!(store.apply(said(5, (9, 7), ok)), Outcome::Done);
    let now = known(&store);
    assert_eq!((now.start_count, now.start_id), (5, 9));
    assert_eq!(now.state, failed, "its replicas are made anew all the same");
    assert!(matches!(store.apply(Command::CreateShard(vec![seat(1, 1)])), Outcome::Refused(_)));
}

#[test]
fn a_disk_that_could_not_be_opened_when_it_was_first_told_keeps_no_node_from_starting() {
    let mut store = cluster_of(3, 1, 1);
    let said = |start_count: u64, state: DiskState| {
        let mut said = node(7, 2);
        let disk = &mut said.disks[1];
        (disk.start_count, disk.start_id, disk.state) = (start_count, start_count, state);
        Command::RegisterNode(said)
    };
    assert_eq!(store.apply(said(Disk::NOT_OPENED, DiskState::Poisoned)), Outcome::Done);
    assert_eq!(store.apply(said(2, DiskState::Ok)), Outcome::Done);
    assert!(matches!(store.apply(said(1, DiskState::Ok)), Outcome::Refused(_)));
}

#[test]
fn what_a_lost_majority_gave_out_is_not_given_out_again() {
    let mut lost = cluster_of(4, 1, 2);
    // Of what follows the replica that is kept hears nothing.
    let mut kept = lost.clone();
    let create = || Command::CreateShard((1..4).map(|n| seat(n, 0)).collect());
    let Outcome::Shard(shard) = lost.apply(create()) else { panic!("not created") };
    let ids = |placement: &Placement, shard: ShardId| -> Vec<u64> {
        let replicas = &placement.shard(shard).unwrap().replicas;
        replicas.iter().map(|one| one.replica_id).collect()
    };
    let given_out = ids(&lost.placement(), shard);
    let before = kept.placement();
    let alone = before.shards[0].replicas[0].replica_id;
    assert_eq!(kept.apply(Command::ForceShard(META_SHARD, alone)), Outcome::Done);
    let now = kept.placement();
    assert!(now.version >= before.version + (1 << 32));
    assert!(given_out.iter().all(|id| now.may_be_lost(*id)));
    for shard in &before.shards {
        assert!(ids(&before, shard.shard).iter().all(|id| !now.may_be_lost(*id)));
    }
    let Outcome::Shard(new) = kept.apply(create()) else { panic!("not created") };
    assert_ne!(new, shard);
    let now = kept.placement();
    assert!(ids(&now, new).iter().all(|id| !given_out.contains(id) && !now.may_be_lost(*id)));
    // Started twice, and the cluster remembers the start before.
    let mut again = node(4, 1);
    let disk = &mut again.disks[0];
    (disk.start_count, disk.start_id, disk.previous_start_id) = (3, 3, 2);
    assert_eq!(kept.apply(Command::RegisterNode(again)), Outcome::Done);
}

#[test]
fn a_replacement_takes_the_rank_of_the_replica_it_replaces() {
    let mut store = cluster_of(4, 1, 1);
    let old = store.placement().shards[1].replicas[0].clone();
    let free = (1..5)
        .find(|n| !store.placement().shards[1].replicas.iter().any(|r| r.node == format!("n{n}")));
    let place = Command::PlaceReplica(ShardId(1), seat(free.unwrap(), 0), Some(old.replica_id));
    let Outcome::Replica(new) = store.apply(place.clone()) else { panic!("not placed") };
    assert!(matches!(store.apply(place), Outcome::Refused(_)));
    let promote = Command::PromoteReplica(ShardId(1), new, Some(old.replica_id));
    assert_eq!(store.apply(promote.clone()), Outcome::Done);
    let replicas = store.placement().shards[1].replicas.clone();
    assert_eq!((replicas.len(), replicas[0].replica_id), (3, new));
    assert_eq!(store.apply(promote), Outcome::Done, "done twice is done once");
    assert_eq!(store.placement().shards[1].replicas, replicas);
}

#[test]
fn every_shard_begins_in_as_many_zones_as_there_are() {
    let zones = ["a", "a", "a", "b", "c"];
    let in_zone = |(n, zone): (u8, &&str)| Node { zone: (*zone).into(), ..node(n, 1) };
    let nodes: Vec<Node> = (1..).zip(&zones).map(in_zone).collect();
    let founding = plan::founding(ClusterId([7; 16]), nodes.clone(), 4, 3);
    assert_eq!(founding.meta[0].node, "n1", "who is asked begins");
    for seats in founding.shards.iter().chain([&founding.meta]) {
        let zone =
            |seat: &Seat| nodes.iter().find(|node| node.name == seat.node).unwrap().zone.clone();
        let zones: BTreeSet<String> = seats.iter().map(zone).collect();
        assert_eq!(zones.len(), 3, "{seats:?}");
    }
}

#[test]
fn a_further_shard_begins_on_nodes_that_are_there_and_have_room() {
    let placement = cluster_of(5, 1, 1).placement();
    let told = |n: u8, free_bytes: u64| Report {
        node: format!("n{n}"),
        disks: vec![Disk { free_bytes, ..disk(n, 0) }],
        ..Report::default()
    };
    let mut all: Vec<Report> = (1..=5).map(|n| told(n, 1 << 39)).collect();
    let names = |seats: Vec<Seat>| seats.into_iter().map(|seat| seat.node).collect::<BTreeSet<_>>();
    // What carries least comes first, while it is there.
    assert!(names(plan::further_shard(&placement, &all, 3).unwrap()).contains("n5"));
    all.pop();
    all[3].disks[0].free_bytes = 0;
    let seats = names(plan::further_shard(&placement, &all, 3).unwrap());
    assert_eq!(seats, BTreeSet::from(["n1", "n2", "n3"].map(String::from)));
    all.pop();
    all.pop();
    let why = plan::further_shard(&placement, &all, 3).unwrap_err();
    assert!(why.starts_with("3 replicas need as many nodes, and 2 take some"), "{why}");
}
