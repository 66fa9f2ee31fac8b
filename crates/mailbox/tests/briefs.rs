//! Briefs that a source keeps change no answer, whatever happens to the messages.

mod support;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use mailbox::query::{Messages, Query, Search, Thread, ThreadBy};
use mailbox::*;
use support::*;

type Stored = BTreeMap<Vec<u8>, Vec<u8>>;

/// A source that keeps all briefs as long as nothing they were made of changes.
#[derive(Default)]
struct Keeping {
    rows: Stored,
    briefs: RefCell<HashMap<Block, Bytes>>,
    n_found: Cell<usize>,
    n_made: Cell<usize>,
}

impl Keeping {
    fn follow(&mut self, rows: &Stored) {
        let is_in = |there: &Stored, (key, value)| there.get(key) == Some(value);
        let gone = self.rows.iter().filter(|row| !is_in(rows, *row));
        let came = rows.iter().filter(|row| !is_in(&self.rows, *row));
        for block in gone.chain(came).filter_map(|(key, _)| Block::changed_by(key)).flatten() {
            self.briefs.get_mut().remove(&block);
        }
        self.rows.clone_from(rows);
    }
}

impl Source for Keeping {
    fn row(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.rows.row(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) {
        self.rows.scan(from, to, visit);
    }

    fn briefs(&self, block: &Block) -> Option<Bytes> {
        let found = self.briefs.borrow().get(block).cloned();
        self.n_found.set(self.n_found.get() + usize::from(found.is_some()));
        found
    }

    fn keep_briefs(&self, block: &Block, briefs: &Bytes) {
        self.n_made.set(self.n_made.get() + 1);
        self.briefs.borrow_mut().insert(*block, briefs.clone());
    }
}

/// Of every kind of header that is told apart; those of a hundred addresses are too long for a brief, and
/// those of three thousand, and a thousand parts, for a row.
fn letter(n: usize) -> Vec<u8> {
    if n % 250 == 67 {
        let parts = "--b\r\nContent-Description: a part\r\n\r\nx\r\n".repeat(1000);
        let header = "Subject: parts\r\nContent-Type: multipart/mixed; boundary=b";
        return format!("{header}\r\n\r\n{parts}--b--\r\n").into_bytes();
    }
    let (before, sender) = (n.saturating_sub(3), n % 7);
    let header = match n % 9 {
        0 => String::new(),
        1 => format!("Subject: =?utf-8?Q?Gr=C3=BC=C3=9Fe_{sender}?=\r\n"),
        2 => format!("From: J\u{dc}RGEN <s{sender}@example.test>\r\nSubject: Re: plain\r\n"),
        3 => format!("From: a <s{sender}@example.test>, b\r\nCc: c@example.test\r\n"),
        4 => format!("To: d@example.test\r\nBcc: e{sender}@example.test\r\nSubject:\r\n"),
        5 => format!("Message-ID: <{n}@x>\r\nReferences: <{before}@x> <1@x>\r\n"),
        6 => format!("Message-ID: <{n}@x>\r\nIn-Reply-To: <{before}@x>\r\nSubject: Re: plain\r\n"),
        7 => format!("Message-ID: <{n}@x>\r\nSubject: {}\r\n", "long ".repeat(20 * sender)),
        _ if n.is_multiple_of(8) => many(3000),
        _ if n.is_multiple_of(4) => many(100),
        _ => "Subject: plain\r\nFrom: \r\n".into(),
    };
    format!("{header}X: {n}\r\n\r\ntext\r\n").into_bytes()
}

fn many(n_addresses: usize) -> String {
    let all: Vec<String> = (0..n_addresses).map(|n| format!("r{n}@example.test")).collect();
    format!("To: {}\r\nFrom: s1@example.test\r\n", all.join(",\r\n "))
}

fn queries(of: command::OfMailbox) -> Vec<Query> {
    let fields = ["from", "subject", "to", "cc", "bcc", "message-id"];
    let texts = ["", "s1@", "GRÜSSE 2", "jürgen", "r99@example.test", "5"];
    let keys = fields.iter().flat_map(|field| {
        texts.iter().map(|text| SearchKey::Header((*field).into(), (*text).into()))
    });
    let among = UidSet::all;
    let searches = keys.map(|key| Query::Search(Search { of, among: among(), key }));
    let threads = [ThreadBy::References, ThreadBy::OrderedSubject]
        .map(|by| Query::Thread(Thread { of, uids: among(), by, from: 0, as_of: None }));
    // Why from several on: a page ends behind a message whose row has an excerpt only.
    let listings = [1, 40, 90, 150].map(|first| {
        let uids = UidSet::range(uid(first), Uid::LAST);
        Query::Messages(Messages { uids, metadata: true, only_envelope: true, ..list(of) })
    });
    searches.chain(threads).chain(listings).collect()
}

fn check(shard: &Shard, keeping: &mut Keeping, names: &[&str]) {
    keeping.follow(&shard.rows);
    for query in names.iter().flat_map(|name| queries(shard.of(name))) {
        let wanted = shard.ask(&query);
        for _ in 0..2 {
            assert_eq!(answer(keeping, shard, &query), wanted, "{query:?}");
        }
    }
}

#[test]
fn what_is_kept_changes_no_answer() {
    let mut shard = Shard::with_account();
    shard.is_checked_seldom = true;
    let mut keeping = Keeping::default();
    for n in 0..300 {
        assert!(matches!(shard.deliver(&letter(n)), Outcome::Appended(_)));
    }
    check(&shard, &mut keeping, &["INBOX"]);
    let (inbox, sent) = (shard.of("INBOX"), shard.of("Sent"));
    let some: UidSet = (20..280).filter(|n| n % 11 > 1).map(uid).collect();
    shard.slices(copy(inbox, sent, some.clone(), 1));
    shard.slices(expunge(inbox, some, false));
    for n in 300..400 {
        shard.deliver(&letter(n));
    }
    check(&shard, &mut keeping, &["INBOX", "Sent"]);
    // Of some contents the last message goes.
    let rest: UidSet = (30..350).filter(|n| n % 3 > 0).map(uid).collect();
    shard.slices(expunge(inbox, rest.clone(), false));
    shard.slices(expunge(sent, rest, false));
    shard.clean();
    keeping.n_found.set(0);
    check(&shard, &mut keeping, &["INBOX", "Sent"]);
    assert!(keeping.n_found.get() > 100, "what was kept was found {:?} times", keeping.n_found);
}

/// The first search after a mailbox was filled makes what was not prepared, and no more.
#[test]
fn what_was_prepared_is_not_made_again() {
    let mut shard = Shard::with_account();
    shard.is_checked_seldom = true;
    for n in 0..300 {
        shard.deliver(&letter(n));
    }
    let mut keeping = Keeping::default();
    keeping.follow(&shard.rows);
    let came = shard.rows.iter().map(|(key, row)| (key.clone(), Some(row.clone()))).collect();
    let blocks = Block::completed_by(&came);
    assert_eq!(blocks.len(), 2, "the last of three is not complete");
    for block in blocks.iter().chain(&blocks) {
        prepare(&keeping, block);
    }
    assert_eq!(keeping.n_made.get(), 4, "for searches and for threads, once");
    let of = shard.of("INBOX");
    let from = SearchKey::Header("from".into(), "s1@".into());
    let search = Query::Search(Search { of, among: UidSet::all(), key: from });
    let by = ThreadBy::References;
    let uids = UidSet::all();
    let thread = Query::Thread(Thread { of, uids, by, from: 0, as_of: None });
    for (query, n_made) in [(search, 5), (thread, 6)] {
        assert_eq!(answer(&keeping, &shard, &query), shard.ask(&query));
        assert_eq!(keeping.n_made.get(), n_made, "the last block alone");
    }
    check(&shard, &mut keeping, &["INBOX"]);
}

/// What is told of a content comes from its own row also when briefs lack it or have others.
#[test]
fn briefs_of_before_are_no_harm() {
    let mut shard = Shard::with_account();
    shard.is_checked_seldom = true;
    let mut keeping = Keeping::default();
    for n in 0..100 {
        shard.deliver(&letter(n));
    }
    check(&shard, &mut keeping, &["INBOX"]);
    for n in 100..120 {
        shard.deliver(&letter(n));
    }
    keeping.rows.clone_from(&shard.rows);
    check(&shard, &mut keeping, &["INBOX"]);
}
