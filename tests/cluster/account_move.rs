//! An account goes to another shard and back while clients use it: none of them sees an error, and
//! nothing of it is other than it was.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::demo::Demo;
use tests::imap::{Imap, status};
use tests::lmtp::Lmtp;
use tests::messages::large;
use tests::pop3::Pop3;
use tests::wait;

const USER: &str = "u0001@example.test";
const ALIAS: &str = "other@example.test";
const PASSWORD: &str = "secret";
/// Messages there are before the first move, some of them of several chunks.
const N_MESSAGES: usize = 120;
const LARGE_BYTES: usize = 700_000;
/// A debug build on two cores that also run the tests.
const TOLD: Duration = Duration::from_secs(20);
const FORGOTTEN: Duration = Duration::from_secs(90);

#[test]
fn an_account_moves_under_load_and_stays_what_it_was() -> Result<()> {
    let demo = Demo::start(&["--no-sample-mail", "--accounts", "2", "--shards", "2"])?;
    prepare(&demo)?;
    let before = state(&demo, None)?;
    let home = shard(&demo)?;
    let other = 3 - home;
    let mut idle = Imap::login(&demo.at("f1", "imap")?, USER, PASSWORD)?;
    idle.ok("SELECT Work")?;
    let load = Load::start(&demo)?;
    for to in [other, home] {
        let tag = idle.start("IDLE")?;
        ensure!(idle.response()?.text.starts_with('+'), "no IDLE");
        wait::until(FORGOTTEN, "the account moves", || {
            let moved = demo.ctl(&["account", "move", USER, &to.to_string()])?;
            let said = String::from_utf8_lossy(&moved.stdout).into_owned();
            let error = String::from_utf8_lossy(&moved.stderr).into_owned();
            ensure!(moved.status.success(), "{error}");
            println!("{said}");
            Ok(())
        })?;
        ensure!(shard(&demo)? == to, "it is on shard {}, not on {to}", shard(&demo)?);
        // The connection that waited since before the move is told what happens after it.
        idle.set_deadline(TOLD)?;
        let mut beside = Imap::login(&demo.at("f2", "imap")?, USER, PASSWORD)?;
        beside.append("Work", b"Subject: after the move\r\n\r\nnews\r\n")?;
        while !idle.response()?.text.ends_with("EXISTS") {}
        let ended = idle.done(&tag)?;
        ensure!(status(&ended.last().context("no response")?.text) == "OK", "{ended:?}");
    }
    let delivered = load.end()?;
    compare(&before, &state(&demo, Some(&before))?, delivered)?;
    nothing_is_left(&demo, other)?;
    // Repeated, it is nothing.
    let again = demo.ctl(&["account", "move", USER, &home.to_string()])?;
    ensure!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    let nowhere = demo.ctl(&["account", "move", USER, "9"])?;
    let said = String::from_utf8_lossy(&nowhere.stderr).into_owned();
    ensure!(!nowhere.status.success() && said.contains("no shard 9"), "{said}");
    Ok(())
}

/// Mailboxes, flags, keywords, gaps, subscriptions, a quota, an alias.
fn prepare(demo: &Demo) -> Result<()> {
    let ok = |arguments: &[&str]| -> Result<()> {
        let done = demo.ctl(arguments)?;
        ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        Ok(())
    };
    ok(&["account", "alias", USER, ALIAS])?;
    ok(&["account", "quota", USER, "--messages", "100000"])?;
    let mut imap = Imap::login(&demo.at("f1", "imap")?, USER, PASSWORD)?;
    imap.ok("CREATE Work")?;
    imap.ok("CREATE Work/Old")?;
    imap.ok("SUBSCRIBE Work")?;
    imap.ok("SUBSCRIBE Nowhere")?;
    for n in 0..N_MESSAGES {
        let message = match n % 10 {
            0 => large(LARGE_BYTES + n),
            _ => format!("Subject: message {n}\r\n\r\n{}\r\n", "text ".repeat(n)).into_bytes(),
        };
        let mailbox = if n % 2 == 0 { "INBOX" } else { "Work" };
        imap.append_flagged(mailbox, if n % 3 == 0 { "\\Seen $label" } else { "" }, &message)?;
    }
    imap.ok("SELECT INBOX")?;
    imap.ok("UID STORE 5:9 +FLAGS (\\Flagged)")?;
    imap.ok("UID COPY 1:20 Work/Old")?;
    imap.ok("UID MOVE 21:25 Work")?;
    imap.ok("UID STORE 30:33 +FLAGS (\\Deleted)")?;
    imap.ok("EXPUNGE")?;
    // So that nothing is \\Recent any more.
    imap.ok("SELECT Work")?;
    imap.ok("SELECT Work/Old")?;
    Ok(())
}

/// What a client can know of an account, line by line, and of messages that were there at the start.
#[derive(Debug, Default)]
struct State {
    lines: Vec<String>,
    /// Mailbox and UID to everything about the message; nothing about those that came later.
    messages: BTreeMap<(String, u32), (String, Vec<u8>)>,
}

fn state(demo: &Demo, at_the_start: Option<&State>) -> Result<State> {
    let mut state = State::default();
    let mut imap = Imap::login(&demo.at("f1", "imap")?, USER, PASSWORD)?;
    for command in ["LIST \"\" * RETURN (SPECIAL-USE SUBSCRIBED CHILDREN)", "LSUB \"\" *"] {
        let said = imap.ok(command)?;
        state.lines.extend(said[..said.len() - 1].iter().map(|line| line.text.clone()));
    }
    for mailbox in ["INBOX", "Work", "Work/Old"] {
        let said = imap.ok(&format!("STATUS {mailbox} (UIDVALIDITY MAILBOXID)"))?;
        state.lines.push(said[0].text.clone());
        imap.ok(&format!("EXAMINE {mailbox}"))?;
        for uid in imap.uids()? {
            let key = (mailbox.to_owned(), uid);
            if at_the_start.is_some_and(|start| !start.messages.contains_key(&key)) {
                state.messages.insert(key, Default::default());
                continue;
            }
            let items = "FLAGS MODSEQ EMAILID THREADID INTERNALDATE SAVEDATE RFC822.SIZE ENVELOPE";
            let said = imap.ok(&format!("UID FETCH {uid} ({items})"))?;
            let line = said.iter().find(|line| line.text.contains("FETCH"));
            let text = line.context("no FETCH")?.text.clone();
            // Without its number, which may change.
            let text = text.split_once("FETCH").context("no FETCH")?.1.to_owned();
            let body = imap.fetch_body(uid)?;
            state.messages.insert(key, (text, body));
        }
    }
    let shown = demo.ctl(&["account", "show", USER, "--json"])?;
    let shown: Value = serde_json::from_slice(&shown.stdout)?;
    state.lines.push(format!("{} {}", shown["quota_messages"], shown["aliases"]));
    Ok(state)
}

fn compare(before: &State, after: &State, delivered: usize) -> Result<()> {
    ensure!(before.lines == after.lines, "{:#?}\nis now\n{:#?}", before.lines, after.lines);
    for (key, was) in &before.messages {
        let is = after.messages.get(key).with_context(|| format!("{key:?} is gone"))?;
        ensure!(was.0 == is.0, "{key:?} was {} and is {}", was.0, is.0);
        ensure!(was.1 == is.1, "{key:?} has other octets");
    }
    let n_new = after.messages.keys().filter(|key| !before.messages.contains_key(*key)).count();
    // Two came through the connections beside the idle one.
    ensure!(n_new == delivered + 2, "{delivered} were acknowledged, {n_new} are new");
    let last = before.messages.keys().rfind(|(mailbox, _)| mailbox == "INBOX");
    let last = last.context("INBOX was empty")?;
    let new = after.messages.keys().filter(|key| !before.messages.contains_key(*key));
    let reused = new.filter(|(mailbox, uid)| mailbox == "INBOX" && *uid <= last.1).count();
    ensure!(reused == 0, "{reused} UIDs were given out again");
    Ok(())
}

/// Each account is listed once, and the shard it left keeps no body of it.
fn nothing_is_left(demo: &Demo, shard: u64) -> Result<()> {
    let listed = demo.ctl(&["account", "list", "--json"])?;
    let listed: Value = serde_json::from_slice(&listed.stdout)?;
    let names: Vec<&Value> =
        listed.as_array().context("no list")?.iter().map(|one| &one["name"]).collect();
    ensure!(names.len() == 2, "{names:?} while {shard} was left");
    let checked = demo.ctl(&["message", "status", USER, "INBOX", "1", "--json"])?;
    let checked: Value = serde_json::from_slice(&checked.stdout)?;
    ensure!(checked["good"] == true && checked["shard"] != shard, "{checked:#}");
    Ok(())
}

fn shard(demo: &Demo) -> Result<u64> {
    let shown = demo.ctl(&["account", "show", USER, "--json"])?;
    let shown: Value = serde_json::from_slice(&shown.stdout)?;
    shown["shard"].as_u64().context("no shard")
}

/// Clients that go on meanwhile; an error of any of them is an error of the test.
struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<usize>>>,
}

impl Load {
    fn start(demo: &Demo) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (lmtp, imap, pop3) =
            (demo.at("f2", "lmtp")?, demo.at("f2", "imap")?, demo.at("f1", "pop3")?);
        let mut threads = Vec::new();
        for (n, to) in [USER, ALIAS].into_iter().enumerate() {
            let (stop, lmtp) = (Arc::clone(&stop), lmtp.clone());
            threads.push(std::thread::spawn(move || deliver(&stop, &lmtp, to, n)));
        }
        let (stopped, at) = (Arc::clone(&stop), imap.clone());
        threads.push(std::thread::spawn(move || append(&stopped, &at)));
        let (stopped, at) = (Arc::clone(&stop), imap);
        threads.push(std::thread::spawn(move || toggle(&stopped, &at)));
        let stopped = Arc::clone(&stop);
        threads.push(std::thread::spawn(move || collect(&stopped, &pop3)));
        Ok(Self { stop, threads })
    }

    /// How many messages more there are.
    fn end(self) -> Result<usize> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self
            .threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow::anyhow!("a client panicked"))?);
        ended.sum()
    }
}

fn deliver(stop: &AtomicBool, address: &str, to: &str, who: usize) -> Result<usize> {
    let mut session = Lmtp::connect(address)?;
    let (mut n, mut longest) = (0, Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        let text = format!("Subject: load {who} {n}\r\n\r\n{}", "meanwhile\r\n".repeat(50));
        let began = Instant::now();
        let replies = session.deliver(&[to], text.as_bytes())?;
        ensure!(replies[0].starts_with("250"), "delivery {n} to {to}: {}", replies[0]);
        longest = longest.max(began.elapsed());
        n += 1;
    }
    println!("{n} deliveries to {to} meanwhile, the longest took {longest:?}");
    Ok(n)
}

/// Messages that come in pieces, some of them while the account changes its shard.
fn append(stop: &AtomicBool, address: &str) -> Result<usize> {
    let mut imap = Imap::login(address, USER, PASSWORD)?;
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        imap.append("Work/Old", &large(1_500_000 + n)).with_context(|| format!("append {n}"))?;
        n += 1;
    }
    println!("{n} large messages were appended meanwhile");
    Ok(n)
}

/// A session that has a mailbox selected all the while, changes what it put there, and reads.
fn toggle(stop: &AtomicBool, address: &str) -> Result<usize> {
    let mut imap = Imap::login(address, USER, PASSWORD)?;
    imap.ok("CREATE Toggle")?;
    imap.append("Toggle", b"Subject: toggled\r\n\r\ntext\r\n")?;
    imap.ok("SELECT Toggle")?;
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        let flags = if n % 2 == 0 { "+FLAGS" } else { "-FLAGS" };
        imap.ok(&format!("UID STORE 1 {flags} (\\Flagged)"))?;
        let said = imap.ok("UID FETCH 1 (FLAGS)")?;
        let line = said.iter().find(|line| line.text.contains("FETCH")).context("no FETCH")?;
        ensure!(line.text.contains("\\Flagged") == (n % 2 == 0), "STORE {n}: {}", line.text);
        imap.ok("UID COPY 1 Toggle")?;
        ensure!(imap.fetch_body(1)?.ends_with(b"text\r\n"), "another body");
        imap.ok("UID STORE 2:* +FLAGS.SILENT (\\Deleted)")?;
        imap.ok("EXPUNGE")?;
        n += 1;
    }
    imap.ok("CLOSE")?;
    imap.ok("DELETE Toggle")?;
    println!("{n} rounds of STORE, COPY and EXPUNGE meanwhile");
    Ok(0)
}

/// POP3 sessions that come and go.
fn collect(stop: &AtomicBool, address: &str) -> Result<usize> {
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut pop3 = Pop3::login(address, USER, PASSWORD)?;
        pop3.ok("STAT")?;
        pop3.ok("QUIT")?;
        n += 1;
    }
    println!("{n} POP3 sessions meanwhile");
    Ok(0)
}
