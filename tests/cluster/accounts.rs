//! What an operator changes at an account counts at every frontend at once, under load, and costs no mail.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tests::demo::Demo;
use tests::imap::{Imap, status};
use tests::line::Line;
use tests::lmtp::Lmtp;
use tests::pop3::Pop3;
use tests::wait;

const USER: &str = "u0001@example.test";
const SECRET: Password =
    Password { clear: "secret", plain: "AHUwMDAxQGV4YW1wbGUudGVzdABzZWNyZXQ=" };
const CHANGED: Password =
    Password { clear: "changed", plain: "AHUwMDAxQGV4YW1wbGUudGVzdABjaGFuZ2Vk" };
/// The account's names, one after the other.
const NAMES: &[&str] = &[USER, "second@example.test", "third@example.test"];
const OTHER: &str = "u0002@example.test";
const FRONTENDS: &[&str] = &["f1", "f2"];
/// Deliveries, and rounds of the session, that show that both go on.
const N_PROGRESS: usize = 5;
const PROGRESS_WITHIN: Duration = Duration::from_secs(60);
/// After so long without an answer of the store a POP3 session asks whether the account may be read: more
/// than `pop3::ADMITTED_FOR_MS`.
const POP3_ADMITS_FOR: Duration = Duration::from_millis(110);

/// A password of [`USER`].
struct Password {
    clear: &'static str,
    /// The response of SASL PLAIN (RFC 4616) that says it.
    plain: &'static str,
}

#[test]
fn a_rename_under_load_changes_the_login_and_nothing_else() -> Result<()> {
    let demo = Demo::start(&["--no-sample-mail", "--accounts", "1"])?;
    let mut imap = Imap::login(&demo.at("f2", "imap")?, USER, SECRET.clear)?;
    imap.append("INBOX", b"Subject: first\r\n\r\nfirst\r\n")?;
    let validity = uid_validity(&mut imap)?;
    let load = Load::begin(&demo)?;
    load.wait_for_progress()?;
    for pair in NAMES.windows(2) {
        let [old, new] = pair else { unreachable!("windows of two") };
        let before = imap.uids()?;
        ctl(&demo, &["account", "rename", old, new])?;
        for frontend in FRONTENDS {
            let at = demo.at(frontend, "imap")?;
            ensure!(Imap::login(&at, old, SECRET.clear).is_err(), "{old} logs in at {frontend}");
            let mut renamed = Imap::login(&at, new, SECRET.clear)?;
            ensure!(uid_validity(&mut renamed)? == validity, "UIDVALIDITY changed");
            ensure!(renamed.uids()?.starts_with(&before), "UIDs changed");
            let at = demo.at(frontend, "pop3")?;
            ensure!(Pop3::login(&at, old, SECRET.clear).is_err(), "{old} has a maildrop");
        }
        load.is_renamed();
        load.wait_for_progress()?;
    }
    let acknowledged = load.end()?;
    let mut imap = Imap::login(&demo.at("f1", "imap")?, NAMES[NAMES.len() - 1], SECRET.clear)?;
    ensure!(uid_validity(&mut imap)? == validity, "UIDVALIDITY changed");
    let subjects = subjects(&mut imap)?;
    for token in &acknowledged {
        let n = subjects.iter().filter(|subject| *subject == token).count();
        ensure!(n == 1, "{token} was acknowledged and is there {n} times");
    }
    println!("{} acknowledged, {} there", acknowledged.len(), subjects.len());
    Ok(())
}

/// Deliveries at each frontend, and one session that idles and stores flags.
struct Load {
    stop: Arc<AtomicBool>,
    stop_session: Arc<AtomicBool>,
    /// Which of [`NAMES`] the account has.
    name: Arc<AtomicUsize>,
    acknowledged: Arc<Mutex<Vec<String>>>,
    n_rounds: Arc<AtomicUsize>,
    /// The session's, and those of the deliveries.
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Load {
    fn begin(demo: &Demo) -> Result<Self> {
        let mut load = Self {
            stop: Arc::default(),
            stop_session: Arc::default(),
            name: Arc::default(),
            acknowledged: Arc::default(),
            n_rounds: Arc::default(),
            threads: Vec::new(),
        };
        load.threads.push(load.session(Imap::login(&demo.at("f1", "imap")?, USER, "secret")?)?);
        for frontend in FRONTENDS {
            let lmtp = Lmtp::connect(&demo.at(frontend, "lmtp")?)?;
            load.threads.push(load.deliveries(frontend, lmtp));
        }
        Ok(load)
    }

    /// Its connection lives through every rename.
    fn session(&self, mut imap: Imap) -> Result<JoinHandle<Result<()>>> {
        imap.ok("SELECT INBOX")?;
        let (stop, n_rounds) = (self.stop_session.clone(), self.n_rounds.clone());
        Ok(std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                imap.idle_until(|text| text.ends_with(" EXISTS")).context("IDLE")?;
                for sign in ["+", "-"] {
                    imap.ok(&format!("UID STORE 1 {sign}FLAGS (\\Flagged)")).context("STORE")?;
                    let fetched = imap.ok("UID FETCH 1 (FLAGS)").context("FETCH")?;
                    let flagged = fetched.iter().any(|line| line.text.contains("\\Flagged"));
                    ensure!(flagged == (sign == "+"), "a flag was lost: {fetched:?}");
                }
                n_rounds.fetch_add(1, Ordering::Relaxed);
            }
            imap.ok("LOGOUT").map(|_| ())
        }))
    }

    /// At every moment one of the two names of a rename gets mail, and so does only one in the end.
    fn deliveries(&self, frontend: &str, mut lmtp: Lmtp) -> JoinHandle<Result<()>> {
        let (stop, name) = (self.stop.clone(), self.name.clone());
        let (acknowledged, frontend) = (self.acknowledged.clone(), frontend.to_owned());
        std::thread::spawn(move || {
            for n in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let token = format!("{frontend}-{n}");
                let message = format!("Subject: {token}\r\n\r\ntext\r\n");
                let at = name.load(Ordering::Relaxed);
                let mut send = |to: &str| lmtp.transaction(&[to], message.as_bytes());
                let mut reply = send(NAMES[at])?.remove(0);
                if reply.starts_with("550 5.1.1")
                    && let Some(next) = NAMES.get(at + 1)
                {
                    reply = send(next)?.remove(0);
                }
                ensure!(reply.starts_with("250"), "{token} to {}: {reply}", NAMES[at]);
                acknowledged.lock().expect("no panic holds it").push(token);
            }
            Ok(())
        })
    }

    fn is_renamed(&self) {
        self.name.fetch_add(1, Ordering::Relaxed);
    }

    fn n_acknowledged(&self, frontend: &str) -> usize {
        let acknowledged = self.acknowledged.lock().expect("no panic holds it");
        acknowledged.iter().filter(|token| token.starts_with(frontend)).count()
    }

    /// Both frontends take mail, and the session works.
    fn wait_for_progress(&self) -> Result<()> {
        let now = || {
            let mut counts: Vec<_> = FRONTENDS.iter().map(|at| self.n_acknowledged(at)).collect();
            counts.push(self.n_rounds.load(Ordering::Relaxed));
            counts
        };
        let before = now();
        wait::until(PROGRESS_WITHIN, "deliveries and a session that go on", || {
            let counts = now();
            let goes_on = counts.iter().zip(&before).all(|(n, old)| *n >= old + N_PROGRESS);
            let ended = self.threads.iter().any(JoinHandle::is_finished);
            ensure!(goes_on || ended, "from {before:?} to {counts:?}");
            Ok(())
        })
    }

    fn end(self) -> Result<Vec<String>> {
        // Why in this order: the session may be waiting for one more delivery.
        let mut threads = self.threads.into_iter();
        for (stop, n_threads) in [(self.stop_session, 1), (self.stop, FRONTENDS.len())] {
            stop.store(true, Ordering::Relaxed);
            for thread in threads.by_ref().take(n_threads) {
                thread.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
            }
        }
        Ok(std::mem::take(&mut self.acknowledged.lock().expect("no panic holds it")))
    }
}

#[test]
fn a_rename_to_a_name_that_is_taken_changes_nothing() -> Result<()> {
    let demo = Demo::start(&["--no-sample-mail", "--accounts", "2"])?;
    let refused = demo.ctl(&["account", "rename", USER, OTHER])?;
    ensure!(!refused.status.success(), "{OTHER} has two accounts");
    every_login(&demo, &SECRET, true)?;
    for (n, frontend) in (1..).zip(FRONTENDS) {
        let mut lmtp = Lmtp::connect(&demo.at(frontend, "lmtp")?)?;
        let replies = lmtp.transaction(&[USER, OTHER], b"Subject: two\r\n\r\ntwo\r\n")?;
        ensure!(replies.iter().all(|reply| reply.starts_with("250")), "{replies:?}");
        for user in [USER, OTHER] {
            let mut imap = Imap::login(&demo.at(frontend, "imap")?, user, SECRET.clear)?;
            imap.ok("SELECT INBOX")?;
            ensure!(imap.uids()?.len() == n, "mail of {user}: {:?}", imap.uids()?);
        }
    }
    Ok(())
}

#[test]
fn who_is_suspended_is_out_at_every_frontend_at_once() -> Result<()> {
    let demo = Demo::start(&["--accounts", "1"])?;
    // Every frontend remembers the password as right.
    every_login(&demo, &SECRET, true)?;
    let commands = [
        ("f1", "UID FETCH 2 (BODY.PEEK[])"),
        ("f2", "UID STORE 1 +FLAGS (\\Flagged)"),
        ("f1", "STATUS Sent (MESSAGES)"),
        ("f2", "COPY 1 Sent"),
    ];
    let open = |(frontend, command)| Ok((selected(&demo, frontend)?, command));
    let sessions = commands.into_iter().map(open).collect::<Result<Vec<_>>>()?;
    let mut idling = selected(&demo, "f2")?;
    let idle = idling.start("IDLE")?;
    ensure!(idling.response()?.text.starts_with('+'), "IDLE did not begin");
    let mut draining = Pop3::login(&demo.at("f2", "pop3")?, USER, SECRET.clear)?;
    draining.ok("DELE 1")?;
    // It reads ahead: nothing of what follows has to be asked for.
    draining.retr(2)?;
    let read_at = Instant::now();
    let mut lmtp = Lmtp::connect(&demo.at("f1", "lmtp")?)?;

    ctl(&demo, &["account", "suspend", USER])?;
    every_login(&demo, &SECRET, false)?;
    let refused = lmtp.transaction(&[USER], b"Subject: no\r\n\r\nno\r\n")?.remove(0);
    ensure!(refused.starts_with("450 4.2.1"), "mail for a suspended account: {refused}");
    for (mut imap, command) in sessions {
        let said = imap.run(command)?;
        ensure!(said.len() == 1 && status(&said[0].text) == "NO", "{command}: {said:?}");
        sent_away_at_the_latest_by_noop(imap).context(command)?;
    }
    // Why: on a fast machine all this took less.
    std::thread::sleep(POP3_ADMITS_FOR.saturating_sub(read_at.elapsed()));
    let refused = draining.retr(3).err().context("a suspended maildrop is read")?;
    ensure!(refused.to_string().contains("-ERR [SYS/PERM] Account suspended"), "{refused}");
    ensure!(draining.ok("QUIT").is_err(), "the connection stays");
    idling.end_idle(&idle)?;
    sent_away_at_the_latest_by_noop(idling).context("IDLE")?;

    ctl(&demo, &["account", "suspend", USER, "--resume"])?;
    every_login(&demo, &SECRET, true)?;
    let taken = lmtp.transaction(&[USER], b"Subject: yes\r\n\r\nyes\r\n")?.remove(0);
    ensure!(taken.starts_with("250"), "mail for a resumed account: {taken}");
    let mut imap = selected(&demo, "f2")?;
    ensure!(imap.uids()? == (1..=21).collect::<Vec<u32>>(), "{:?}", imap.uids()?);
    let flagged = imap.ok("UID SEARCH FLAGGED")?;
    ensure!(flagged[0].text == "* SEARCH", "a flag was stored meanwhile: {flagged:?}");
    Ok(())
}

/// A session with INBOX open.
fn selected(demo: &Demo, frontend: &str) -> Result<Imap> {
    let mut imap = Imap::login(&demo.at(frontend, "imap")?, USER, SECRET.clear)?;
    imap.ok("SELECT INBOX")?;
    Ok(imap)
}

/// The server says goodbye and closes.
fn sent_away_at_the_latest_by_noop(mut imap: Imap) -> Result<()> {
    // Whoever was sent away already may not be able to say it.
    let _ = imap.start("NOOP");
    let bye = loop {
        let said = imap.response()?.text;
        if said.starts_with("* BYE") {
            break said;
        }
    };
    ensure!(bye == "* BYE the account is suspended", "{bye}");
    ensure!(imap.response().is_err(), "the connection stays");
    Ok(())
}

#[test]
fn a_new_password_counts_at_every_frontend_at_once() -> Result<()> {
    let demo = Demo::start(&["--no-sample-mail", "--accounts", "1"])?;
    every_login(&demo, &SECRET, true)?;
    every_login(&demo, &CHANGED, false)?;
    demo.ctl_with_input(&["account", "passwd", USER], CHANGED.clear)?;
    every_login(&demo, &SECRET, false)?;
    every_login(&demo, &CHANGED, true)?;
    demo.ctl_with_input(&["account", "passwd", USER], SECRET.clear)?;
    every_login(&demo, &CHANGED, false)?;
    every_login(&demo, &SECRET, true)
}

/// Every way to log in at every frontend does, or does not.
fn every_login(demo: &Demo, password: &Password, works: bool) -> Result<()> {
    let (clear, plain) = (password.clear, password.plain);
    let ways = [
        ("imap", vec![format!("a LOGIN {USER} {clear}")]),
        ("imap", vec!["a AUTHENTICATE PLAIN".into(), plain.into()]),
        ("imap", vec![format!("a AUTHENTICATE PLAIN {plain}")]),
        ("pop3", vec![format!("USER {USER}"), format!("PASS {clear}")]),
        ("pop3", vec!["AUTH PLAIN".into(), plain.into()]),
        ("pop3", vec![format!("AUTH PLAIN {plain}")]),
    ];
    for frontend in FRONTENDS {
        for (service, lines) in &ways {
            let said = last_words(&demo.at(frontend, service)?, lines)?;
            let is_in = said.starts_with("a OK") || said.starts_with("+OK");
            let is_out = said.starts_with("a NO") || said.starts_with("-ERR [AUTH]");
            let as_wanted = if works { is_in } else { is_out };
            ensure!(as_wanted, "{} at {frontend}'s {service}: {said}", lines[0]);
        }
    }
    Ok(())
}

/// Says these lines, each after an answer to the one before; gives the answer to the last one.
fn last_words(address: &str, lines: &[String]) -> Result<String> {
    let mut line = Line::connect(address)?;
    line.line()?;
    let mut said = String::new();
    for words in lines {
        line.send(format!("{words}\r\n").as_bytes())?;
        said = loop {
            let said = String::from_utf8_lossy(&line.line()?).into_owned();
            if !said.starts_with("* ") {
                break said;
            }
        };
    }
    // Why: until the end is seen, a maildrop may still be locked.
    line.send(if said.starts_with("a ") { b"b LOGOUT\r\n" } else { b"QUIT\r\n" })?;
    line.line()?;
    Ok(said)
}

fn ctl(demo: &Demo, arguments: &[&str]) -> Result<()> {
    let done = demo.ctl(arguments)?;
    ensure!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}

/// Selects INBOX.
fn uid_validity(imap: &mut Imap) -> Result<String> {
    let selected = imap.ok("SELECT INBOX")?;
    let validity = selected.into_iter().find(|line| line.text.contains("UIDVALIDITY"));
    Ok(validity.context("no UIDVALIDITY")?.text)
}

/// The subjects of the selected mailbox.
fn subjects(imap: &mut Imap) -> Result<Vec<String>> {
    let fetched = imap.ok("FETCH 1:* (BODY.PEEK[HEADER.FIELDS (SUBJECT)])")?;
    let literals = fetched.iter().flat_map(|line| &line.literals);
    let subject = |literal: &Vec<u8>| {
        String::from_utf8_lossy(literal).trim().trim_start_matches("Subject: ").to_owned()
    };
    Ok(literals.map(subject).collect())
}
