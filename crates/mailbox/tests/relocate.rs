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

/// For the first move.
fn depart(n_changes: u64) -> Command {
    step(MoveStep::Depart(n_changes, Some(to(2, 2))))
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

/// Sends all rows, and gives them back page by page.
fn send_all(home: &Shard, away: &mut Shard, token: u64) -> Vec<Vec<MovedRow>> {
    let inline: Vec<ChunkRef> = home.log.iter().flat_map(|(_, inline)| inline.clone()).collect();
    let (mut after, mut pages) = (None, Vec::new());
    loop {
        let Answer::AccountRows(rows, next) = home.ask(&Query::AccountRows(ACCOUNT, after)) else {
            panic!("refused");
        };
        let received = away.apply(step(MoveStep::Receive(rows.clone(), token)), &inline).outcome;
        assert_eq!(received, Outcome::Done);
        pages.push(rows);
        match next {
            Some(next) => after = Some(next),
            None => return pages,
        }
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
    assert_eq!(refused(&mut shard, depart(copied)), Refusal::Moving);
    let copied = changes(&shard);
    let left = shard.apply(depart(copied), &[]);
    assert_eq!(left.outcome, Outcome::Done);
    assert_eq!(left.changes[0].of.mailbox, MailboxId::EVERY, "who watches is told");
    let moved = Refusal::Moved(to(2, 2));
    assert_eq!(refused(&mut shard, create("b")), moved);
    assert_eq!(shard.ask(&Query::Mailboxes(ACCOUNT)), Answer::Refused(moved.clone()));
    assert_eq!(shard.run(depart(copied)), Outcome::Done, "a repetition");
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
    home.run(depart(copied));
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
    let pages = send_all(&home, &mut away, 5);
    let copied = changes(&home);
    home.run(depart(copied));
    let settle = step(MoveStep::Settle(to(2, 2)));
    assert_eq!(away.run(settle.clone()), Outcome::Housekept { more: true });
    for late in &pages {
        let late = away.apply(step(MoveStep::Receive(late.clone(), 5)), &inline).outcome;
        assert_eq!(late, Outcome::Refused(Refusal::Moving));
    }
    let forget = step(MoveStep::Forget(to(2, 2), ShardId(1)));
    for late in [step(MoveStep::Arrive(to(2, 2), 6)), forget, create("b")] {
        assert_eq!(refused(&mut away, late), Refusal::Moving, "it is not served yet");
    }
    while away.run(settle.clone()) == (Outcome::Housekept { more: true }) {}
    away.create("b");
    away.check();
    away.clean();
    away.check();
}

#[test]
fn who_still_moves_what_was_called_off_comes_to_no_end() {
    let (mut home, mut away) = (Shard::with_account(), Shard::new());
    home.run(step(MoveStep::Begin(to(2, 2))));
    away.run(step(MoveStep::Arrive(to(2, 2), 5)));
    home.deliver(&mail("x"));
    let mut pages = send_all(&home, &mut away, 5);
    let copied = changes(&home);
    home.run(step(MoveStep::Freeze(FREEZE_MS_MAX)));
    assert_eq!(refused(&mut home, step(MoveStep::Stay(to(3, 2)))), Refusal::Moving, "another one");
    for _ in 0..2 {
        assert_eq!(home.run(step(MoveStep::Stay(to(2, 2)))), Outcome::Done);
    }
    home.create("thawed");
    let unnamed = step(MoveStep::Depart(copied, None));
    let begin = step(MoveStep::Begin(to(2, 2)));
    for late in [depart(copied), unnamed, step(MoveStep::Freeze(1)), begin] {
        assert_eq!(refused(&mut home, late), Refusal::NoSuchAccount);
    }
    for _ in 0..2 {
        let forget = step(MoveStep::Forget(to(2, 2), ShardId(1)));
        assert_eq!(away.run(forget), Outcome::Done);
    }
    let receive = MoveStep::Receive(pages.remove(0), 5);
    let arrive = MoveStep::Arrive(to(2, 2), 6);
    for late in [receive, arrive, MoveStep::Settle(to(2, 2))] {
        assert_eq!(refused(&mut away, step(late)), Refusal::Moved(to(1, 2)), "it is at home");
    }
    assert_eq!(home.everything("INBOX").len(), 1);
    assert_eq!(home.run(Command::DeleteAccount(ACCOUNT)), Outcome::Done);
}

#[test]
fn the_next_move_is_not_taken_for_the_one_that_was_called_off() {
    let (mut home, mut away) = (Shard::with_account(), Shard::new());
    home.run(step(MoveStep::Begin(to(2, 2))));
    home.deliver(&mail("x"));
    let copied = changes(&home);
    home.run(step(MoveStep::Stay(to(2, 2))));
    // Before anything came there.
    assert_eq!(away.run(step(MoveStep::Forget(to(2, 2), ShardId(1)))), Outcome::Done);
    let late = step(MoveStep::Arrive(to(2, 2), 5));
    assert_eq!(refused(&mut away, late), Refusal::Moved(to(1, 2)));
    let begin = |shard, epoch| step(MoveStep::Begin(to(shard, epoch)));
    assert_eq!(refused(&mut home, begin(2, 3)), Refusal::Moving, "old notes go first");
    home.clean();
    assert!(!home.rows.keys().any(|key| key[0] == 0x0f), "notes are left");
    assert_eq!(refused(&mut home, begin(3, 2)), Refusal::NoSuchAccount, "that epoch is used up");
    assert_eq!(home.run(begin(2, 3)), Outcome::Done);
    assert_eq!(away.run(step(MoveStep::Arrive(to(2, 3), 6))), Outcome::Done);
    let late = step(MoveStep::Forget(to(2, 2), ShardId(1)));
    assert_eq!(refused(&mut away, late), Refusal::Moving);
    home.deliver(&mail("y"));
    assert_eq!(changes(&home), copied, "as many as were noted for the other one");
    let late = |named| step(MoveStep::Depart(copied, Some(named)));
    assert_eq!(refused(&mut home, late(to(2, 2))), Refusal::NoSuchAccount);
    send_all(&home, &mut away, 6);
    assert_eq!(home.run(late(to(2, 3))), Outcome::Done);
    assert_eq!(refused(&mut home, late(to(2, 2))), Refusal::Moved(to(2, 3)));
    // It departed: who wants to call it off comes late.
    assert_eq!(refused(&mut home, step(MoveStep::Stay(to(2, 3)))), Refusal::Moved(to(2, 3)));
    let settled = away.run(step(MoveStep::Settle(to(2, 3))));
    assert_eq!(settled, Outcome::Housekept { more: false });
    assert_eq!(away.everything("INBOX").len(), 2);
    let late = step(MoveStep::Forget(to(2, 3), ShardId(1)));
    assert_eq!(refused(&mut away, late), Refusal::Taken, "it is served here");
}

#[test]
fn what_came_of_it_is_forgotten_and_nothing_of_others() {
    let (mut home, mut away) = (Shard::with_account(), Shard::new());
    // More chunks than one step takes away.
    home.fill("INBOX", 600);
    let (message, inline) = home.message(&mail("fill 7"));
    away.run(create_account(OTHER, command::Quota::default()));
    let (account, upload) = (OTHER, UploadId([3; 16]));
    let piece = Upload { account, upload, sequence: 0, chunks: message.chunks, replaces: None };
    assert_eq!(away.apply(Command::Upload(piece), &inline).outcome, Outcome::Done);
    home.run(step(MoveStep::Begin(to(2, 2))));
    away.run(step(MoveStep::Arrive(to(2, 2), 5)));
    send_all(&home, &mut away, 5);
    home.run(step(MoveStep::Stay(to(2, 2))));
    away.run(step(MoveStep::Forget(to(2, 2), ShardId(1))));
    let now = LogTime(0);
    let all = command::Housekeep { sessions_before: now, uploads_before: now, purge_before: now };
    while away.housekeep(all.clone()) {
        let arrive = step(MoveStep::Arrive(to(2, 3), 6));
        assert_eq!(refused(&mut away, arrive), Refusal::Moving, "not among what is forgotten");
    }
    let is_ours = |key: &[u8]| key.windows(16).any(|part| part == ACCOUNT.0);
    let left: Vec<_> = away.rows.keys().filter(|key| is_ours(key.as_slice())).collect();
    assert!(matches!(&left[..], [moving] if moving[0] == 0x0e), "{left:?}");
    let held = home.chunks.keys().filter(|digest| is_chunk_live(&away.rows, digest)).count();
    assert_eq!(held, 1, "of the other account");
    assert_eq!(away.run(step(MoveStep::Arrive(to(2, 3), 6))), Outcome::Done);
}
