//! Operators and nodes ask the meta group.

use std::collections::BTreeMap;
use std::time::Duration;

use api::admin::{AdminClient, ChunkCopy, ClusterInit};
use api::client::ClientConfig;
use api::meta::{
    DiskScrub, MemberChange, MemberVerb, MetaClient, MetaError, ReplicaReport, ReplicaState, Report,
};
use api::placement::{Disk, DiskId, DiskState, Replica, ReplicaRole};
use api::tls::Role;
use mailbox::{Digest, LogTime, ShardId};

use crate::cluster::{Cluster, PATIENCE, SHARD};
use crate::node::Fault;

fn config(cluster: &Cluster, name: &str, role: Role) -> ClientConfig {
    let identity = cluster.authority.identity(name, role);
    ClientConfig { seeds: cluster.seeds(), identity, name: name.into(), bind: None }
}

#[tokio::test]
async fn a_roll_call_tells_of_each_node_whether_it_answers() {
    let cluster = Cluster::start(3);
    cluster.kill("n2");
    let mut config = config(&cluster, "op", Role::Admin);
    config.seeds.push("127.0.0.1:1".into());
    let client = AdminClient::new(config, PATIENCE).unwrap();
    let called = client.roll_call(PATIENCE).await;
    let absent: Vec<bool> = called.iter().map(|one| one.absence.is_some()).collect();
    assert_eq!(absent, [false, true, false, true], "{called:?}");
    assert!(called.iter().all(|one| one.node.contains("127.0.0.1:")), "{called:?}");
}

#[tokio::test]
async fn an_operator_reaches_the_node_that_can_do_it() {
    let cluster = Cluster::start(3);
    let client = AdminClient::new(config(&cluster, "op", Role::Admin), PATIENCE).unwrap();
    let status = client.status(false).await.unwrap();
    let placement = status.placement.expect("a cluster");
    assert_eq!((placement.nodes.len(), placement.directory_slots.len()), (3, 1024));
    assert_eq!(client.status(true).await.unwrap().placement, None);
    client.transfer_leader(SHARD, "n3").await.unwrap();
    assert_eq!(client.add_shard(4).await, Ok(ShardId(4)));
}

#[tokio::test]
async fn who_is_answered_and_finds_no_leader_hears_that() {
    let cluster = Cluster::start(3);
    let client = MetaClient::new(config(&cluster, "n2", Role::Node)).unwrap();
    cluster.world.lead("");
    let told = client.report(&report(), Duration::from_secs(2)).await;
    let Err(MetaError::Unavailable(why)) = told else { panic!("{told:?}") };
    assert!(why.starts_with("nobody leads"), "{why}");
}

#[tokio::test]
async fn one_node_is_asked_for_its_copies_and_no_other() {
    let cluster = Cluster::start(3);
    let client = AdminClient::new(config(&cluster, "op", Role::Admin), PATIENCE).unwrap();
    for (name, number) in [("n3", 3), ("n1", 1)] {
        let digests = [Digest([number; 32]), Digest([9; 32])];
        let copies = client.copies(name, SHARD, &digests).await.unwrap();
        assert_eq!(copies[0].disk_id, DiskId([number; 16]));
        let good = ChunkCopy { place: (7, 8), is_good: true, verified_at: Some(LogTime(9)) };
        assert_eq!(copies[0].copies, vec![Some(good), None]);
    }
    let none = client.copies("n9", SHARD, &[]).await;
    assert!(matches!(none, Err(MetaError::Unavailable(_))), "{none:?}");
}

#[tokio::test]
async fn the_node_that_has_a_disk_is_asked_to_verify_it() {
    let cluster = Cluster::start(3);
    let client = AdminClient::new(config(&cluster, "op", Role::Admin), PATIENCE).unwrap();
    assert_eq!(client.scrub_disk("n3", DiskId([3; 16])).await, Ok(3));
    let refused = client.scrub_disk("n1", DiskId([3; 16])).await;
    assert_eq!(refused, Err(MetaError::Refused("no such disk here".into())));
}

#[tokio::test]
async fn a_cluster_is_not_formed_twice_by_a_lost_answer() {
    let cluster = Cluster::start(3);
    let patience = Duration::from_millis(300);
    let client = AdminClient::new(config(&cluster, "op", Role::Admin), patience).unwrap();
    let disks = vec![("n1".into(), None), ("n2".into(), Some(DiskId([1; 16])))];
    let init = ClusterInit { disks, n_shards: 4, n_replicas: 3, settings: BTreeMap::new() };
    cluster.world.fault(Fault::Silent);
    let told = client.cluster_init(&init).await.unwrap_err();
    assert!(matches!(&told, MetaError::Unavailable(why) if why.contains("not known")), "{told}");
    assert_eq!(cluster.world.n_done(), 1);
    let none = ClusterInit { n_shards: 0, ..init.clone() };
    let refused = client.cluster_init(&none).await;
    assert_eq!(refused, Err(MetaError::Refused("no shards".into())));
    assert_eq!(client.cluster_init(&init).await, Ok(()));
}

/// Each field is something else than nothing.
fn report() -> Report {
    let disk = Disk {
        disk_id: DiskId([1; 16]),
        start_count: 2,
        size_bytes: 3,
        free_bytes: 4,
        state: DiskState::Poisoned,
        path: "a".into(),
        start_id: 8,
        previous_start_id: 7,
        n_synced: Some(0),
    };
    let replica = ReplicaReport {
        shard: SHARD,
        replica_id: 1,
        disk_id: DiskId([1; 16]),
        state: ReplicaState::Leader,
        term: 2,
        leader: Some("n2".into()),
        last_log: 3,
        committed: 3,
        applied: 2,
        digest: [5; 32],
        n_missing_chunks: 6,
        n_chunks: 7,
        chunk_bytes: 8,
        followers: vec![(2, 3), (3, 1)],
        voters: vec![1, 2],
        learners: vec![3],
        is_joint: true,
        missing_bytes: 9,
        received_bytes: 10,
        is_recovered: true,
    };
    let scrub = DiskScrub {
        disk_id: DiskId([1; 16]),
        n_damaged: 9,
        unanswered_ms: 7,
        ..DiskScrub::default()
    };
    Report {
        node: "n2".into(),
        disks: vec![disk],
        replicas: vec![replica],
        scrubs: vec![scrub],
        run_id: 4,
        placement_version: 11,
        is_last: true,
        version: "0.1.0".into(),
        uptime_ms: 7,
    }
}

#[tokio::test]
async fn a_node_reports_to_the_leader_wherever_that_is() {
    let cluster = Cluster::start(3);
    let client = MetaClient::new(config(&cluster, "n2", Role::Node)).unwrap();
    let report = report();
    for leader in ["n1", "n2", "n3"] {
        cluster.world.lead(leader);
        let newer = client.report(&report, PATIENCE).await.unwrap();
        assert_eq!(newer.map(|placement| placement.version), Some(12));
    }
    let learner = Replica {
        replica_id: 4,
        node: "n3".into(),
        disk_id: DiskId([3; 16]),
        role: ReplicaRole::Learner,
        replaces: Some(1),
    };
    let verbs = [
        MemberVerb::AddLearner(learner),
        MemberVerb::RemoveLearner(4),
        MemberVerb::Voters([2, 3, 4].into()),
        MemberVerb::Lead(2),
    ];
    let changes = verbs.map(|what| MemberChange { shard: SHARD, from_voters: [1, 2].into(), what });
    for change in &changes {
        client.change_members("n2", change, PATIENCE).await.unwrap();
    }
    assert_eq!(cluster.world.changes(), changes);
    let mut placement = client.placement();
    placement.wait_for(|placement| placement.version == 1).await.unwrap();
}
