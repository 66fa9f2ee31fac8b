//! What an operator does with a running cluster.

use std::time::{Duration, Instant};

use mailbox::ShardId;

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
    std::fs::remove_dir_all(&wiped).unwrap();
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
    house.stop_all().await;
}
