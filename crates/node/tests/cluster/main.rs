//! Whole nodes in one process, over real TLS on loopback sockets and real files.

#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it must be")]

mod faults;
mod house;
mod operations;
mod refusals;
mod starts;

use std::time::Duration;

use api::meta::MetaError;
use house::{House, wait_for};

const FORMED: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_form_a_cluster_once_and_keep_mail_when_a_leader_dies() {
    let mut house = House::new(3, 1);
    house.start_all().await;
    house.form(2).await;
    let again = house.admin().cluster_init(&house.init(2)).await;
    assert!(matches!(again, Err(MetaError::Refused(_))), "{again:?}");

    let client = house.client();
    let place = house::create_account(&client, "ann@example.test").await;
    house::deliver(&client, place, b"Subject: one\r\n\r\nfirst\r\n").await;
    assert_eq!(house::bodies(&client, place).await, ["Subject: one\r\n\r\nfirst\r\n"]);

    let leader = house.leader_of(place.shard).await;
    house.kill(&leader).await;
    house::deliver(&client, place, b"Subject: two\r\n\r\nsecond\r\n").await;
    let bodies = house::bodies(&client, place).await;
    assert_eq!(bodies, ["Subject: one\r\n\r\nfirst\r\n", "Subject: two\r\n\r\nsecond\r\n"]);

    house.start(&leader).await;
    wait_for("the killed node catches up", FORMED, async || house.converged().await).await;
    house.stop_all().await;
    house.start_all().await;
    wait_for("everything comes back", FORMED, async || house.converged().await).await;
    assert_eq!(house::bodies(&house.client(), place).await.len(), 2);
    house.stop_all().await;
}
