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
async fn leaders_move_shards_are_added_and_a_wiped_disk_comes_back_as_a_new_one() {
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

    house.stop("n3").await;
    let wiped = house.config("n3").data_dirs[0].clone();
    std::fs::remove_dir_all(&wiped).unwrap();
    std::fs::create_dir(&wiped).unwrap();
    house.start("n3").await;
    wait_for("the new disk is known", PATIENCE, async || {
        let placement = house.status().await.and_then(|status| status.placement);
        let node = placement.as_ref().and_then(|placement| placement.node("n3")).cloned();
        node.is_some_and(|node| node.disks.len() == 3)
    })
    .await;
    let status = house.status().await.unwrap();
    let node = status.nodes.iter().find(|node| node.node.name == "n3").unwrap();
    let path = wiped.display().to_string();
    let new = node.node.disks.iter().filter(|disk| disk.path == path).max_by_key(|d| d.free_bytes);
    let on_it = node.replicas.iter().filter(|r| r.disk_id == new.unwrap().disk_id).count();
    assert_eq!(on_it, 0, "no replica begins on a new disk by itself");
    house.stop_all().await;
}
