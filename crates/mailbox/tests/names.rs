//! What commands on names cost, and how much of them there may be.

mod support;

use std::cell::Cell;

use mailbox::command::{CreateAccount, Quota, Subscribe};
use mailbox::query::Query;
use mailbox::*;
use support::*;

/// Rows, how often they were looked into, and how many of them were passed by.
struct Counted<'s>(&'s Shard, Cell<usize>, Cell<usize>);

impl Source for Counted<'_> {
    fn row(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.1.set(self.1.get() + 1);
        self.0.rows.row(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) {
        self.1.set(self.1.get() + 1);
        self.0.rows.scan(from, to, &mut |key, value| {
            self.2.set(self.2.get() + 1);
            visit(key, value)
        });
    }
}

/// How often a command looks into rows, how many it passes by, and what comes of it; it is not done.
fn cost(shard: &Shard, command: Command) -> (usize, usize, Outcome) {
    let request = shard.clone().request(command);
    let counted = Counted(shard, Cell::new(0), Cell::new(0));
    let mut rows = Rows::new(&counted, shard.digest);
    let applied = apply(&mut rows, &Entry { time: LogTime(shard.now_ms), request }, &[]);
    (counted.1.get(), counted.2.get(), applied.outcome)
}

fn looks(shard: &Shard, command: Command) -> (usize, Outcome) {
    let (n_looks, _, outcome) = cost(shard, command);
    (n_looks, outcome)
}

#[test]
fn a_rename_does_not_look_at_each_name_below() {
    let mut shard = Shard::with_account();
    shard.is_checked_seldom = true;
    for n in 0..1_000 {
        shard.create(&format!("a/b/{n}"));
    }
    for to in ["c", "a1", "c/d/e"] {
        let (n_looks, outcome) = looks(&shard, rename("a", to));
        assert_eq!(outcome, Outcome::Done);
        assert!(n_looks < 100, "{to}: {n_looks} looks");
    }
    // What gets shorter and no deeper fits, so it is not even passed by.
    let (_, n_passed, outcome) = cost(&shard, rename("a/b", "b"));
    assert_eq!(outcome, Outcome::Done);
    assert!(n_passed < 100, "{n_passed} rows");
    // Three levels fit below 29 others, and not below 30.
    for (n_levels, is_done) in [(30, true), (31, false)] {
        let to: Vec<String> = (0..n_levels).map(|n| format!("x{n}")).collect();
        let (_, outcome) = looks(&shard, rename("a", &to.join("/")));
        assert_eq!(outcome == Outcome::Done, is_done, "{outcome:?}");
    }
}

/// So many levels, as long as they may be.
fn long(first: &str, n_levels: usize) -> String {
    let level = "x".repeat(255);
    let levels = std::iter::once(first).chain(std::iter::repeat_n(level.as_str(), n_levels - 1));
    levels.collect::<Vec<_>>().join("/")
}

fn subscribe(text: &str) -> Command {
    Command::Subscribe(Subscribe { account: ACCOUNT, name: name(text), on: true })
}

#[test]
fn long_names_come_to_an_end_before_an_answer_does() {
    let mut shard = Shard::with_account();
    shard.is_checked_seldom = true;
    for n in 0..500 {
        shard.create(&format!("s/{n}"));
    }
    let limit = |outcome| matches!(outcome, Outcome::Refused(Refusal::Limit(_)));
    let nth = |n: u32| long(&n.to_string(), 32);
    let created = (0..100).take_while(|n| !limit(shard.run(create(&nth(*n))))).count();
    let subscribed = (0..1_000).take_while(|n| !limit(shard.run(subscribe(&nth(*n))))).count();
    // A mailbox has 31 names above it, of 124 KiB together; a subscription has none.
    assert_eq!((created, subscribed), (24, 396));
    let answer = codec::encode(&shard.ask(&Query::Mailboxes(ACCOUNT)));
    assert!(answer.len() < 7 << 20, "{} octets", answer.len());
    // Names get longer by what lies above them, too.
    assert!(limit(shard.run(rename("s", &long("t", 2)))));
    assert!(limit(shard.run(rename("INBOX", &long("in", 32)))));
    for command in [create("short"), rename("s", "t"), rename("1", "z"), subscribe("short")] {
        assert!(!limit(shard.run(command)));
    }
    for n_levels in (1..=32).rev() {
        shard.run(delete(&long("2", n_levels)));
    }
    assert!(!limit(shard.run(rename("INBOX", &long("in", 32)))));
    shard.check();
}

#[test]
fn names_that_are_too_many_octets_are_refused_without_a_look_at_all_others() {
    let mut shard = Shard::with_account();
    shard.is_checked_seldom = true;
    for n in 0..500 {
        shard.create(&format!("s/{n}"));
        shard.run(subscribe(&format!("s/{n}")));
    }
    let limit = |outcome: &Outcome| matches!(outcome, Outcome::Refused(Refusal::Limit(_)));
    let nth = |n: u32| long(&n.to_string(), 32);
    for command in [create as fn(&str) -> Command, subscribe] {
        let last = (0..1_000).find(|n| limit(&shard.run(command(&nth(*n)))));
        let refused = nth(last.expect("it comes to an end"));
        let (n_looks, n_passed, outcome) = cost(&shard, command(&refused));
        assert!(limit(&outcome), "{outcome:?}");
        assert!(n_looks < 100 && n_passed < 100, "{n_looks} looks, {n_passed} rows");
    }
    shard.check();
    // Each way in which names come and go is counted.
    let unsubscribed = Subscribe { account: ACCOUNT, name: name(&nth(3)), on: false };
    for command in [
        delete(&nth(2)),
        Command::Subscribe(unsubscribed),
        subscribe("short"),
        create("a/b/c"),
        rename("a/b/c", "longer/and/deeper"),
        rename("s", "much longer"),
        rename("1", "10000"),
        rename("10000", "1"),
        delete("longer/and/deeper"),
    ] {
        let outcome = shard.run(command.clone());
        assert!(!matches!(outcome, Outcome::Refused(_)), "{command:?}: {outcome:?}");
        shard.check();
    }
}

/// Counters of an account as an earlier version wrote them.
#[derive(minicbor::Encode, minicbor::Decode)]
struct EarlierUsage {
    #[n(0)]
    modseq: u64,
    #[n(1)]
    mailbox: u64,
    #[n(2)]
    node: u64,
    #[n(3)]
    email: u64,
    #[n(4)]
    thread: u64,
    #[n(5)]
    storage_bytes: u64,
    #[n(6)]
    n_messages: u64,
    #[n(7)]
    n_nodes: u32,
    #[n(8)]
    n_subscriptions: u32,
}

/// The account is one in which nobody has counted octets of names.
fn make_earlier(shard: &mut Shard) {
    let key = [&[0x08_u8][..], &ACCOUNT.0, &[0x01]].concat();
    let now = shard.rows[&key].clone();
    let usage: EarlierUsage = codec::decode(&now).expect("counters");
    let earlier = codec::encode(&usage);
    assert!(earlier.len() < now.len(), "they were counted");
    shard.digest.subtract(&key, &now);
    shard.digest.add(&key, &earlier);
    shard.rows.insert(key, earlier);
}

#[test]
fn names_that_were_not_counted_are_counted_right_when_one_gets_shorter_and_its_parents_come() {
    let mut shard = Shard::with_account();
    let part = |letter: &str| letter.repeat(255);
    let from = ["a", "b", "c"].map(part).join("/");
    shard.create(&format!("{from}/x"));
    make_earlier(&mut shard);
    let to = format!("{}/{}/f", part("d"), part("e"));
    assert_eq!(shard.run(rename(&from, &to)), Outcome::Done);
    shard.check();
}

#[test]
fn an_account_does_not_begin_with_long_names() {
    let mut shard = Shard::new();
    let mut create = |text: &str| {
        shard.run(Command::CreateAccount(CreateAccount {
            account: ACCOUNT,
            name: address("ann@example.test"),
            password_hash: "$x$".into(),
            quota: Quota::default(),
            subscribe: Some(true),
            mailboxes: vec![(name(text), None)],
        }))
    };
    assert!(matches!(create(&long("a", 32)), Outcome::Refused(Refusal::Limit(_))));
    assert_eq!(create("a"), Outcome::Done);
}

#[test]
fn keywords_are_told_of_one_mailbox_and_not_of_all() {
    let mut shard = Shard::with_account();
    let keyword = Keyword::new("$Work").expect("a keyword");
    let flags = Flags { keywords: [keyword.clone()].into(), ..Flags::default() };
    shard.append("INBOX", &[mail("one")], &flags);
    assert_eq!(shard.mailbox("INBOX").keywords, [keyword]);
    let Answer::Mailboxes(infos, _) = shard.ask(&Query::Mailboxes(ACCOUNT)) else {
        panic!("refused");
    };
    assert!(infos.iter().all(|info| info.keywords.is_empty()));
}
