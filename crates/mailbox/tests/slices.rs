//! Commands too large for one entry: each slice is bounded, and together they do the whole.

mod support;

use mailbox::query::{Messages, Query, Vanished};
use mailbox::*;
use support::*;

const N: u32 = 1500;

fn filled() -> Shard {
    let mut shard = Shard::with_account();
    shard.is_checked_seldom = true;
    shard.fill("INBOX", N as usize);
    shard.create("to");
    shard
}

fn all() -> UidSet {
    UidSet::range(uid(1), uid(N))
}

#[test]
fn a_store_of_many_messages_is_sliced() {
    let mut shard = filled();
    let flags = system(SystemFlags::SEEN);
    let of = shard.of("INBOX");
    let outcomes = shard.slices(store(of, UidSet::all(), FlagChange::Add(flags)));
    assert!(outcomes.len() > 1);
    let n_stored: usize = outcomes
        .iter()
        .map(|outcome| match outcome {
            Outcome::Stored(stored) => stored.messages.len(),
            other => panic!("{other:?}"),
        })
        .sum();
    assert_eq!(n_stored, N as usize);
    assert_eq!(shard.mailbox("INBOX").n_unseen, 0);
    shard.check();
}

#[test]
fn a_page_of_messages_with_many_keywords_is_shorter() {
    let mut shard = filled();
    let keyword = |n: usize| Keyword::new(&format!("{n:-<64}")).expect("a keyword");
    let flags = Flags { system: SystemFlags::SEEN, keywords: (0..64).map(keyword).collect() };
    let of = shard.of("INBOX");
    shard.slices(store(of, UidSet::all(), FlagChange::Add(flags)));
    let mut query = list(of);
    let mut n_found = 0;
    loop {
        let answer = shard.ask(&Query::Messages(query.clone()));
        let n_octets = mailbox::codec::encode(&answer).len();
        assert!(n_octets < 4 << 20, "{n_octets} octets");
        let Answer::Messages(records, next) = answer else { panic!("{answer:?}") };
        assert!(!records.is_empty());
        n_found += records.len();
        let Some(next) = next else { break };
        query.uids = query.uids.starting_at(next);
    }
    assert_eq!(n_found, N as usize);
}

#[test]
fn a_copy_of_many_messages_shows_nothing_until_its_last_slice() {
    let mut shard = filled();
    let (from, to) = (shard.of("INBOX"), shard.of("to"));
    let keyword = Keyword::new("$Label").expect("a keyword");
    let flags = Flags { system: SystemFlags::SEEN, keywords: [keyword].into() };
    shard.run(store(from, set(&[3]), FlagChange::Add(flags)));
    let Outcome::Copied(first) = shard.run(copy(from, to, UidSet::all(), 1)) else {
        panic!("refused");
    };
    let next = first.next.expect("more than a slice");
    assert_eq!(shard.mailbox("to").n_messages, 0);
    assert!(shard.uids("to").is_empty());
    shard.check();
    // Somebody else comes first: UIDs are given when the copies appear.
    shard.append("to", &[mail("between")], &Flags::default());
    let rest = UidSet::all().starting_at(next);
    let outcomes = shard.slices(copy(from, to, rest, 1));
    let Some(Outcome::Copied(last)) = outcomes.last() else { panic!("{outcomes:?}") };
    assert_eq!(last.source, all());
    assert_eq!(last.target, UidSet::range(uid(2), uid(N + 1)));
    let info = shard.mailbox("to");
    assert_eq!((info.n_messages, info.n_unseen), (N + 1, N));
    assert_eq!(shard.uids("to"), UidSet::range(uid(1), uid(N + 1)));
    shard.check();
    work_on_an_extent(&mut shard);
    let before = shard.everything("to");
    shard.clean();
    assert_eq!(shard.everything("to"), before, "settling shows nothing");
    shard.check();
}

/// Messages that were copied are messages like others.
fn work_on_an_extent(shard: &mut Shard) {
    let to = shard.of("to");
    let since = shard.mailbox("to").highest_modseq.value();
    let records = shard.everything("to");
    assert_eq!(records.len(), N as usize + 1);
    assert_eq!(records[3].flags.keywords.len(), 1);
    assert!(records.iter().skip(1).all(|record| record.modseq.value() == since));
    let changed = Messages { changed_since: Some(since - 1), ..list(to) };
    assert_eq!(shard.messages(changed).len(), N as usize);
    shard.run(store(to, set(&[5, 900]), FlagChange::Add(system(SystemFlags::DELETED))));
    let changed = Messages { changed_since: Some(since), ..list(to) };
    let uids: UidSet = shard.messages(changed).iter().map(|record| record.uid).collect();
    assert_eq!(uids, set(&[5, 900]));
    let Outcome::Expunged(expunged) = shard.run(expunge(to, UidSet::all(), true)) else {
        panic!("refused");
    };
    assert_eq!(expunged.uids, set(&[5, 900]));
    let inbox = shard.of("INBOX");
    shard.run(r#move(to, inbox, set(&[6, 7])));
    shard.check();
    assert_eq!(shard.uids("to").n_uids(), u64::from(N) - 3);
}

#[test]
fn a_copy_that_is_given_up_leaves_nothing_and_takes_no_late_slice() {
    let mut shard = filled();
    let (from, to) = (shard.of("INBOX"), shard.of("to"));
    let Outcome::Copied(first) = shard.run(copy(from, to, UidSet::all(), 1)) else {
        panic!("refused");
    };
    shard.clean();
    let rest = UidSet::all().starting_at(first.next.expect("more than a slice"));
    let late = shard.run(copy(from, to, rest.clone(), 1));
    assert_eq!(late, Outcome::Refused(Refusal::UploadGap));
    // Nor when nothing remembers it any more: the last few messages are not all of them.
    shard.clean();
    let last = UidSet::range(Uid::new(N).unwrap(), Uid::LAST);
    let Command::Copy(tail) = copy(from, to, last, 1) else { panic!("no copy") };
    let late = shard.run(Command::Copy(command::Copy { further: true, ..tail }));
    assert_eq!(late, Outcome::Refused(Refusal::UploadGap));
    assert_eq!(shard.mailbox("to").n_messages, 0);
    shard.check();
}

#[test]
fn a_copy_over_quota_is_refused_whole() {
    let mut shard = filled();
    let quota = command::Quota { storage_bytes: None, n_messages: Some(u64::from(N) + 700) };
    let change = command::AccountChange::Quota(quota);
    shard.run(Command::ChangeAccount(command::ChangeAccount { account: ACCOUNT, change }));
    let (from, to) = (shard.of("INBOX"), shard.of("to"));
    let outcomes = shard.slices(copy(from, to, UidSet::all(), 1));
    assert_eq!(outcomes.last(), Some(&Outcome::Refused(Refusal::OverQuota)));
    assert_eq!(shard.mailbox("to").n_messages, 0);
    shard.clean();
    shard.check();
}

#[test]
fn a_move_of_many_messages_loses_and_doubles_none_between_slices() {
    let mut shard = filled();
    let (from, to) = (shard.of("INBOX"), shard.of("to"));
    let mut uids = UidSet::all();
    let mut n_slices = 0;
    loop {
        let Outcome::Copied(copied) = shard.run(r#move(from, to, uids.clone())) else {
            panic!("refused");
        };
        n_slices += 1;
        let n = shard.mailbox("INBOX").n_messages + shard.mailbox("to").n_messages;
        assert_eq!(n, N);
        assert_eq!(copied.source.n_uids(), copied.target.n_uids());
        match copied.next {
            Some(next) => uids = uids.starting_at(next),
            None => break,
        }
    }
    assert!(n_slices > 1);
    assert_eq!(shard.uids("to"), all());
    let vanished = Vanished { of: from, since: 0, known: UidSet::all(), uid_validity: None };
    assert_eq!(shard.ask(&Query::Vanished(vanished)), Answer::Vanished(all()));
    shard.check();
}

#[test]
fn renaming_inbox_moves_all_messages_and_leaves_its_children() {
    let mut shard = filled();
    shard.create("INBOX/child");
    let outcomes = shard.slices(rename("INBOX", "old/mail"));
    assert!(outcomes.len() > 1);
    assert_eq!(shard.mailbox("INBOX").n_messages, 0);
    assert_eq!(shard.mailbox("old/mail").n_messages, N);
    assert!(shard.mailbox("INBOX").has_children);
    shard.check();
}

#[test]
fn expunged_messages_are_hidden_at_once_and_purged_later() {
    let mut shard = filled();
    let of = shard.of("INBOX");
    let body = shard.everything("INBOX")[0].email_id;
    let outcomes = shard.slices(expunge(of, all(), false));
    assert!(outcomes.len() > 1);
    assert!(shard.uids("INBOX").is_empty());
    let expunged = Messages { expunged: true, chunks: true, ..list(of) };
    let gone = shard.messages(expunged.clone());
    assert_eq!(gone.len(), N as usize);
    assert!(gone[0].expunged && gone[0].email_id == body && gone[0].body.is_some());
    let digest = gone[0].body.as_ref().expect("asked for").chunks[0].digest;
    assert!(is_chunk_live(&shard.rows, &digest));
    shard.check();
    assert!(shard.clean() > 1, "in bounded steps");
    assert!(!is_chunk_live(&shard.rows, &digest));
    assert!(shard.messages(expunged).is_empty());
    // The log went too; what is absent is still told.
    let vanished =
        Vanished { of, since: 0, known: UidSet::range(uid(1), uid(9)), uid_validity: None };
    let told = Answer::Vanished(UidSet::range(uid(1), uid(9)));
    assert_eq!(shard.ask(&Query::Vanished(vanished)), told);
    shard.check();
}

#[test]
fn a_deleted_mailbox_is_gone_at_once_and_reclaimed_in_steps() {
    let mut shard = filled();
    let of = shard.of("INBOX");
    shard.slices(r#move(of, shard.of("to"), UidSet::all()));
    shard.clean();
    let n_rows = shard.rows.len();
    assert_eq!(shard.run(delete("to")), Outcome::Done);
    assert!(shard.rows.len() <= n_rows + 3, "O(1)");
    shard.check();
    assert!(shard.clean() > 1, "in bounded steps");
    assert!(shard.chunks.keys().all(|digest| !is_chunk_live(&shard.rows, digest)));
    shard.check();
}

/// Rows, and how many of them were looked at.
struct Counted<'s> {
    rows: &'s Shard,
    n_rows: std::cell::Cell<usize>,
}

impl Source for Counted<'_> {
    fn row(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.n_rows.set(self.n_rows.get() + 1);
        self.rows.rows.row(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) {
        self.rows.rows.scan(from, to, &mut |key, value| {
            self.n_rows.set(self.n_rows.get() + 1);
            visit(key, value)
        });
    }
}

#[test]
fn a_slice_looks_at_few_more_rows_than_it_changes() {
    let mut shard = filled();
    let (of, to) = (shard.of("INBOX"), shard.of("to"));
    // Where the messages lie in an extent, and where each has a row of its own.
    shard.slices(copy(of, to, all(), 1));
    for of in [to, of] {
        let flags = FlagChange::Add(system(SystemFlags::DELETED));
        let commands = [
            store(of, all(), flags),
            copy(of, shard.of("INBOX"), all(), 2),
            r#move(of, shard.of("INBOX"), all()),
            expunge(of, all(), false),
        ];
        for command in commands {
            let request = shard.request(command.clone());
            let entry = Entry { time: LogTime(shard.now_ms), request };
            let counted = Counted { rows: &shard, n_rows: Default::default() };
            let mut rows = Rows::new(&counted, shard.digest);
            apply(&mut rows, &entry, &[]);
            let (n_looked_at, n_writes) = (counted.n_rows.get(), rows.n_writes());
            assert!(n_writes > 200, "{n_writes} rows changed by {command:?}");
            // Why so many in a test: what is not looked at there is looked at to see that it is right.
            let n_max = 4 * n_writes;
            assert!(n_looked_at < n_max, "{n_looked_at} for {n_writes} by {command:?}");
        }
    }
}

#[test]
fn a_copy_is_settled_while_much_is_to_be_purged() {
    let mut shard = filled();
    let (from, to) = (shard.of("INBOX"), shard.of("to"));
    shard.slices(copy(from, to, all(), 1));
    shard.slices(expunge(from, all(), false));
    // Keys as `mailbox` writes them: of an account, then the table.
    let n_rows = |shard: &Shard, table: u8| {
        let is_of = |key: &&Vec<u8>| key[0] == 8 && key.get(17) == Some(&table);
        shard.rows.keys().filter(is_of).count()
    };
    let (staged, gone) = (0x0d, 0x0a);
    let before = [n_rows(&shard, staged), n_rows(&shard, gone)];
    assert!(before.iter().all(|n| *n > 500), "much is to be done: {before:?}");
    shard.now_ms += 1;
    let now = LogTime(shard.now_ms);
    let all = command::Housekeep {
        sessions_before: LogTime(0),
        uploads_before: LogTime(0),
        purge_before: now,
    };
    assert!(shard.housekeep(all));
    let after = [n_rows(&shard, staged), n_rows(&shard, gone)];
    assert!(after[0] < before[0] && after[1] < before[1], "{before:?} {after:?}");
    shard.clean();
    assert_eq!([n_rows(&shard, staged), n_rows(&shard, gone)], [0, 0]);
    shard.check();
}

#[test]
fn a_renamed_inbox_goes_whole_into_the_mailbox_that_was_made_for_it() {
    let mut shard = filled();
    let further = |outcome: Outcome| {
        let Outcome::Copied(copied) = outcome else { panic!("{outcome:?}") };
        assert!(copied.next.is_some(), "more than a slice");
        let Command::RenameMailbox(first) = rename("INBOX", "old") else { panic!("no rename") };
        let into = Some(copied.to.expect("where they went"));
        Command::RenameMailbox(command::RenameMailbox { further: true, into, ..first })
    };
    let rest = further(shard.run(rename("INBOX", "old")));
    // Somebody else gives it another name, and its own to another mailbox.
    shard.run(rename("old", "older"));
    shard.create("old");
    shard.slices(rest);
    assert_eq!(shard.mailbox("older").n_messages, N);
    assert_eq!(shard.mailbox("old").n_messages, 0);
    assert_eq!(shard.mailbox("INBOX").n_messages, 0);
    // Where it is deleted nothing goes into the other one either.
    shard.fill("INBOX", 200);
    shard.run(delete("old"));
    let rest = further(shard.run(rename("INBOX", "old")));
    shard.run(delete("old"));
    shard.create("old");
    assert_eq!(shard.run(rest), Outcome::Refused(Refusal::NoSuchMailbox));
    assert_eq!(shard.mailbox("old").n_messages, 0);
    shard.check();
}
