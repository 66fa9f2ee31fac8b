//! Lines full of one thing: a command costs what the things it names cost, not how often it names them.
//! One test, since it counts the whole process.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use mailbox::command::{CreateMailbox, Expunge};
use mailbox::dialogue::Engine;
use mailbox::{Command, Flags, MailboxName, Uid, UidSet};
use support::{ACCOUNT, Client, Event, Store, config};

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged; only sizes are counted.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Octets that one command may take, of session and store together: the line several times over.
const MEMORY_MAX: usize = 8 << 20;
/// Octets that may gather before they are sent: what is sent at once, and the longest item behind it.
const SENT_AT_ONCE_MAX: usize = 64 * 1024;
/// Octets of a line: somewhat less than the longest.
const LINE: usize = 60_000;

/// Messages of which every second one is gone.
const N_MESSAGES: usize = 2_000;
const N_MAILBOXES: usize = 3_000;
/// Of the one message in the mailbox `parts`. That in `head` is all header, more than a command may take.
const N_PARTS: usize = 900;

/// As often as fits into a line: `head`, `word word word`, `tail`.
fn full(head: &str, word: &str, between: &str, tail: &str) -> String {
    let n = (LINE - head.len() - tail.len()) / (word.len() + between.len());
    format!("{head}{}{tail}", vec![word; n].join(between))
}

/// ORs of so many keys, as deep as they have to be.
fn any_of(key: &str, n: usize) -> String {
    match n {
        1 => key.into(),
        n => format!("OR {} {}", any_of(key, n / 2), any_of(key, n - n / 2)),
    }
}

fn store() -> Store {
    let mut store = Store::new();
    let message = |n: usize| format!("Subject: {n}\r\n\r\n").into_bytes();
    for first in (0..N_MESSAGES).step_by(100) {
        let raws: Vec<Vec<u8>> = (first..first + 100).map(message).collect();
        store.append("INBOX", &raws, &Flags::default());
    }
    let mailbox = store.of("INBOX").mailbox;
    let odd = |some: &[u32]| some.iter().copied().filter_map(Uid::new).collect::<UidSet>();
    let numbers: Vec<u32> = (1..=N_MESSAGES as u32).step_by(2).collect();
    for some in numbers.chunks(100) {
        let expunge = Expunge { account: ACCOUNT, mailbox, uids: odd(some), only_deleted: false };
        store.apply(Command::Expunge(expunge), &[]);
    }
    let mut names: Vec<String> = (0..N_MAILBOXES).map(|n| format!("a/b{n}")).collect();
    names.push("parts".into());
    names.push("head".into());
    for text in names {
        let name = MailboxName::parse(&text, '/').expect("a name");
        let create = CreateMailbox { account: ACCOUNT, name, special_use: None };
        store.apply(Command::CreateMailbox(create), &[]);
    }
    let head = "Content-Type: multipart/mixed; boundary=b\r\nX-Long: ";
    let (long, parts) = ("x".repeat(70_000), "--b\r\n\r\nx\r\n".repeat(N_PARTS));
    let raw = format!("{head}{long}\r\n\r\n{parts}--b--\r\n");
    // As a frontend cuts.
    store.chunk_bytes = 256 * 1024;
    store.append("parts", &[raw.into_bytes()], &Flags::default());
    let line = format!("X-Long: {}\r\n", "x".repeat(1000));
    let raw = format!("Subject: x\r\n{}\r\n", line.repeat(9 * MEMORY_MAX / 8 / line.len()));
    store.append("head", &[raw.into_bytes()], &Flags::default());
    store.changes.clear();
    store
}

/// Gives a command; the most memory it took, the octets that were sent at once, and how it ended.
fn give(client: &mut Client, store: &mut Store, line: &str) -> (usize, Vec<usize>, String) {
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let (mut sent, mut last) = (Vec::new(), Bytes::new());
    client.session.receive(format!("t {line}\r\n").as_bytes());
    client.run(store, &mut |event| {
        if let Event::Sent(octets) = event {
            sent.push(octets.len());
            last = octets;
        }
    });
    let peak = PEAK.load(Ordering::Relaxed).saturating_sub(before);
    let end = String::from_utf8_lossy(&last);
    let end = end.lines().last().unwrap_or_default().to_owned();
    (peak, sent, end)
}

#[test]
fn a_line_full_of_one_thing_costs_little() {
    let mut store = store();
    let mut client = Client::new(config());
    client.say(&mut store, b"a LOGIN ann@example.test secret\r\n");
    let no = "t NO [LIMIT]";
    let id = "HEADER MESSAGE-ID <1@x>";
    let ids = format!("{id} ").repeat(199);
    for (what, mailbox, line, wanted) in [
        ("sort criteria", "INBOX", full("SORT (", "SIZE", " ", ") UTF-8 ALL"), "t OK"),
        ("items", "parts", full("FETCH 1 (", "BODY", " ", ")"), "t OK"),
        ("long items", "parts", "FETCH 1 (BODY BODYSTRUCTURE)".into(), "t OK"),
        ("sections", "parts", full("FETCH 1 (", "BINARY.SIZE[]", " ", ")"), no),
        ("ranges", "INBOX", full("FETCH ", "1:*", ",", " (UID)"), "t OK"),
        ("ranges to copy", "INBOX", full("COPY ", "1:*", ",", " parts"), "t OK"),
        ("a long header", "head", "FETCH 1 (BODY[HEADER.FIELDS (SUBJECT)])".into(), "t OK"),
        ("field names", "parts", full("FETCH 1 (BODY[HEADER.FIELDS (", "a", " ", ")])"), no),
        ("search keys", "INBOX", full("SEARCH ", "SEEN", " ", ""), no),
        ("sets", "INBOX", full("SEARCH ", "1:*", " ", ""), no),
        ("texts", "INBOX", format!("SEARCH {}", ["NOT TEXT x"; 33].join(" ")), no),
        ("as many sets as may be", "INBOX", format!("SEARCH {}", ["1:*"; 500].join(" ")), "t OK"),
        ("words", "INBOX", format!("SEARCH {}", ["NOT TEXT x"; 32].join(" ")), "t OK"),
        (
            "a chain of ids",
            "INBOX",
            format!("SEARCH {}{id}", format!("OR {id} ").repeat(199)),
            "t OK",
        ),
        ("ORs before ids", "INBOX", format!("SEARCH {}{ids}{id}", "OR ".repeat(199)), "t OK"),
        ("ids", "INBOX", format!("SEARCH {}", any_of(id, 200)), "t OK"),
        ("patterns", "INBOX", full("LIST \"\" (", "*", " ", ")"), "t OK"),
        ("wildcards", "INBOX", format!("LIST \"\" {}", "*b".repeat(7_000)), "t OK"),
        ("a long pattern", "INBOX", full("LIST \"\" ", "a", "", ""), "t OK"),
        ("a long pattern of LSUB", "INBOX", full("LSUB \"\" ", "a", "", ""), "t OK"),
        (
            "status items",
            "INBOX",
            full("LIST \"\" * RETURN (STATUS (", "UNSEEN", " ", "))"),
            "t OK",
        ),
        ("mailboxes", "INBOX", "LIST \"\" *".into(), "t OK"),
    ] {
        client.say(&mut store, format!("b SELECT {mailbox}\r\n").as_bytes());
        let (peak, sent, end) = give(&mut client, &mut store, &line);
        let largest = sent.iter().copied().max().unwrap_or(0);
        println!("{what}: {} KiB, {largest} octets at once, {end:.40}", peak / 1024);
        assert!(end.starts_with(wanted), "{what}: {end}");
        assert!(peak < MEMORY_MAX, "{what}: {peak} octets of memory");
        assert!(largest < SENT_AT_ONCE_MAX, "{what}: {largest} octets at once");
    }
    // A header of more than 64 KiB is looked through no more than once before others have a turn.
    client.say(&mut store, b"b SELECT parts\r\n");
    let line = format!("FETCH 1 ({})", ["BODY[HEADER.FIELDS (Y)]"; 100].join(" "));
    let (_, sent, end) = give(&mut client, &mut store, &line);
    assert!(end.starts_with("t OK") && sent.len() >= 100, "{} times sent, {end}", sent.len());
}
