//! Where APPEND, COPY and MOVE put messages when they name the mailbox.

mod support;

use mailbox::command::{Append, Copy, Move};
use mailbox::*;
use support::*;

/// The same command, which names its target and says an id that would be wrong.
fn by_name(command: Command, to: &str) -> Command {
    let (wrong, to_name) = (MailboxId(99), Some(name(to)));
    match command {
        Command::Copy(it) => Command::Copy(Copy { to: wrong, to_name, ..it }),
        Command::Move(it) => Command::Move(Move { to: wrong, to_name, ..it }),
        Command::Append(it) => Command::Append(Append { mailbox: wrong, name: to_name, ..it }),
        other => panic!("{other:?} goes nowhere"),
    }
}

/// Copies a message, then moves it, to what has this name now.
fn send(shard: &mut Shard, from: &str, uid: u32, to: &str) -> [Outcome; 2] {
    let of = shard.of(from);
    let copied = shard.run(by_name(copy(of, of, set(&[uid]), uid as u8), to));
    [copied, shard.run(by_name(r#move(of, of, set(&[uid])), to))]
}

#[test]
fn a_name_leads_to_the_mailbox_that_has_it_then() {
    let mut shard = Shard::with_account();
    for text in ["one", "two", "three"] {
        shard.deliver(&mail(text));
    }
    let first = shard.create("a");
    for outcome in send(&mut shard, "INBOX", 1, "a") {
        let Outcome::Copied(copied) = outcome else { panic!("{outcome:?}") };
        assert_eq!(copied.to, Some(first));
    }
    shard.run(rename("a", "b"));
    let second = shard.create("a");
    for outcome in send(&mut shard, "INBOX", 2, "a") {
        let Outcome::Copied(copied) = outcome else { panic!("{outcome:?}") };
        assert_eq!(copied.to, Some(second));
    }
    assert_eq!((shard.uids("b").n_uids(), shard.uids("a").n_uids()), (2, 2));
    let (message, inline) = shard.message(&mail("four"));
    let message = command::AppendMessage { message, flags: Flags::default(), internal_date: None };
    let append = Append {
        account: ACCOUNT,
        mailbox: MailboxId(99),
        messages: vec![message],
        replaces: None,
        name: Some(name("b")),
    };
    let appended = shard.apply(Command::Append(append), &inline).outcome;
    assert!(matches!(&appended, Outcome::Appended(it) if it.mailbox == first), "{appended:?}");
}

#[test]
fn a_name_without_a_mailbox_is_refused_and_nothing_is_done() {
    let mut shard = Shard::with_account();
    shard.deliver(&mail("one"));
    shard.create("a/b");
    shard.run(delete("a"));
    for to in ["a", "nowhere"] {
        for outcome in send(&mut shard, "INBOX", 1, to) {
            assert_eq!(outcome, Outcome::Refused(Refusal::NoSuchMailbox), "{to}");
        }
    }
    assert_eq!(shard.uids("INBOX").n_uids(), 1);
}
