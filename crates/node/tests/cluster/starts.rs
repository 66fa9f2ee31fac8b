//! What a cluster does while its nodes still start.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use api::meta::ReplicaState;
use mailbox::ShardId;
use mailbox::command::Place;

use crate::house::{self, House, wait_for};

const COMES: Duration = Duration::from_secs(30);

/// Where the indexes of a shard are.
async fn indexes(house: &House, shard: ShardId) -> Vec<PathBuf> {
    let placement = house.status().await.unwrap().placement.unwrap();
    let replicas = placement.shard(shard).unwrap().replicas.iter();
    let dir = |node: &str, id: u64| house.path(&format!("{node}-0/disk/index/{id}"));
    replicas.map(|replica| dir(&replica.node, replica.replica_id)).collect()
}

/// In the place of the note that a clean stop left beside an index comes a pipe: the replica does not start
/// until somebody opens its other end.
fn put_pipe(dir: PathBuf) -> PathBuf {
    let items = std::fs::read_dir(&dir).unwrap().map(|item| item.unwrap().path());
    let mut notes = items.filter(|path| path.extension().is_some_and(|ext| ext == "clean"));
    let note = notes.next().expect("it was stopped in order");
    std::fs::remove_file(&note).unwrap();
    assert!(Command::new("mkfifo").arg(&note).status().unwrap().success());
    note
}

/// A stopped cluster of two shards with an account in one; the replicas of the other will not have started
/// before somebody opens the pipes.
async fn held_up() -> (House, Place, ShardId, Vec<PathBuf>) {
    let mut house = House::new(3, 1);
    house.start_all().await;
    house.form(2).await;
    let place = house::create_account(&house.client(), "ann@example.test").await;
    let other = ShardId(3 - place.shard.0);
    let dirs = indexes(&house, other).await;
    house.stop_all().await;
    let pipes: Vec<PathBuf> = dirs.into_iter().map(put_pipe).collect();
    (house, place, other, pipes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_is_served_while_another_ones_replicas_still_start() {
    let (mut house, place, other, pipes) = held_up().await;

    let begun = house.begin_all();
    let client = house.client();
    wait_for("the client knows the cluster", COMES, async || client.ready().await).await;
    house::deliver(&client, place, b"Subject: one\r\n\r\nfirst\r\n").await;
    assert!(begun.iter().all(|(_, starting, _)| !starting.is_finished()), "nothing was held up");
    let starting = async || {
        let status = house.status().await;
        let reports = status.iter().flat_map(|status| &status.nodes).flat_map(|n| &n.replicas);
        let starting = reports.filter(|one| one.shard == other);
        starting.filter(|one| one.state == ReplicaState::Starting).count() == pipes.len()
    };
    wait_for("the others are told to start, not to have failed", COMES, starting).await;

    let open = |pipe| drop(std::fs::OpenOptions::new().write(true).open(pipe).unwrap());
    tokio::task::spawn_blocking(move || pipes.into_iter().for_each(open)).await.unwrap();
    house.begun(begun).await;
    wait_for("everything is there", COMES, async || house.converged().await).await;
    house.stop_all().await;
}

/// An index that is large, or that has to be made, keeps a node from being told to end for no longer than a
/// small one does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_still_starts_ends_when_it_is_told() {
    let (mut house, place, _, pipes) = held_up().await;

    let begun = house.begin_all();
    let client = house.client();
    wait_for("the client knows the cluster", COMES, async || client.ready().await).await;
    begun.iter().for_each(|(_, _, shutdown)| shutdown.cancel());
    let ended = async {
        for (name, starting, _) in begun {
            let node = starting.await.unwrap().unwrap_or_else(|error| panic!("{name}: {error}"));
            node.stopped().await.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    };
    tokio::time::timeout(COMES, ended).await.expect("it waits for what does not start");

    let open = |pipe: PathBuf| {
        // Why for both: who was told to end may not have come as far as to read it, and is not waited for.
        drop(std::fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap());
        let _ = std::fs::remove_file(pipe);
    };
    tokio::task::spawn_blocking(move || pipes.into_iter().for_each(open)).await.unwrap();
    for name in ["n1", "n2", "n3"] {
        // Here, unlike in a process that ended, what was under way still holds the disk for a moment.
        let starts = async || house.try_start(name).await.is_ok();
        wait_for("the disk is let go", COMES, starts).await;
    }
    house::deliver(&house.client(), place, b"Subject: one\r\n\r\nfirst\r\n").await;
    wait_for("everything is there", COMES, async || house.converged().await).await;
    house.stop_all().await;
}

/// What was put off and is tried again may take as long as any start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_tried_again_is_told_to_start() {
    let mut house = House::new(1, 1);
    house.start("n1").await;
    house.form(1).await;
    let dir = indexes(&house, ShardId(1)).await.remove(0);
    house.stop("n1").await;
    let files = dir.ancestors().nth(2).unwrap().join("checkpoints").join(dir.file_name().unwrap());
    let aside = files.with_extension("aside");
    std::fs::rename(&files, &aside).unwrap();
    std::fs::write(&files, "in the way").unwrap();
    let pipe = put_pipe(dir);
    house.start("n1").await;
    let state = async || {
        let status = house.status().await;
        let reports = status.iter().flat_map(|status| &status.nodes).flat_map(|n| &n.replicas);
        let states: Vec<_> = reports.filter(|one| one.shard.0 == 1).map(|one| one.state).collect();
        states
    };
    wait_for("it does not start", COMES, async || state().await.is_empty()).await;
    std::fs::remove_file(&files).unwrap();
    std::fs::rename(&aside, &files).unwrap();
    let starts = async || state().await == [ReplicaState::Starting];
    wait_for("it is told to start", COMES, starts).await;
    let open = || drop(std::fs::OpenOptions::new().write(true).open(pipe).unwrap());
    tokio::task::spawn_blocking(open).await.unwrap();
    wait_for("it leads", COMES, async || state().await == [ReplicaState::Leader]).await;
    house.stop_all().await;
}
