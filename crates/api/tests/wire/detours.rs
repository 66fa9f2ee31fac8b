//! A node that a client cannot connect to, and others can.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use api::client::EVERY_MAILBOX;
use api::tls::Role;
use mailbox::command::OfMailbox;
use mailbox::dialogue::Trouble;
use mailbox::{Answer, Change, Command, MailboxId, ModSeq, Query, Refusal};
use tokio::time::timeout;

use crate::client::{command, done};
use crate::cluster::{ACCOUNT, Cluster, PATIENCE, PLACE, SHARD};

/// Nobody listens here.
pub const NOWHERE: &str = "127.0.0.1:1";
/// A leader is looked for so long before another node is asked to pass a connection on; longer than an
/// election.
const STRAIGHT_FOR: Duration = Duration::from_secs(2);

fn n_passed_on(cluster: &Cluster) -> u64 {
    cluster.n_passed_on.load(Ordering::Relaxed)
}

#[tokio::test]
async fn a_leader_that_cannot_be_connected_to_is_reached_through_who_names_it() {
    let cluster = Cluster::start(3);
    cluster.place_at("n1", NOWHERE);
    let client = cluster.client();
    let began = Instant::now();
    assert_eq!(client.command(PLACE, command(), Vec::new()).await, done(1));
    assert!(began.elapsed() > STRAIGHT_FOR, "{:?}", began.elapsed());
    let n_before = n_passed_on(&cluster);
    assert!(n_before > 0);
    // Once it stands, it is as fast as any, for questions and changes too.
    let began = Instant::now();
    let gone = Ok(Answer::Refused(Refusal::NoSuchAccount));
    assert_eq!(client.query(PLACE, Query::Account(ACCOUNT)).await, gone);
    let mut watch = client.watch(PLACE);
    let every = OfMailbox { account: ACCOUNT, mailbox: EVERY_MAILBOX };
    assert_eq!(timeout(PATIENCE, watch.recv()).await.unwrap().of, every);
    let of = OfMailbox { account: ACCOUNT, mailbox: MailboxId(3) };
    let change = Change { of, highest_modseq: ModSeq::new(6).unwrap() };
    cluster.world.change(11, change);
    assert_eq!(timeout(PATIENCE, watch.recv()).await.unwrap(), change);
    assert_eq!(client.command(PLACE, command(), Vec::new()).await, done(2));
    assert!(began.elapsed() < STRAIGHT_FOR, "{:?}", began.elapsed());
    assert_eq!(n_passed_on(&cluster), n_before, "on the same connection");
    assert_eq!(cluster.world.n_done(), 2);
}

#[tokio::test]
async fn another_one_takes_over_when_who_passed_connections_on_is_gone() {
    let cluster = Cluster::start(3);
    cluster.place_at("n1", NOWHERE);
    let client = cluster.client();
    assert_eq!(client.command(PLACE, command(), Vec::new()).await, done(1));
    for (n, gone) in [(2, "n2"), (3, "n3")] {
        cluster.kill(gone);
        assert_eq!(client.command(PLACE, command(), Vec::new()).await, done(n), "{gone}");
        cluster.run(gone);
    }
    assert_eq!(cluster.world.n_done(), 3);
}

#[tokio::test]
async fn another_leader_is_called_on_the_straight_way() {
    let cluster = Cluster::start(3);
    cluster.place_at("n1", NOWHERE);
    let client = cluster.client();
    assert_eq!(client.command(PLACE, command(), Vec::new()).await, done(1));
    let n_before = n_passed_on(&cluster);
    cluster.world.lead("n3");
    let began = Instant::now();
    assert_eq!(client.command(PLACE, command(), Vec::new()).await, done(2));
    assert!(began.elapsed() < STRAIGHT_FOR, "{:?}", began.elapsed());
    assert_eq!(n_passed_on(&cluster), n_before);
}

#[tokio::test]
async fn who_passes_connections_on_lends_nobody_its_rights() {
    let cluster = Cluster::start(3);
    cluster.place_at("n1", NOWHERE);
    let client = cluster.client();
    let refused = client.command_shard(SHARD, Command::DeleteAccount(ACCOUNT)).await;
    assert_eq!((refused, cluster.world.n_done()), (Err(Trouble::Unavailable), 0));
    assert!(n_passed_on(&cluster) > 0, "it was refused by who leads");
    let operator = cluster.client_as("ctl", Role::Admin, PATIENCE);
    assert!(operator.command_shard(SHARD, Command::DeleteAccount(ACCOUNT)).await.is_ok());
    assert_eq!(cluster.world.n_done(), 1);
}

#[tokio::test]
async fn connections_of_nodes_are_not_passed_on() {
    let cluster = Cluster::start(3);
    cluster.place_at("n1", NOWHERE);
    let node = cluster.client_as("n9", Role::Node, 2 * STRAIGHT_FOR);
    let told = node.command(PLACE, command(), Vec::new()).await;
    assert_eq!((told, n_passed_on(&cluster)), (Err(Trouble::Unavailable), 0));
}
