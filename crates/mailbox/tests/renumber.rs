//! A shard that was forced back gives every mailbox a new, greater UIDVALIDITY, in bounded steps.

mod support;

use std::collections::BTreeMap;

use mailbox::command::{NamedMailbox, OfMailbox, Quota, Renumber};
use mailbox::*;
use support::{Shard, create_account, expunge, mail, r#move, set, uid};

const N_MAILBOXES: usize = 1_100;

fn account(n: u8) -> AccountId {
    AccountId([n; 16])
}

fn name(n: usize) -> MailboxName {
    match n {
        0 => MailboxName::inbox(),
        n => MailboxName::new([format!("m{n}")]).expect("a name"),
    }
}

/// UIDVALIDITY and UIDNEXT of each mailbox.
fn numbers(shard: &Shard) -> BTreeMap<(u8, usize), (UidValidity, Uid)> {
    let mut found = BTreeMap::new();
    for k in 1..=3 {
        for n in 0..N_MAILBOXES {
            let named = NamedMailbox { account: account(k), name: name(n) };
            if let Answer::Mailbox(told) = shard.ask(&Query::Mailbox(named)) {
                found.insert((k, n), (told.uid_validity, told.uid_next));
            }
        }
    }
    found
}

#[test]
fn every_mailbox_gets_a_greater_uidvalidity_of_its_own() {
    let mut shard = Shard::new();
    shard.is_checked_seldom = true;
    for k in 1..=3 {
        assert_eq!(shard.run(create_account(account(k), Quota::default())), Outcome::Done);
    }
    for n in 1..N_MAILBOXES {
        let create = |account| {
            Command::CreateMailbox(command::CreateMailbox {
                account,
                name: name(n),
                special_use: None,
            })
        };
        shard.run(create(account(1)));
        shard.run(create(account(3)));
    }
    let before = numbers(&shard);
    assert_eq!(before.len(), 2 * N_MAILBOXES + 1);
    let mut after: Option<OfMailbox> = None;
    let mut n_steps = 0;
    loop {
        let outcome = shard.alone(Command::Renumber(Renumber { after }));
        let Outcome::Renumbered { next } = outcome else { panic!("{outcome:?}") };
        n_steps += 1;
        after = next;
        if after.is_none() {
            break;
        }
    }
    assert!(n_steps > 1, "the test wants more than one step");
    shard.check();
    let now = numbers(&shard);
    for (key, (validity, uid_next)) in &before {
        let (new, next) = &now[key];
        assert!(new > validity, "{key:?}: {new} is not greater than {validity}");
        assert!(next > uid_next, "{key:?}: {next} is not greater than {uid_next}");
    }
    for k in [1, 3] {
        let mut of_account: Vec<_> =
            now.iter().filter(|((a, _), _)| *a == k).map(|(_, (validity, _))| *validity).collect();
        of_account.sort();
        of_account.dedup();
        assert_eq!(of_account.len(), N_MAILBOXES, "no two share one");
        let greatest = *of_account.last().unwrap();
        let create = command::CreateMailbox {
            account: account(k),
            name: name(N_MAILBOXES),
            special_use: None,
        };
        shard.run(Command::CreateMailbox(create));
        let named = NamedMailbox { account: account(k), name: name(N_MAILBOXES) };
        let Answer::Mailbox(told) = shard.ask(&Query::Mailbox(named)) else { panic!() };
        assert!(told.uid_validity > greatest, "what is created later is greater still");
        // Those that were lost had ids as well.
        assert!(told.of.mailbox.0 > 1 << 32, "{}", told.of.mailbox.0);
    }
}

#[test]
fn a_clock_that_leapt_to_its_end_leaves_room_for_what_comes_later() {
    let mut shard = Shard::with_account();
    shard.create("a");
    shard.create("b");
    let last = shard.mailbox("b").uid_validity;
    shard.now_ms = u64::MAX - 60_000;
    let outcome = shard.alone(Command::Renumber(Renumber { after: None }));
    assert_eq!(outcome, Outcome::Renumbered { next: None });
    shard.create("c");
    let told = ["INBOX", "a", "b", "c"].map(|name| shard.mailbox(name).uid_validity);
    assert!(told[0] > last && told.is_sorted_by(|a, b| a < b), "{told:?} after {last}");
}

#[test]
fn a_uid_that_was_lost_is_no_other_messages_afterwards() {
    let mut shard = Shard::with_account();
    for n in 1..=4 {
        shard.deliver(&mail(&format!("kept {n}")));
    }
    let (of, sent) = (shard.of("INBOX"), shard.of("Sent"));
    shard.run(expunge(of, set(&[2, 4]), false));
    let mut lost = shard.clone();
    lost.deliver(&mail("lost"));
    assert_eq!(lost.uids("INBOX"), set(&[1, 3, 5]));
    // What was forced back does not have it, and gets another one.
    let outcome = shard.alone(Command::Renumber(Renumber { after: None }));
    assert_eq!(outcome, Outcome::Renumbered { next: None });
    assert_eq!(shard.uids("INBOX"), set(&[1, 3]));
    shard.deliver(&mail("new"));
    // A session that has not heard of it yet moves what it knows.
    shard.run(r#move(of, sent, set(&[5])));
    assert_eq!((shard.mailbox("INBOX").n_messages, shard.mailbox("Sent").n_messages), (3, 0));
    let last = shard.everything("INBOX").last().expect("it came").uid;
    assert!(last > uid(1 << 20), "{last}");
}
