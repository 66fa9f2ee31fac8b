//! A large mailbox in small: the figures are those of `tests/bench/large.py`, the bounds here are wide
//! enough for a debug build on a loaded machine. `ROOKERY_LARGE` asks for more messages, a thousand
//! doubled several times.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tests::demo::Demo;
use tests::imap::Imap;
use tests::wait;

const USER: &str = "u0001@example.test";
const PASSWORD: &str = "secret";
/// Different messages; the mailbox is made of their copies.
const N_DIFFERENT: usize = 1000;
const N_MESSAGES: usize = 8_000;
/// Messages in one APPEND.
const AT_ONCE: usize = 50;
/// Promised are 200 ms and 100 ms.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
const OTHERS_WAIT_AT_MOST: Duration = Duration::from_secs(3);

fn n_messages() -> usize {
    std::env::var("ROOKERY_LARGE").ok().and_then(|n| n.parse().ok()).unwrap_or(N_MESSAGES)
}

fn fill(imap: &mut Imap) -> Result<()> {
    for first in (0..N_DIFFERENT).step_by(AT_ONCE) {
        let mut command = "APPEND Big".to_owned();
        for n in first..first + AT_ONCE {
            let day = n % 28 + 1;
            let message = format!(
                "From: s{k}@example.test\r\nSubject: message {n}\r\nMessage-ID: <{n}@example.test>\r\n\
                 References: <{parent}@example.test>\r\nDate: {day} Jan 2026 10:00:00 +0000\r\n\r\n\
                 text {n}\r\n",
                k = n % 100,
                parent = n / 5 * 5
            );
            write!(command, " {{{}+}}\r\n{message}", message.len())?;
        }
        imap.ok(&command)?;
    }
    imap.ok("SELECT Big")?;
    let mut n = N_DIFFERENT;
    while n < n_messages() {
        imap.ok("COPY 1:* Big")?;
        imap.ok("NOOP")?;
        n *= 2;
    }
    Ok(())
}

/// Another account that writes all the time, and how long it had to wait.
pub(crate) struct Other {
    stop: Arc<AtomicBool>,
    longest_ms: Arc<AtomicU64>,
    n_written: Arc<AtomicU64>,
    thread: JoinHandle<Result<()>>,
}

impl Other {
    pub(crate) fn begin(mut imap: Imap) -> Result<Self> {
        imap.append("INBOX", b"Subject: other\r\n\r\nother\r\n")?;
        imap.ok("SELECT INBOX")?;
        let (stop, longest_ms) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, longest) = (stop.clone(), longest_ms.clone());
        let n_written = Arc::new(AtomicU64::new(0));
        let written = n_written.clone();
        let thread = std::thread::spawn(move || {
            let mut signs = ["+", "-"].iter().cycle();
            while !stopped.load(Ordering::Relaxed) {
                let sign = signs.next().context("it goes on for ever")?;
                let begun = Instant::now();
                imap.ok(&format!("UID STORE 1 {sign}FLAGS.SILENT (\\Flagged)"))?;
                longest.fetch_max(begun.elapsed().as_millis() as u64, Ordering::Relaxed);
                written.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        Ok(Self { stop, longest_ms, n_written, thread })
    }

    fn during(&self, imap: &mut Imap, command: &str) -> Result<()> {
        self.longest_ms.store(0, Ordering::Relaxed);
        let begun = Instant::now();
        imap.ok(command)?;
        let took = begun.elapsed();
        // What waits now counts as well.
        let n_written = self.n_written.load(Ordering::Relaxed);
        wait::until(OTHERS_WAIT_AT_MOST, "a write of another account", || {
            ensure!(self.n_written.load(Ordering::Relaxed) > n_written, "it still waits");
            Ok(())
        })?;
        let longest = Duration::from_millis(self.longest_ms.load(Ordering::Relaxed));
        println!("{command}: {took:?}, another account waited {longest:?}");
        ensure!(longest < OTHERS_WAIT_AT_MOST, "{command} stopped another account for {longest:?}");
        Ok(())
    }

    /// The longest it waited since the last command it was to live through.
    pub(crate) fn end(self) -> Result<Duration> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("it panicked"))??;
        let longest = Duration::from_millis(self.longest_ms.load(Ordering::Relaxed));
        ensure!(longest < OTHERS_WAIT_AT_MOST, "another account was stopped for {longest:?}");
        Ok(longest)
    }
}

#[test]
fn a_large_mailbox_opens_at_once_and_stops_nobody() -> Result<()> {
    let demo = Demo::start(&["--no-sample-mail", "--accounts", "2", "--shards", "1"])?;
    let login = |user: &str| Imap::login(&demo.at("f1", "imap")?, user, PASSWORD);
    let mut imap = login(USER)?;
    imap.ok("CREATE Big")?;
    fill(&mut imap)?;
    opens_at_once(&mut imap)?;
    sorted_and_searched(&mut imap)?;
    let other = Other::begin(login("u0002@example.test")?)?;
    imap.ok("CREATE Else")?;
    for command in [
        "STORE 1:* +FLAGS.SILENT (\\Seen)",
        "COPY 1:* Else",
        "MOVE 1:* Else",
        "SELECT Else",
        "STORE 1:* +FLAGS.SILENT (\\Deleted)",
        &format!("UID EXPUNGE 1:{}", n_messages()),
    ] {
        other.during(&mut imap, command)?;
    }
    ensure!(imap.uids()?.len() == n_messages(), "EXPUNGE took another half than it was told");
    imap.ok("UNSELECT")?;
    other.during(&mut imap, "DELETE Else")?;
    other.end()?;
    Ok(())
}

fn opens_at_once(imap: &mut Imap) -> Result<()> {
    let begun = Instant::now();
    let opened = imap.ok("SELECT Big")?;
    let took = begun.elapsed();
    let exists = format!("* {} EXISTS", n_messages());
    ensure!(opened.iter().any(|line| line.text == exists), "{opened:?}");
    let begun = Instant::now();
    let tag = imap.start("FETCH 1:* (UID FLAGS)")?;
    imap.response()?;
    let first = begun.elapsed();
    let n_lines = imap.finish(&tag)?.len();
    println!("SELECT {took:?}, FETCH after {first:?}, all after {:?}", begun.elapsed());
    ensure!(n_lines == n_messages(), "FETCH told of {n_lines}");
    ensure!(took < ANSWER_WITHIN && first < ANSWER_WITHIN, "SELECT {took:?}, FETCH {first:?}");
    Ok(())
}

fn sorted_and_searched(imap: &mut Imap) -> Result<()> {
    for (command, n_wanted) in [
        ("UID SORT (DATE) UTF-8 ALL", n_messages()),
        ("UID SEARCH FROM s17@example.test", n_messages() / 100),
    ] {
        let begun = Instant::now();
        let found = imap.ok(command)?;
        let n_found = found[0].text.split(' ').count() - 2;
        println!("{command}: {:?}", begun.elapsed());
        ensure!(n_found == n_wanted, "{command} found {n_found}");
    }
    let threads = imap.ok("UID THREAD REFERENCES UTF-8 ALL")?;
    ensure!(threads[0].text.len() > n_messages(), "THREAD: {}", threads[0].text);
    Ok(())
}
