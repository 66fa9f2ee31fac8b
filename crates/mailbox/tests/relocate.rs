//! Moves between shards: what is refused on the way. That everything comes along is shown by `random.rs`.

mod support;

use mailbox::command::{FREEZE_MS_MAX, MoveAccount, MoveStep, MovedRow, Place, Upload};
use mailbox::*;
use support::*;

const OTHER: AccountId = AccountId([8; 16]);

fn to(shard: u32, epoch: u64) -> Place {
    Place { account: ACCOUNT, shard: ShardId(shard), epoch, alias: false }
}

fn step(step: MoveStep) -> Command {
    Command::MoveAccount(MoveAccount { account: ACCOUNT, step })
}

fn refused(shard: &mut Shard, what: Command) -> Refusal {
    match shard.run(what) {
        Outcome::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

fn changes(shard: &Shard) -> u64 {
    match shard.ask(&Query::Moving(ACCOUNT)) {
        Answer::Moving(Some(Moving::Leaving { n_changes, .. })) => n_changes,
        other => panic!("{other:?}"),
    }
}

#[test]
fn nobody_changes_a_frozen_account_and_it_thaws_by_itself() {
    let mut shard = Shard::with_account();
    assert_eq!(shard.run(step(MoveStep::Begin(to(2, 2)))), Outcome::Done);
    assert_eq!(shard.run(step(MoveStep::Begin(to(2, 2)))), Outcome::Done, "a repetition");
    assert_eq!(refused(&mut shard, step(MoveStep::Begin(to(3, 2)))), Refusal::Moving);
    shard.create("a");
    assert_eq!(shard.run(step(MoveStep::Freeze(u64::MAX))), Outcome::Done);
    assert_eq!(refused(&mut shard, create("b")), Refusal::Moving);
    assert_eq!(shard.deliver(&mail("x")), Outcome::Refused(Refusal::Moving));
    assert!(shard.mailbox("a").selectable, "it is still read");
    let other = create_account(OTHER, command::Quota::default());
    assert_eq!(shard.run(other), Outcome::Done, "others are not frozen");
    shard.now_ms += FREEZE_MS_MAX;
    shard.create("b");
    assert_eq!(refused(&mut shard, Command::DeleteAccount(ACCOUNT)), Refusal::Moving);
}

#[test]
fn nothing_that_was_not_copied_stays_behind() {
    let mut shard = Shard::with_account();
    shard.run(step(MoveStep::Begin(to(2, 2))));
    assert_eq!(changes(&shard), 0);
    shard.create("a");
    let copied = changes(&shard);
    assert_eq!(copied, 1);
    shard.deliver(&mail("late"));
    assert_eq!(refused(&mut shard, step(MoveStep::Depart(copied))), Refusal::Moving);
    let copied = changes(&shard);
    let left = shard.apply(step(MoveStep::Depart(copied)), &[]);
    assert_eq!(left.outcome, Outcome::Done);
    assert_eq!(left.changes[0].of.mailbox, MailboxId::EVERY, "who watches is told");
    let moved = Refusal::Moved(to(2, 2));
    assert_eq!(refused(&mut shard, create("b")), moved);
    assert_eq!(shard.ask(&Query::Mailboxes(ACCOUNT)), Answer::Refused(moved.clone()));
    assert_eq!(shard.run(step(MoveStep::Depart(copied))), Outcome::Done, "a repetition");
    // Its rows go at once, and who comes late is still sent on.
    shard.clean();
    let held = shard.chunks.keys().filter(|digest| is_chunk_live(&shard.rows, digest)).count();
    assert_eq!(held, 0);
    assert_eq!(shard.deliver(&mail("later")), Outcome::Refused(moved));
    // Back only with a later epoch.
    assert_eq!(refused(&mut shard, step(MoveStep::Arrive(to(1, 2), 5))), Refusal::Moved(to(2, 2)));
    assert_eq!(shard.run(step(MoveStep::Arrive(to(1, 3), 5))), Outcome::Done);
}

#[test]
fn an_account_on_its_way_is_nowhere_to_be_seen() {
    let mut home = Shard::with_account();
    home.deliver(&mail("x"));
    home.run(step(MoveStep::Begin(to(2, 2))));
    let mut away = Shard::new();
    assert_eq!(away.run(step(MoveStep::Arrive(to(2, 2), 5))), Outcome::Done);
    let Answer::AccountRows(rows, None) = home.ask(&Query::AccountRows(ACCOUNT, None)) else {
        panic!("more than one page");
    };
    let inline: Vec<ChunkRef> = home.log.iter().flat_map(|(_, inline)| inline.clone()).collect();
    let received = away.apply(step(MoveStep::Receive(rows, 5)), &inline).outcome;
    assert_eq!(received, Outcome::Done);
    assert_eq!(refused(&mut away, create("b")), Refusal::Moving);
    assert_eq!(away.ask(&Query::Mailboxes(ACCOUNT)), Answer::Refused(Refusal::Moving));
    assert_eq!(away.ask(&Query::Accounts(None)), Answer::Accounts(vec![], false));
    away.clean();
    assert_eq!(refused(&mut home, step(MoveStep::Arrive(to(1, 3), 5))), Refusal::Moving);
    let copied = changes(&home);
    home.run(step(MoveStep::Depart(copied)));
    let late = step(MoveStep::Settle(to(2, 1)));
    assert_eq!(refused(&mut away, late), Refusal::Moving, "of an earlier journey to here");
    assert_eq!(away.run(step(MoveStep::Settle(to(2, 2)))), Outcome::Housekept { more: false });
    assert_eq!(away.everything("INBOX").len(), 1);
    let again = away.run(step(MoveStep::Settle(to(2, 2))));
    assert_eq!(again, Outcome::Housekept { more: false }, "a repetition");
    away.check();
}

#[test]
fn only_whole_rows_of_the_account_are_received() {
    let mut home = Shard::with_account();
    home.deliver(&mail("x"));
    home.run(step(MoveStep::Begin(to(2, 2))));
    let Answer::AccountRows(rows, _) = home.ask(&Query::AccountRows(ACCOUNT, None)) else {
        panic!("refused");
    };
    let mut away = Shard::new();
    let receive = |rows: &[MovedRow]| step(MoveStep::Receive(rows.to_vec(), 5));
    assert_eq!(refused(&mut away, receive(&rows)), Refusal::NoSuchAccount, "nobody said Arrive");
    away.run(step(MoveStep::Arrive(to(2, 2), 5)));
    assert_eq!(refused(&mut away, receive(&rows)), Refusal::ChunkMissing);
    let late = step(MoveStep::Receive(rows.clone(), 4));
    assert_eq!(refused(&mut away, late), Refusal::Moving, "somebody else moves it now");
    for row in &rows {
        let key = row.key.iter().map(|byte| if *byte == 7 { 9 } else { *byte }).collect();
        let foreign = MovedRow { key, value: row.value.clone() };
        assert!(matches!(refused(&mut away, receive(&[foreign])), Refusal::Limit(_)), "{row:?}");
        let value = row.value.as_ref().map(|value| [&value[..], &[0xff]].concat());
        let damaged = MovedRow { key: row.key.clone(), value };
        assert!(matches!(refused(&mut away, receive(&[damaged])), Refusal::Limit(_)), "{row:?}");
    }
    let session = MovedRow { key: vec![1; 17], value: None };
    assert!(matches!(refused(&mut away, receive(&[session])), Refusal::Limit(_)));
}

#[test]
fn what_is_being_settled_is_received_no_more() {
    let mut home = Shard::with_account();
    let (message, inline) = home.message(&mail("x"));
    // Two rows for each, so that they are not settled at once.
    for n in 0..=255 {
        let (upload, chunks) = (UploadId([n; 16]), message.chunks.clone());
        let piece = Upload { account: ACCOUNT, upload, sequence: 0, chunks, replaces: None };
        assert_eq!(home.apply(Command::Upload(piece), &inline).outcome, Outcome::Done);
    }
    home.run(step(MoveStep::Begin(to(2, 2))));
    // Pieces are put there before their uploads: meanwhile not all invariants hold.
    let mut away = Shard { is_checked_seldom: true, ..Shard::new() };
    away.run(step(MoveStep::Arrive(to(2, 2), 5)));
    let (mut after, mut pages) = (None, Vec::new());
    loop {
        let Answer::AccountRows(rows, next) = home.ask(&Query::AccountRows(ACCOUNT, after)) else {
            panic!("refused");
        };
        let received = away.apply(step(MoveStep::Receive(rows.clone(), 5)), &inline).outcome;
        assert_eq!(received, Outcome::Done);
        pages.push(rows);
        match next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    let copied = changes(&home);
    home.run(step(MoveStep::Depart(copied)));
    let settle = step(MoveStep::Settle(to(2, 2)));
    assert_eq!(away.run(settle.clone()), Outcome::Housekept { more: true });
    for late in &pages {
        let late = away.apply(step(MoveStep::Receive(late.clone(), 5)), &inline).outcome;
        assert_eq!(late, Outcome::Refused(Refusal::Moving));
    }
    assert_eq!(refused(&mut away, step(MoveStep::Arrive(to(2, 2), 6))), Refusal::Moving);
    assert_eq!(refused(&mut away, create("b")), Refusal::Moving, "it is not served yet");
    while away.run(settle.clone()) == (Outcome::Housekept { more: true }) {}
    away.create("b");
    away.check();
    away.clean();
    away.check();
}
