//! Changes: each session hears of its account, and after a gap that anything may have changed.

use std::time::Duration;

use api::client::{EVERY_MAILBOX, Watch};
use mailbox::command::{OfMailbox, Place};
use mailbox::{AccountId, Change, MailboxId, ModSeq};
use tokio::time::timeout;

use crate::cluster::{ACCOUNT, Cluster, PATIENCE, PLACE, address};

const OTHER: AccountId = AccountId([8; 16]);

fn change(account: AccountId, mailbox: u64, modseq: u64) -> Change {
    let of = OfMailbox { account, mailbox: MailboxId(mailbox) };
    Change { of, highest_modseq: ModSeq::new(modseq).unwrap() }
}

async fn next(watch: &mut Watch) -> Change {
    timeout(PATIENCE, watch.recv()).await.expect("a change")
}

async fn next_is_every(watch: &mut Watch, account: AccountId) {
    let told = next(watch).await.of;
    assert_eq!(told, OfMailbox { account, mailbox: EVERY_MAILBOX });
}

#[tokio::test]
async fn a_session_hears_of_its_own_account_only() {
    let cluster = Cluster::start(3);
    let client = cluster.client();
    let mut one = client.watch(PLACE);
    let mut two = client.watch(Place { account: OTHER, ..PLACE });
    next_is_every(&mut one, ACCOUNT).await;
    next_is_every(&mut two, OTHER).await;
    assert_eq!(cluster.world.n_watchers(), 1, "one stream for all sessions");
    cluster.world.change(10, change(OTHER, 1, 5));
    cluster.world.change(11, change(ACCOUNT, 3, 6));
    assert_eq!(next(&mut one).await, change(ACCOUNT, 3, 6));
    assert_eq!(next(&mut two).await, change(OTHER, 1, 5));
}

#[tokio::test]
async fn after_a_change_of_leader_everybody_is_told_to_look_again() {
    let cluster = Cluster::start(3);
    let client = cluster.client();
    let mut watch = client.watch(PLACE);
    next_is_every(&mut watch, ACCOUNT).await;
    cluster.kill("n1");
    cluster.world.lead("n2");
    next_is_every(&mut watch, ACCOUNT).await;
    cluster.world.change(12, change(ACCOUNT, 1, 7));
    assert_eq!(next(&mut watch).await, change(ACCOUNT, 1, 7));
}

#[tokio::test]
async fn a_stream_at_a_former_leader_is_left_when_a_question_finds_the_new_one() {
    let cluster = Cluster::start(3);
    let client = cluster.client();
    let mut watch = client.watch(PLACE);
    next_is_every(&mut watch, ACCOUNT).await;
    cluster.world.lead("n3");
    client.lock_maildrop(PLACE, [1; 16]).await.unwrap();
    next_is_every(&mut watch, ACCOUNT).await;
}

#[tokio::test]
async fn a_leader_that_takes_long_is_listened_to_and_not_taken_for_lost() {
    let cluster = Cluster::start(3);
    let anna = address("anna@example.test");
    cluster.world.resolve(&anna, Some(PLACE));
    *cluster.node("n1").sure_after.lock().unwrap() = Duration::from_millis(1_500);
    let client = cluster.client();
    let mut watch = client.watch(PLACE);
    let (found, ()) = tokio::join!(client.recipient(&anna), next_is_every(&mut watch, ACCOUNT));
    assert_eq!(found, Ok(Some(PLACE)));
    cluster.world.change(10, change(ACCOUNT, 3, 6));
    assert_eq!(next(&mut watch).await, change(ACCOUNT, 3, 6));
}

#[tokio::test]
async fn a_slow_session_misses_nothing() {
    let cluster = Cluster::start(1);
    let client = cluster.client();
    let mut slow = client.watch(PLACE);
    let mut quick = client.watch(PLACE);
    next_is_every(&mut slow, ACCOUNT).await;
    next_is_every(&mut quick, ACCOUNT).await;
    for i in 1..=100 {
        cluster.world.change(i, change(ACCOUNT, i % 2, i));
        next(&mut quick).await;
    }
    assert_eq!(next(&mut slow).await, change(ACCOUNT, 0, 100));
    assert_eq!(next(&mut slow).await, change(ACCOUNT, 1, 99));
    for i in 1..=100 {
        cluster.world.change(i, change(ACCOUNT, i, i));
        next(&mut quick).await;
    }
    let mut told = next(&mut slow).await;
    while told.of.mailbox != EVERY_MAILBOX {
        told = next(&mut slow).await;
    }
}

#[tokio::test]
async fn nobody_watching_means_no_stream() {
    let cluster = Cluster::start(1);
    let client = cluster.client();
    let mut watch = client.watch(PLACE);
    next_is_every(&mut watch, ACCOUNT).await;
    drop(watch);
    let none = async {
        while cluster.world.n_watchers() > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, none).await.expect("the stream ends");
    let mut again = client.watch(PLACE);
    next_is_every(&mut again, ACCOUNT).await;
}
