//! Exactly once: what a repeated, late or foreign request meets.

mod support;

use mailbox::command::{Deliver, Housekeep, InternalDate};
use mailbox::*;
use support::*;

fn delivery(shard: &mut Shard) -> (Request, Vec<ChunkRef>) {
    let (message, inline) = shard.message(&mail("once"));
    let deliver = Deliver { account: ACCOUNT, detail: None, message, internal_date: None };
    let deliver = Command::Deliver(deliver);
    (shard.request(deliver), inline)
}

fn at(shard: &Shard, request: &Request) -> Entry {
    Entry { time: LogTime(shard.now_ms), request: request.clone() }
}

fn refused(applied: &Applied) -> &Refusal {
    match &applied.outcome {
        Outcome::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_repeated_request_gives_the_kept_outcome_and_does_nothing() {
    let mut shard = Shard::with_account();
    let (request, inline) = delivery(&mut shard);
    let first = shard.entry(&at(&shard, &request), &inline);
    assert!(matches!(first.outcome, Outcome::Appended(_)));
    assert_eq!(first.changes.len(), 1);
    shard.now_ms += 1_000_000; // Long after its expiry.
    let again = shard.entry(&at(&shard, &request), &inline);
    assert_eq!(again.outcome, first.outcome);
    assert!(again.changes.is_empty());
    assert_eq!(shard.mailbox("INBOX").n_messages, 1);
}

#[test]
fn a_clock_that_leapt_dates_nothing_that_comes_later() {
    let mut shard = Shard::with_account();
    shard.now_ms += 1_000_000;
    assert!(matches!(shard.deliver(&mail("leapt")), Outcome::Appended(_)));
    let (mut request, inline) = delivery(&mut shard);
    let given = InternalDate { unix_s: 1_000_000, zone_minutes: 0 };
    if let Command::Deliver(deliver) = &mut request.command {
        deliver.internal_date = Some(given);
    }
    let applied = shard.entry(&at(&shard, &request), &inline);
    assert!(matches!(applied.outcome, Outcome::Appended(_)));
    let records = shard.messages(list(shard.of("INBOX")));
    let dates: Vec<_> = records.iter().map(|record| record.internal_date).collect();
    assert_eq!((dates.len(), dates.last()), (2, Some(&given)));
}

#[test]
fn an_unknown_session_is_refused() {
    let mut shard = Shard::with_account();
    let (mut request, inline) = delivery(&mut shard);
    request.session = Some(SessionId([9; 16]));
    let applied = shard.entry(&at(&shard, &request), &inline);
    assert_eq!(refused(&applied), &Refusal::NoSuchSession);
    request.session = None;
    let applied = shard.entry(&at(&shard, &request), &inline);
    assert_eq!(refused(&applied), &Refusal::NoSuchSession);
    assert_eq!(shard.mailbox("INBOX").n_messages, 0);
}

#[test]
fn a_sequence_below_the_mark_is_refused() {
    let mut shard = Shard::with_account();
    let (old, inline) = delivery(&mut shard);
    let (new, _) = delivery(&mut shard);
    shard.entry(&at(&shard, &new), &inline);
    let applied = shard.entry(&at(&shard, &old), &inline);
    assert_eq!(refused(&applied), &Refusal::StaleSequence);
    assert_eq!(shard.mailbox("INBOX").n_messages, 1);
}

#[test]
fn outcomes_above_the_mark_are_kept_in_any_order() {
    let mut shard = Shard::with_account();
    let requests: Vec<_> = (0..40).map(|_| delivery(&mut shard)).collect();
    let mark = requests[0].0.sequence;
    let mut outcomes = Vec::new();
    for (request, inline) in requests.iter().rev() {
        let request = Request { lowest_unanswered: mark, ..request.clone() };
        outcomes.push(shard.entry(&at(&shard, &request), inline).outcome);
    }
    for ((request, inline), outcome) in requests.iter().rev().zip(&outcomes) {
        let request = Request { lowest_unanswered: mark, ..request.clone() };
        assert_eq!(&shard.entry(&at(&shard, &request), inline).outcome, outcome);
    }
    assert_eq!(shard.mailbox("INBOX").n_messages, 40);
}

#[test]
fn an_expired_request_changes_nothing_and_log_time_never_goes_back() {
    let mut shard = Shard::with_account();
    let (request, inline) = delivery(&mut shard);
    shard.now_ms = request.expires.0 + 1;
    shard.alone(Command::OpenSession(SESSION));
    shard.now_ms = START_MS; // A leader whose clock lags.
    let applied = shard.entry(&at(&shard, &request), &inline);
    let told = Refusal::Expired(Some(LogTime(request.expires.0 + 1)));
    assert_eq!(refused(&applied), &told, "log time is told, not the clock");
    assert_eq!(shard.mailbox("INBOX").n_messages, 0);
}

#[test]
fn a_session_is_not_opened_by_who_comes_too_late() {
    let mut shard = Shard::new();
    shard.now_ms += 3_600_000; // A leader whose clock leapt.
    shard.alone(Command::OpenSession(SESSION));
    let log_time = shard.now_ms;
    shard.now_ms = START_MS;
    let told = Refusal::Expired(Some(LogTime(log_time)));
    assert_eq!(shard.alone(Command::OpenSession(SessionId([9; 16]))), Outcome::Refused(told));
}

#[test]
fn earlier_versions_read_that_a_request_expired_and_are_read() {
    #[derive(Debug, PartialEq, minicbor::Encode, minicbor::Decode)]
    enum Earlier {
        #[n(2)]
        Expired,
    }
    let told = codec::encode(&Refusal::Expired(Some(LogTime(START_MS))));
    assert_eq!(codec::decode::<Earlier>(&told), Ok(Earlier::Expired));
    let untold = codec::encode(&Refusal::Expired(None));
    assert_eq!(untold, codec::encode(&Earlier::Expired));
    assert_eq!(codec::decode::<Refusal>(&untold), Ok(Refusal::Expired(None)));
    assert_ne!(told, untold);
}

#[test]
fn a_session_is_dropped_only_when_no_repetition_can_be_executed_again() {
    let mut shard = Shard::with_account();
    let (request, inline) = delivery(&mut shard);
    shard.entry(&at(&shard, &request), &inline);
    let far = LogTime(u64::MAX);
    let all = Housekeep { sessions_before: far, uploads_before: far, purge_before: far };
    shard.housekeep(all.clone());
    // Its expiry has not come yet, so its outcome is still kept.
    assert!(matches!(shard.entry(&at(&shard, &request), &inline).outcome, Outcome::Appended(_)));
    shard.now_ms = request.expires.0 + 1;
    shard.housekeep(all);
    let applied = shard.entry(&at(&shard, &request), &inline);
    assert_eq!(refused(&applied), &Refusal::NoSuchSession);
    shard.alone(Command::OpenSession(SESSION));
    let applied = shard.entry(&at(&shard, &request), &inline);
    assert_eq!(refused(&applied), &Refusal::Expired(Some(LogTime(shard.now_ms))));
    assert_eq!(shard.mailbox("INBOX").n_messages, 1);
}

#[test]
fn one_row_is_an_effect_also_while_log_time_is_ahead_and_log_time_is_none() {
    let mut shard = Shard::new();
    let request = |sessions_before| {
        let (uploads_before, purge_before) = (LogTime(0), LogTime(0));
        let step = Housekeep { sessions_before, uploads_before, purge_before };
        let command = Command::Housekeep(step);
        let expires = LogTime(u64::MAX);
        Request { session: None, sequence: 0, lowest_unanswered: 0, expires, command }
    };
    let (nothing, all) = (request(LogTime(0)), request(LogTime(u64::MAX)));
    let has_effect =
        |shard: &Shard, request| has_effect(&shard.rows, shard.digest, &at(shard, request));
    shard.now_ms += 3_600_000; // A leader whose clock leapt.
    assert!(!has_effect(&shard, &nothing), "log time alone");
    shard.entry(&at(&shard, &nothing), &[]);
    shard.now_ms = START_MS;
    assert!(!has_effect(&shard, &nothing));
    assert!(has_effect(&shard, &all), "the session goes");
    shard.entry(&at(&shard, &all), &[]);
    assert!(!has_effect(&shard, &all), "it has gone");
}

/// An outcome as versions keep it that know nothing of [`outcome::Stored::own`].
#[derive(minicbor::Encode)]
enum Kept {
    #[n(4)]
    Stored(#[n(0)] KeptStored),
}

#[derive(minicbor::Encode)]
struct KeptStored {
    #[n(0)]
    messages: Vec<outcome::StoredFlags>,
    #[n(1)]
    modified: UidSet,
    #[n(2)]
    next: Option<Uid>,
}

#[test]
fn what_a_store_changed_by_itself_is_told_once_and_not_kept() {
    let mut shard = Shard::with_account();
    let uid = |n| Uid::new(n).expect("a UID");
    for _ in 0..2 {
        let (request, inline) = delivery(&mut shard);
        shard.entry(&at(&shard, &request), &inline);
    }
    let store = |uids: &[u32], flag| {
        Command::Store(command::Store {
            account: ACCOUNT,
            mailbox: MailboxId(1),
            uids: uids.iter().map(|n| uid(*n)).collect(),
            change: FlagChange::Add(Flags { system: flag, ..Flags::default() }),
            unchanged_since: None,
        })
    };
    let before = shard.mailbox("INBOX").highest_modseq;
    let Outcome::Stored(one) = shard.run(store(&[1], SystemFlags::SEEN)) else { panic!() };
    let request = shard.request(store(&[1, 2], SystemFlags::SEEN));
    let Outcome::Stored(two) = shard.entry(&at(&shard, &request), &[]).outcome else { panic!() };
    let (one_own, two_own) = (one.own.expect("a change"), two.own.expect("a change"));
    assert!(one_own.modseq < two_own.modseq);
    assert_eq!(two.messages[0].modseq, one_own.modseq, "it had the flag already");
    assert_eq!(two.messages[1].modseq, two_own.modseq);
    assert_eq!(two_own.before, before, "of the one that it changed");

    let kept = outcome::Stored { own: None, ..two.clone() };
    let outcome::Stored { messages, modified, next, .. } = two;
    let mut bytes = Vec::new();
    let old = Kept::Stored(KeptStored { messages, modified, next });
    minicbor::encode(old, &mut bytes).expect("into memory");
    assert!(shard.rows.values().any(|row| *row == bytes), "the row is the one of old");
    let again = shard.entry(&at(&shard, &request), &[]);
    assert_eq!(again.outcome, Outcome::Stored(kept), "a repetition changed nothing by itself");

    let Outcome::Stored(none) = shard.run(store(&[1, 2], SystemFlags::SEEN)) else { panic!() };
    assert_eq!(none.own, None);
}
