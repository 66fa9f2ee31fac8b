//! Commands: exactly once, whatever happens to leaders, connections and answers.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use api::mail::MailError;
use mailbox::command::{NamedMailbox, OfMailbox, Place};
use mailbox::dialogue::Trouble;
use mailbox::query::Vanished;
use mailbox::{
    Answer, Command, LogTime, MailboxId, MailboxName, Outcome, Query, Refusal, ShardId, Uid, UidSet,
};

use crate::cluster::{ACCOUNT, Cluster, PATIENCE, PLACE};
use crate::node::Fault;

pub fn command() -> Command {
    let name = MailboxName::inbox();
    Command::DeleteMailbox(NamedMailbox { account: ACCOUNT, name })
}

/// What a clock says that is ahead.
fn ahead(by: Duration) -> LogTime {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + by;
    LogTime(now.as_millis() as u64)
}

pub fn done(n: u64) -> Result<Outcome, Trouble> {
    Ok(Outcome::MailboxCreated(MailboxId(n)))
}

#[tokio::test]
async fn commands_share_one_session() {
    let cluster = Cluster::start(3);
    let client = cluster.client();
    assert!(!client.ready().await);
    let calls = (0..50).map(|_| client.command(PLACE, command(), Vec::new()));
    for outcome in futures_util::future::join_all(calls.collect::<Vec<_>>()).await {
        outcome.unwrap();
    }
    assert!(client.ready().await);
    assert_eq!((cluster.world.n_done(), cluster.world.n_sessions()), (50, 1));
}

#[tokio::test]
async fn a_lost_answer_does_not_make_it_happen_twice() {
    let cluster = Cluster::start(3);
    let client = cluster.client();
    assert_eq!(client.command(PLACE, command(), Vec::new()).await, done(1));
    cluster.world.fault(Fault::DoneAndUnknown);
    assert_eq!(client.command(PLACE, command(), Vec::new()).await, done(2));
    assert_eq!(cluster.world.n_done(), 2);
}

#[tokio::test]
async fn a_leader_killed_after_it_did_the_command_is_replaced_without_doing_it_again() {
    let cluster = Cluster::start(3);
    let client = cluster.client();
    assert_eq!(client.command(PLACE, command(), Vec::new()).await, done(1));
    let mut happened = cluster.world.happened.subscribe();
    happened.mark_unchanged();
    cluster.world.fault(Fault::DoneAndSilent);
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.command(PLACE, command(), Vec::new()).await }
    });
    happened.changed().await.unwrap();
    cluster.world.lead("");
    cluster.kill("n1");
    cluster.world.lead("n3");
    let elected = Instant::now();
    assert_eq!(call.await.unwrap(), done(2));
    assert!(elected.elapsed() < Duration::from_millis(2_500), "{:?}", elected.elapsed());
    assert_eq!(cluster.world.n_done(), 2);
}

#[tokio::test]
async fn an_answer_comes_with_the_outcome_unless_it_is_too_large() {
    let cluster = Cluster::start(3);
    let client = cluster.client();
    for (n_runs, is_told) in [(3, true), (1_000_000, false)] {
        // Every second UID: none lies beside another.
        let uids = (0..n_runs).map(|k| Uid::new(2 * k + 1_000_001).unwrap());
        let known = UidSet::from_ranges(uids.map(|uid| (uid, uid)).collect());
        let of = OfMailbox { account: ACCOUNT, mailbox: MailboxId(1) };
        let then = Vanished { of, since: 0, known: known.clone(), uid_validity: None };
        let then = Some(Query::Vanished(then));
        let done = client.command_and(PLACE, command(), Vec::new(), then).await;
        let (outcome, answer) = done.unwrap();
        assert!(matches!(outcome, Outcome::MailboxCreated(_)), "{outcome:?}");
        assert_eq!(answer, is_told.then_some(Answer::Vanished(known)), "{n_runs} runs");
    }
    assert_eq!(cluster.world.n_done(), 2, "each command was done once");
}

#[tokio::test]
async fn a_leader_that_falls_silent_is_left_when_another_one_leads() {
    let cluster = Cluster::start(3);
    let client = cluster.client();
    assert_eq!(client.command(PLACE, command(), Vec::new()).await, done(1));
    let mut happened = cluster.world.happened.subscribe();
    happened.mark_unchanged();
    cluster.world.fault(Fault::DoneAndSilent);
    let call = tokio::spawn(async move { client.command(PLACE, command(), Vec::new()).await });
    happened.changed().await.unwrap();
    cluster.node("n1").deaf.send_replace(true);
    cluster.world.lead("n2");
    assert_eq!(call.await.unwrap(), done(2));
    assert_eq!(cluster.world.n_done(), 2);
}

#[tokio::test]
async fn a_leader_is_found_over_a_slow_network() {
    let cluster = Cluster::start(3);
    let client = cluster.client();
    assert_eq!(client.command(PLACE, command(), Vec::new()).await, done(1));
    cluster.world.tell_leader_after(Duration::from_millis(700));
    cluster.kill("n1");
    cluster.world.lead("n2");
    assert_eq!(client.command(PLACE, command(), Vec::new()).await, done(2));
    assert_eq!(cluster.world.n_done(), 2);
}

#[tokio::test]
async fn of_many_that_wait_for_a_silent_leader_one_asks_whether_it_leads() {
    let cluster = Cluster::start(3);
    let client = cluster.client();
    assert_eq!(client.command(PLACE, command(), Vec::new()).await, done(1));
    cluster.world.lead("");
    cluster.node("n1").deaf.send_replace(true);
    let began = Instant::now();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let client = client.clone();
        calls.spawn(async move { client.command(PLACE, command(), Vec::new()).await });
    }
    // Each time the other two are asked, and never so soon again by each of the calls.
    cluster.world.asked_in_vain(6).await;
    assert!(began.elapsed() > Duration::from_millis(1_800), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_command_waits_for_a_leader_and_reaches_it_at_once() {
    let cluster = Cluster::start(3);
    let client = cluster.client();
    assert_eq!(client.command(PLACE, command(), Vec::new()).await, done(1));
    cluster.world.lead("");
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.command(PLACE, command(), Vec::new()).await }
    });
    // An election takes a while: each node is asked so often that the pauses became long.
    cluster.world.asked_in_vain(3 * 10).await;
    assert!(!call.is_finished());
    cluster.world.lead("n2");
    let elected = Instant::now();
    assert_eq!(call.await.unwrap(), done(2));
    assert!(elected.elapsed() < Duration::from_millis(1_250), "{:?}", elected.elapsed());
}

/// Rounds in which all three nodes are asked in vain; with the pauses between them more than a second.
const LONG_ROUNDS: u64 = 3 * 40;

#[tokio::test]
async fn a_leader_that_is_overloaded_after_its_election_is_asked_again() {
    let cluster = Cluster::start(3);
    let client = cluster.client();
    assert_eq!(client.command(PLACE, command(), Vec::new()).await, done(1));
    cluster.world.lead("");
    let call = tokio::spawn(async move { client.command(PLACE, command(), Vec::new()).await });
    cluster.world.asked_in_vain(LONG_ROUNDS).await;
    for _ in 0..3 {
        cluster.world.fault(Fault::Told(MailError::Overloaded));
    }
    cluster.world.lead("n2");
    assert_eq!(call.await.unwrap(), done(2));
}

#[tokio::test]
async fn commands_that_find_no_place_wait_for_a_leader_too() {
    let cluster = Cluster::start(3);
    let client = cluster.client();
    assert_eq!(client.command(PLACE, command(), Vec::new()).await, done(1));
    cluster.world.lead("");
    let mut calls = tokio::task::JoinSet::new();
    // More than a client has under way in one shard.
    for _ in 0..1100 {
        let client = client.clone();
        calls.spawn(async move { client.command(PLACE, command(), Vec::new()).await });
    }
    cluster.world.asked_in_vain(LONG_ROUNDS).await;
    cluster.world.lead("n2");
    for outcome in calls.join_all().await {
        outcome.unwrap();
    }
}

#[tokio::test]
async fn a_hint_is_followed() {
    let cluster = Cluster::start(3);
    let client = cluster.client();
    for (n, leader) in ["n2", "n3", "n1", "n2"].iter().enumerate() {
        assert_eq!(client.command(PLACE, command(), Vec::new()).await, done(n as u64 + 1));
        cluster.world.lead(leader);
    }
    assert_eq!(cluster.world.n_done(), 4);
}

#[tokio::test]
async fn a_leader_is_found_that_came_after_the_placement_was_told() {
    let cluster = Cluster::start(4);
    let later = cluster.place_without("n4");
    // It listens to the first node, which is cut off from the others.
    let client = cluster.client();
    assert_eq!(client.command(PLACE, command(), Vec::new()).await, done(1));
    cluster.world.publish(later);
    cluster.world.lead("n4");
    assert_eq!(client.command(PLACE, command(), Vec::new()).await, done(2));
}

#[tokio::test]
async fn a_placement_is_doubted_in_which_nobody_leads_or_knows_who_does() {
    let cluster = Cluster::start(3);
    let later = cluster.place_without("n3");
    cluster.node("n1").deaf.send_replace(true);
    cluster.kill("n2");
    let client = cluster.client_with_deadline(2 * PATIENCE);
    let told = async {
        while client.placement().version == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, told).await.expect("in time");
    cluster.world.publish(later);
    cluster.world.lead("n3");
    assert_eq!(client.command(PLACE, command(), Vec::new()).await, done(1));
}

#[tokio::test]
async fn a_forgotten_session_is_opened_anew_if_nothing_was_done_under_it() {
    let cluster = Cluster::start(1);
    let client = cluster.client();
    assert_eq!(client.command(PLACE, command(), Vec::new()).await, done(1));
    cluster.world.fault(Fault::SessionsLost);
    assert_eq!(client.command(PLACE, command(), Vec::new()).await, done(2));
    assert_eq!((cluster.world.n_done(), cluster.world.n_sessions()), (2, 1));
}

#[tokio::test]
async fn a_session_forgotten_after_a_lost_answer_leaves_the_outcome_unknown() {
    let cluster = Cluster::start(3);
    let client = cluster.client();
    assert_eq!(client.command(PLACE, command(), Vec::new()).await, done(1));
    let mut happened = cluster.world.happened.subscribe();
    happened.mark_unchanged();
    cluster.world.fault(Fault::DoneSilentAndSessionsLost);
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.command(PLACE, command(), Vec::new()).await }
    });
    happened.changed().await.unwrap();
    cluster.kill("n1");
    cluster.world.lead("n2");
    assert_eq!(call.await.unwrap(), Err(Trouble::Unknown));
    assert_eq!(cluster.world.n_done(), 2);
    assert_eq!(client.command(PLACE, command(), Vec::new()).await, done(3));
}

#[tokio::test]
async fn without_a_leader_nothing_was_done_and_the_caller_is_told_so() {
    let cluster = Cluster::start(3);
    let client = cluster.client_with_deadline(Duration::from_millis(400));
    cluster.world.lead("");
    let began = Instant::now();
    let told = client.command(PLACE, command(), Vec::new()).await;
    assert_eq!(told, Err(Trouble::Unavailable));
    assert!(began.elapsed() < Duration::from_secs(2));
    assert_eq!(cluster.world.n_done(), 0);
}

#[tokio::test]
async fn nobody_there_is_the_same_as_no_leader() {
    let cluster = Cluster::start(2);
    cluster.kill("n1");
    cluster.kill("n2");
    let client = cluster.client_with_deadline(Duration::from_millis(300));
    let told = client.command(PLACE, command(), Vec::new()).await;
    assert_eq!(told, Err(Trouble::Unavailable));
}

#[tokio::test]
async fn what_may_have_been_done_is_never_called_undone() {
    let cluster = Cluster::start(1);
    let client = cluster.client_with_deadline(Duration::from_millis(600));
    assert_eq!(client.command(PLACE, command(), Vec::new()).await, done(1));
    cluster.world.fault(Fault::Silent);
    assert_eq!(client.command(PLACE, command(), Vec::new()).await, Err(Trouble::Unknown));
    // A refusal for want of space says nothing about an attempt before it.
    cluster.world.fault(Fault::DoneAndUnknown);
    for _ in 0..100 {
        cluster.world.fault(Fault::Told(MailError::Full));
    }
    assert_eq!(client.command(PLACE, command(), Vec::new()).await, Err(Trouble::Unknown));
}

#[tokio::test]
async fn an_expired_command_was_not_done() {
    let cluster = Cluster::start(1);
    let client = cluster.client();
    cluster.world.fault(Fault::Told(MailError::Unknown));
    cluster.world.fault(Fault::Expired);
    let told = client.command(PLACE, command(), Vec::new()).await;
    assert_eq!((told, cluster.world.n_done()), (Err(Trouble::Unavailable), 0));
}

#[tokio::test]
async fn log_time_that_is_ahead_is_learned_once() {
    let cluster = Cluster::start(1);
    let client = cluster.client();
    cluster.world.log_time(ahead(Duration::from_secs(3600)), 0);
    for n in 1..=3 {
        assert_eq!(client.command(PLACE, command(), Vec::new()).await, done(n));
        assert_eq!(cluster.world.n_expired(), 1, "the first one opened the session");
    }
    // It leaps again, within the session. Whoever is on the way then learns it by itself.
    cluster.world.log_time(ahead(Duration::from_secs(2 * 3600)), 0);
    let calls = (0..50).map(|_| client.command(PLACE, command(), Vec::new()));
    for outcome in futures_util::future::join_all(calls.collect::<Vec<_>>()).await {
        assert!(matches!(outcome, Ok(Outcome::MailboxCreated(_))), "{outcome:?}");
    }
    let n_expired = cluster.world.n_expired();
    assert!((2..=51).contains(&n_expired), "{n_expired}");
    assert_eq!(client.command(PLACE, command(), Vec::new()).await, done(54));
    assert_eq!((cluster.world.n_expired(), cluster.world.n_done()), (n_expired, 54));
}

#[tokio::test]
async fn what_was_done_before_log_time_leapt_is_not_done_again() {
    let cluster = Cluster::start(1);
    let client = cluster.client();
    assert_eq!(client.command(PLACE, command(), Vec::new()).await, done(1));
    // The answer is lost, and with the leader the clock changes.
    let leap = ahead(Duration::from_secs(3600));
    cluster.world.fault(Fault::DoneAndUnknownAndLeapTo(leap));
    assert_eq!(client.command(PLACE, command(), Vec::new()).await, done(2));
    assert_eq!((cluster.world.n_done(), cluster.world.n_expired()), (2, 0));
    // The same of one that was not done.
    cluster.world.log_time(LogTime(leap.0 * 2), 0);
    cluster.world.fault(Fault::Told(MailError::Unknown));
    assert_eq!(client.command(PLACE, command(), Vec::new()).await, done(3));
    assert_eq!((cluster.world.n_done(), cluster.world.n_expired()), (3, 1));
}

#[tokio::test]
async fn a_command_that_expires_again_and_again_ends_with_its_deadline() {
    let cluster = Cluster::start(1);
    let client = cluster.client_with_deadline(Duration::from_millis(600));
    assert_eq!(client.command(PLACE, command(), Vec::new()).await, done(1));
    cluster.world.log_time(ahead(Duration::from_secs(3600)), 60_000);
    let began = Instant::now();
    let told = client.command(PLACE, command(), Vec::new()).await;
    assert_eq!((told, cluster.world.n_done()), (Err(Trouble::Unavailable), 1));
    let took = began.elapsed();
    // It ends early where the next try could not be in time.
    assert!((200..5_000).contains(&took.as_millis()), "{took:?}");
}

#[tokio::test]
async fn refusals_of_the_store_are_told_in_its_words() {
    let cluster = Cluster::start(1);
    let client = cluster.client();
    let cases = [(MailError::Full, Trouble::Full), (MailError::TooLarge, Trouble::TooLarge)];
    for (error, trouble) in cases {
        cluster.world.fault(Fault::Told(error));
        assert_eq!(client.command(PLACE, command(), Vec::new()).await, Err(trouble));
    }
    cluster.world.fault(Fault::Told(MailError::Overloaded));
    cluster.world.fault(Fault::Told(MailError::Unavailable));
    cluster.world.fault(Fault::Told(MailError::NoSuchShard));
    assert_eq!(client.command(PLACE, command(), Vec::new()).await, done(1));
}

#[tokio::test]
async fn an_account_that_moved_is_followed() {
    let cluster = Cluster::start(2);
    let client = cluster.client();
    cluster.world.move_to(Place { shard: ShardId(2), epoch: 2, ..PLACE });
    let outcome = tokio::time::timeout(PATIENCE, client.command(PLACE, command(), Vec::new()));
    assert_eq!(outcome.await.unwrap(), done(1));
}

#[tokio::test]
async fn whoever_needs_an_account_finishes_a_move_that_was_broken_off() {
    let cluster = Cluster::start(3);
    let client = cluster.client();
    // Nobody said that it left, so nobody may say that it has come.
    cluster.world.leave_for(PLACE, 1);
    let hasty = cluster.client_with_deadline(Duration::from_millis(1_500));
    let refused = hasty.command(PLACE, command(), Vec::new()).await;
    assert_eq!(refused, Err(Trouble::Unavailable));
    let moved = Place { shard: ShardId(2), epoch: 2, ..PLACE };
    cluster.world.leave_for(moved, 3);
    assert_eq!(client.command(PLACE, command(), Vec::new()).await, done(1));
    cluster.world.leave_for(moved, 3);
    let reader = cluster.client();
    let gone = Ok(Answer::Refused(Refusal::NoSuchAccount));
    assert_eq!(reader.query(PLACE, Query::Account(ACCOUNT)).await, gone);
}
