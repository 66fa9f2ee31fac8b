//! Shard leaders die under load; nothing acknowledged is lost or doubled, and clients stay connected.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tests::demo::Demo;
use tests::imap::Imap;
use tests::lmtp::Lmtp;
use tests::wait;

const PASSWORD: &str = "secret";
/// Clients that deliver, each to an account of its own.
const N_CLIENTS: usize = 4;
/// Leaders killed, one after the other; `ROOKERY_KILLS` asks for more.
const N_KILLS: usize = 6;
/// Acknowledgements of each client that show that it goes on: more than were under way at the kill.
const N_PROGRESS: usize = 2;
/// A debug build on two cores that also run the tests; the figure of the product is measured in release.
const UNAVAILABLE_MAX: Duration = Duration::from_secs(10);

/// One client's acknowledged deliveries and its longest wait.
#[derive(Default)]
struct Client {
    acknowledged: Vec<String>,
    longest: Duration,
}

fn user(k: usize) -> String {
    format!("u{:04}@example.test", k + 1)
}

#[test]
fn leaders_die_and_nothing_acknowledged_is_lost() -> Result<()> {
    let accounts = N_CLIENTS.to_string();
    let mut demo = Demo::start(&["--no-sample-mail", "--accounts", &accounts])?;
    // Why two: whoever waits in IDLE ends with what is delivered.
    let (stop, stop_sessions) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
    let clients: Vec<_> =
        (0..N_CLIENTS).map(|k| deliver(&demo, k, &stop)).collect::<Result<_>>()?;
    let flagger = store_flags(&demo, &stop_sessions)?;
    let idler = idle(&demo, &stop_sessions)?;
    for _ in 0..n_kills() {
        let leader = wait::until(Duration::from_secs(30), "a leader", || demo.busiest_leader())?;
        let before = counts(&clients);
        demo.signal(&leader, "KILL")?;
        wait::until(Duration::from_secs(60), "deliveries after the kill", || {
            let now = counts(&clients);
            let all = now.iter().zip(&before).all(|(now, before)| *now >= before + N_PROGRESS);
            ensure!(all, "from {before:?} to {now:?} deliveries");
            Ok(())
        })?;
        demo.start_again(&leader)?;
        demo.wait_healthy(false)?;
    }
    stop_sessions.store(true, Ordering::Relaxed);
    join(flagger)?;
    join(idler)?;
    stop.store(true, Ordering::Relaxed);
    let clients: Vec<Client> =
        clients.into_iter().map(|(_, thread)| join(thread)).collect::<Result<_>>()?;
    for client in &clients {
        println!("{} acknowledged, longest wait {:?}", client.acknowledged.len(), client.longest);
        ensure!(client.longest < UNAVAILABLE_MAX, "a client waited {:?}", client.longest);
    }
    demo.wait_healthy(true)?;
    let before = audit(&demo, &clients)?;
    demo.end()?;
    demo.begin()?;
    let after = audit(&demo, &clients)?;
    ensure!(before == after, "UIDs or UIDVALIDITY changed with a restart of everything");
    Ok(())
}

fn n_kills() -> usize {
    std::env::var("ROOKERY_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(N_KILLS)
}

type Shared = Arc<Mutex<usize>>;

/// Delivers until stopped. A failed delivery is a new message with a new token, as an MTA retries.
fn deliver(
    demo: &Demo,
    k: usize,
    stop: &Arc<AtomicBool>,
) -> Result<(Shared, JoinHandle<Result<Client>>)> {
    let frontends = [demo.at("f1", "lmtp")?, demo.at("f2", "lmtp")?];
    let (stop, count) = (stop.clone(), Shared::default());
    let shared = count.clone();
    let thread = std::thread::spawn(move || {
        let mut client = Client::default();
        let mut session: Option<Lmtp> = None;
        let mut last = Instant::now();
        for n in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let token = format!("token-{k}-{n}");
            let text = format!("Subject: {token}\r\n\r\n{}\r\n", "mail survives\r\n".repeat(100));
            let open = match session.take() {
                Some(open) => Ok(open),
                None => Lmtp::connect(&frontends[n % 2]),
            };
            let Ok(mut open) = open else { continue };
            let Ok(replies) = open.deliver(&[&user(k)], text.as_bytes()) else { continue };
            session = Some(open);
            if replies[0].starts_with("250") {
                client.longest = client.longest.max(last.elapsed());
                last = Instant::now();
                client.acknowledged.push(token);
                *count.lock().expect("no panic holds it") += 1;
            }
        }
        client.longest = client.longest.max(last.elapsed());
        Ok(client)
    });
    Ok((shared, thread))
}

/// Toggles a flag over one connection, which must live through everything.
fn store_flags(demo: &Demo, stop: &Arc<AtomicBool>) -> Result<JoinHandle<Result<()>>> {
    let mut imap = Imap::login(&demo.at("f1", "imap")?, &user(0), PASSWORD)?;
    imap.ok("CREATE Flags")?;
    imap.append("Flags", b"Subject: flags\r\n\r\nflags\r\n")?;
    imap.ok("SELECT Flags")?;
    let stop = stop.clone();
    Ok(std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            for sign in ["+", "-"] {
                imap.ok(&format!("UID STORE 1 {sign}FLAGS (\\Flagged)")).context("STORE")?;
                let fetched = imap.ok("UID FETCH 1 (FLAGS)").context("FETCH")?;
                let flagged = fetched.iter().any(|line| line.text.contains("\\Flagged"));
                ensure!(flagged == (sign == "+"), "a flag was lost: {fetched:?}");
            }
        }
        imap.ok("LOGOUT").map(|_| ())
    }))
}

/// Waits in IDLE for what the clients deliver, over one connection.
fn idle(demo: &Demo, stop: &Arc<AtomicBool>) -> Result<JoinHandle<Result<()>>> {
    let mut imap = Imap::login(&demo.at("f2", "imap")?, &user(1), PASSWORD)?;
    imap.ok("SELECT INBOX")?;
    let stop = stop.clone();
    Ok(std::thread::spawn(move || {
        let mut seen = 0;
        while !stop.load(Ordering::Relaxed) {
            imap.idle_until(|text| text.ends_with(" EXISTS")).context("IDLE")?;
            seen += 1;
        }
        ensure!(seen > 0, "IDLE never saw anything");
        imap.ok("LOGOUT").map(|_| ())
    }))
}

fn counts(clients: &[(Shared, JoinHandle<Result<Client>>)]) -> Vec<usize> {
    clients.iter().map(|(count, _)| *count.lock().expect("no panic holds it")).collect()
}

fn join<T>(thread: JoinHandle<Result<T>>) -> Result<T> {
    thread.join().map_err(|_| anyhow::anyhow!("a client panicked"))?
}

/// Every acknowledged token exactly once; gives UIDVALIDITY and UIDs of all accounts.
fn audit(demo: &Demo, clients: &[Client]) -> Result<Vec<(String, Vec<u32>)>> {
    let mut states = Vec::new();
    for (k, client) in clients.iter().enumerate() {
        let mut imap = Imap::login(&demo.at("f2", "imap")?, &user(k), PASSWORD)?;
        let selected = imap.ok("SELECT INBOX")?;
        let validity = selected.iter().find(|line| line.text.contains("UIDVALIDITY"));
        let validity = validity.context("no UIDVALIDITY")?.text.clone();
        let mut found: BTreeMap<String, usize> = BTreeMap::new();
        for line in imap.ok("FETCH 1:* (BODY.PEEK[HEADER.FIELDS (SUBJECT)])")? {
            for literal in &line.literals {
                let text = String::from_utf8_lossy(literal);
                let token = text.trim().trim_start_matches("Subject: ").to_owned();
                *found.entry(token).or_default() += 1;
            }
        }
        for token in &client.acknowledged {
            let n = found.get(token).copied().unwrap_or(0);
            ensure!(n == 1, "{token} was acknowledged and is there {n} times");
        }
        let doubled = found.iter().find(|(_, n)| **n > 1);
        ensure!(doubled.is_none(), "{doubled:?} is there more than once");
        states.push((validity, imap.uids()?));
    }
    Ok(states)
}
