//! On which disk a new replica goes.

use api::placement::Replica;

use super::super::Memory;
use super::*;

#[test]
fn a_disk_on_which_replicas_cannot_run_is_no_place_for_another() {
    let mut world = World::new(5, 1, 1);
    let used: BTreeSet<String> =
        world.placement().shards[1].replicas.iter().map(|one| one.node.clone()).collect();
    let free: Vec<u8> = (1..=5).filter(|n| !used.contains(&format!("n{n}"))).collect();
    world.shunned.insert(disk_id(free[0], 0));
    let leaves = used.first().unwrap().clone();
    world.note(Command::SetDraining(leaves, true));
    world.settle();
    assert!(world.is_whole());
    let placement = world.placement();
    let mut all = placement.shards.iter().flat_map(|shard| &shard.replicas);
    assert!(all.all(|one| one.node != format!("n{}", free[0])), "{placement:?}");
}

/// The nodes of five that have no replica of the first shard.
fn without_replica(world: &World) -> Vec<u8> {
    let placement = world.placement();
    let has = |n: &u8| placement.shards[1].replicas.iter().any(|one| one.node == format!("n{n}"));
    (1..=5).filter(|n| !has(n)).collect()
}

#[test]
fn a_disk_that_is_nearly_full_is_no_place_while_there_is_another_one() {
    for nth in 0..2 {
        let mut world = World::new(5, 1, 1);
        let tight = disk_id(without_replica(&world)[nth], 0);
        world.free_bytes.insert(tight, 1 << 34);
        let leaves = world.placement().shards[1].replicas[0].node.clone();
        world.note(Command::SetDraining(leaves, true));
        world.settle();
        assert!(world.is_whole());
        let replicas = &world.placement().shards[1].replicas;
        assert!(replicas.iter().all(|one| one.disk_id != tight), "{replicas:?}");
    }
}

#[test]
fn a_learner_that_does_not_fit_is_made_anew_where_it_does() {
    let mut world = World::new(5, 1, 1);
    world.shard_bytes = 1 << 38;
    let leaves = world.placement().shards[1].replicas[0].node.clone();
    world.note(Command::SetDraining(leaves.clone(), true));
    for action in world.plan().actions {
        world.act(&action, false);
    }
    let replicas = world.placement().shards[1].replicas.clone();
    let learner = replicas.iter().find(|one| one.role == ReplicaRole::Learner).unwrap();
    // Others took what was free there.
    world.free_bytes.insert(learner.disk_id, 5 << 30);
    let plan = world.settle();
    assert!(world.is_whole(), "{:?}", plan.waiting);
    let replicas = &world.placement().shards[1].replicas;
    let is_bad = |one: &Replica| {
        one.disk_id == learner.disk_id || one.node == leaves || one.replica_id == learner.replica_id
    };
    assert!(!replicas.iter().any(is_bad), "{replicas:?}");
}

#[test]
fn a_learner_that_fits_nowhere_stays_where_it_is_and_says_so() {
    let mut world = World::new(5, 1, 1);
    world.shard_bytes = 1 << 38;
    world.free_bytes.extend((1..=5).map(|n| (disk_id(n, 0), 5 << 30)));
    let leaves = world.placement().shards[1].replicas[0].node.clone();
    world.note(Command::SetDraining(leaves, true));
    let plan = world.settle();
    assert!(!world.is_whole());
    let is_said = |line: &String| line.contains("does not fit on");
    assert!(plan.waiting.iter().any(is_said), "{:?}", plan.waiting);
}

/// A world in which a learner is being filled on a disk that has too little room, with that learner.
fn cramped() -> (World, Replica) {
    let mut world = World::new(5, 1, 1);
    world.shard_bytes = 1 << 38;
    world.free_bytes.extend((1..=5).map(|n| (disk_id(n, 0), 5 << 30)));
    let leaves = world.placement().shards[1].replicas[0].node.clone();
    world.note(Command::SetDraining(leaves, true));
    world.settle();
    let replicas = world.placement().shards[1].replicas.clone();
    let learner = replicas.into_iter().find(|one| one.role == ReplicaRole::Learner).unwrap();
    (world, learner)
}

/// What is planned when the learner says of itself what `change` makes of it.
fn lacks_room(world: &World, learner: &Replica, change: fn(&mut ReplicaReport)) -> Option<u64> {
    let (placement, mut heard) = (world.placement(), world.reports());
    let all = heard.values_mut().flat_map(|heard| &mut heard.report.replicas);
    all.filter(|one| one.replica_id == learner.replica_id).for_each(change);
    let scene = Scene::new(&placement, &heard, (REPLACE_AFTER, REPLACE_AFTER));
    scene.lacks_room(&placement.shards[1], learner)
}

#[test]
fn a_learner_that_starts_is_not_given_up_for_what_is_not_known_of_it() {
    let (world, learner) = cramped();
    assert!(lacks_room(&world, &learner, |_| {}).is_some());
    let starts = |one: &mut ReplicaReport| {
        (one.state, one.missing_bytes, one.term) = (ReplicaState::Starting, 0, 0);
    };
    assert_eq!(lacks_room(&world, &learner, starts), None);
    let waits_for_rows = |one: &mut ReplicaReport| {
        (one.state, one.term, one.applied) = (ReplicaState::Starting, 3, 0);
    };
    assert!(lacks_room(&world, &learner, waits_for_rows).is_some());
}

#[test]
fn what_a_learner_received_before_it_was_started_anew_counts() {
    let (world, learner) = cramped();
    let (placement, mut memory) = (world.placement(), Memory::new());
    let mut received = |missing_bytes, received_bytes| {
        let mut heard = world.reports();
        let of = |heard: &mut BTreeMap<String, Heard>, set: Option<(u64, u64)>| {
            let mut all = heard.values_mut().flat_map(|heard| &mut heard.report.replicas);
            let one = all.find(|one| one.replica_id == learner.replica_id).unwrap();
            if let Some(set) = set {
                (one.missing_bytes, one.received_bytes) = set;
            }
            one.received_bytes
        };
        of(&mut heard, Some((missing_bytes, received_bytes)));
        memory.note_sizes(&placement, &mut heard);
        of(&mut heard, None)
    };
    assert_eq!(received(400, 10), 10);
    assert_eq!(received(10, 400), 400);
    assert_eq!(received(10, 0), 400);
    assert_eq!(received(4, 6), 406);
}

#[test]
fn of_learners_that_do_not_fit_on_one_disk_one_at_a_time_is_given_up() {
    let mut world = World::of_copies(3, 1, 6, 1);
    world.shard_bytes = 1 << 38;
    world.free_bytes.insert(disk_id(3, 0), 1 << 34);
    world.note(Command::SetDraining("n1".into(), true));
    // They are placed, and follow.
    for _ in 0..2 {
        for action in world.plan().actions {
            world.act(&action, false);
        }
    }
    let placement = world.placement();
    let all = placement.shards.iter().flat_map(|shard| &shard.replicas);
    let learners = all.filter(|one| one.role == ReplicaRole::Learner && one.node == "n2");
    assert!(learners.count() > 1, "{placement:?}");
    world.free_bytes = BTreeMap::from([(disk_id(2, 0), 5 << 30)]);
    let is_given_up = |action: &&Action| {
        let Action::Ask(_, change, _) = action else { return false };
        matches!(change.what, MemberVerb::RemoveLearner(_))
    };
    let actions = world.plan().actions;
    assert_eq!(actions.iter().filter(is_given_up).count(), 1, "{actions:?}");
    for action in &actions {
        world.act(action, false);
    }
    let actions = world.plan().actions;
    assert_eq!(actions.iter().filter(is_given_up).count(), 0, "{actions:?}");
}
