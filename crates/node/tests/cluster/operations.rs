//! What an operator does with a running cluster.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use mailbox::ShardId;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::house::{self, House, wait_for};

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_stopped_hands_over_and_is_missed_by_nobody() {
    let mut house = House::new(3, 1);
    house.start_all().await;
    house.form(1).await;
    let client = house.client();
    let place = house::create_account(&client, "ann@example.test").await;
    let leader = house.leader_of(place.shard).await;

    let delivering = tokio::spawn(async move {
        let mut longest = Duration::ZERO;
        for _ in 0..200 {
            let begun = Instant::now();
            house::deliver(&client, place, b"Subject: x\r\n\r\nx\r\n").await;
            longest = longest.max(begun.elapsed());
        }
        (longest, house::bodies(&client, place).await.len())
    });
    house.stop(&leader).await;
    let (longest, n_messages) = delivering.await.unwrap();
    println!("longest delivery over a stop: {longest:?}");
    assert_eq!(n_messages, 200);
    assert!(longest < Duration::from_secs(1), "an election had to help: {longest:?}");
    house.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_move_shards_are_added_and_a_wiped_disk_is_filled_again_as_a_new_one() {
    let mut house = House::new(3, 2);
    house.start_all().await;
    house.form(2).await;
    let admin = house.admin();
    let shard = admin.add_shard(3).await.unwrap();
    assert_eq!(shard, ShardId(3));
    wait_for("the new shard is led", PATIENCE, async || house.converged().await).await;
    admin.transfer_leader(shard, "n2").await.unwrap();
    admin.transfer_leader(shard, "n3").await.unwrap();
    assert!(admin.transfer_leader(shard, "n9").await.is_err());

    let ids = |status: api::admin::Status| -> std::collections::BTreeSet<u64> {
        let shards = status.placement.unwrap().shards.clone();
        shards.iter().flat_map(|shard| &shard.replicas).map(|one| one.replica_id).collect()
    };
    let before = ids(house.status().await.unwrap());
    house.stop("n3").await;
    let wiped = house.config("n3").data_dirs[0].clone();
    let left = house.path("left");
    std::fs::rename(&wiped, &left).unwrap();
    std::fs::create_dir(&wiped).unwrap();
    house.start("n3").await;
    let is_replaced = async || {
        let Some(status) = house.status().await else { return false };
        let Some(placement) = &status.placement else { return false };
        let disks = placement.node("n3").map_or(&[][..], |node| &node.disks);
        let replicas = placement.shards.iter().flat_map(|shard| &shard.replicas);
        let on_known = replicas.filter(|one| one.node == "n3");
        let mut on_known = on_known.map(|one| disks.iter().any(|disk| disk.disk_id == one.disk_id));
        disks.len() == 2 && status.replacements.is_empty() && on_known.all(|known| known)
    };
    wait_for("the old disk is forgotten", PATIENCE, is_replaced).await;
    wait_for("all copies are made again", PATIENCE, async || house.converged().await).await;
    let status = house.status().await.unwrap();
    let placement = status.placement.unwrap();
    let mut replicas = placement.shards.iter().flat_map(|shard| &shard.replicas);
    assert!(replicas.all(|one| before.contains(&one.replica_id) || one.node == "n3"));

    // The old disk comes back beside the others: it is not taken, and they go on.
    let known = placement.node("n3").unwrap().disks.iter().map(|disk| disk.disk_id);
    let known: BTreeSet<_> = known.collect();
    house.stop("n3").await;
    let mut config = house.config("n3");
    config.data_dirs.push(left);
    house.configure("n3", config);
    house.start("n3").await;
    wait_for("n3 serves", PATIENCE, async || {
        page(&house, "n3", "/readyz").await.ends_with("\r\n\r\nok\n")
    })
    .await;
    wait_for("all copies are there", PATIENCE, async || house.converged().await).await;
    let placement = house.status().await.unwrap().placement.unwrap();
    let disks = placement.node("n3").unwrap().disks.iter().map(|disk| disk.disk_id);
    assert_eq!(disks.collect::<BTreeSet<_>>(), known);
    house.stop_all().await;
}

/// One page of a node's probes.
async fn page(house: &House, name: &str, path: &str) -> String {
    let address = house.config(name).http.unwrap();
    let Ok(mut stream) = TcpStream::connect(address).await else { return String::new() };
    let request = format!("GET {path} HTTP/1.0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    said
}

/// Samples stand behind a head with the words and the kind of what they are.
fn every_family_is_explained(said: &str) {
    let text = said.split_once("\r\n\r\n").expect("a body").1;
    let heads = |head: &str| -> BTreeSet<&str> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(head)?.split_once(' '));
        lines.filter(|(_, words)| !words.is_empty()).map(|(name, _)| name).collect()
    };
    let (helps, types) = (heads("# HELP "), heads("# TYPE "));
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let names: BTreeSet<&str> = samples.filter_map(|line| line.split(['{', ' ']).next()).collect();
    assert!(names.len() > 20, "{text}");
    for name in names {
        assert!(helps.contains(name) && types.contains(name), "{name} has no head in\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_a_majority_is_not_ready_and_its_metrics_tell() {
    let mut house = House::new(3, 1);
    house.start_all().await;
    house.form(3).await;
    let has_leader = async |house: &House, n: u64| {
        let metrics = page(house, "n1", "/metrics").await;
        let mut lines = metrics.lines().filter(|l| l.starts_with("rookery_replica_has_leader{"));
        lines.clone().count() == 4 && lines.all(|line| line.ends_with(&format!(" {n}")))
    };
    let is_ready = async |house: &House| {
        page(house, "n1", "/readyz").await.ends_with("\r\n\r\nok\n") && has_leader(house, 1).await
    };
    wait_for("n1 is ready", PATIENCE, async || is_ready(&house).await).await;
    let copies_are_told = async || {
        let mut all = String::new();
        for name in ["n1", "n2", "n3"] {
            all += &page(&house, name, "/metrics").await;
        }
        ["rookery_shard_copies{", "rookery_shard_copies_wanted{"].iter().all(|family| {
            let mut lines = all.lines().filter(|line| line.starts_with(family));
            lines.clone().count() == 4 && lines.all(|line| line.ends_with(" 3"))
        }) && all.contains("rookery_shard_copies_lag_entries{")
    };
    wait_for("each leader tells of its copies", PATIENCE, copies_are_told).await;
    every_family_is_explained(&page(&house, "n1", "/metrics").await);

    house.kill("n2").await;
    house.kill("n3").await;
    let unready = async || {
        let said = page(&house, "n1", "/readyz").await;
        said.contains(" 503 ") && said.ends_with("a shard has no leader\n")
    };
    let is_told = async || unready().await && has_leader(&house, 0).await;
    wait_for("n1 is not ready", PATIENCE, is_told).await;
    assert!(page(&house, "n1", "/healthz").await.contains(" 200 "), "n1 itself is well");

    house.start("n3").await;
    wait_for("n1 is ready again", PATIENCE, async || is_ready(&house).await).await;
    house.stop_all().await;
}
