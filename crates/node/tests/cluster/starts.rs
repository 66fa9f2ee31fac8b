//! What a cluster does while its nodes still start.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use api::meta::ReplicaState;
use mailbox::ShardId;

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_is_served_while_another_ones_replicas_still_start() {
    let mut house = House::new(3, 1);
    house.start_all().await;
    house.form(2).await;
    let place = house::create_account(&house.client(), "ann@example.test").await;
    let other = ShardId(3 - place.shard.0);
    let dirs = indexes(&house, other).await;
    house.stop_all().await;
    let pipes: Vec<PathBuf> = dirs.into_iter().map(put_pipe).collect();

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
