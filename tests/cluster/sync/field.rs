//! A cluster, its clients of all kinds, and what they do by a seed.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::demo::Demo;
use tests::lmtp::Lmtp;
use tests::pop3::Pop3;
use tests::wait;

use super::acts::{FLEETING, NAMES, act, message, one_of};
use super::dice::Dice;
use super::facts::Facts;
use super::session::{Habits, Sent, Session};

/// The account of each client and what kind it is.
const CLIENTS: [(&str, usize, Habits); 10] = [
    ("plain", 0, habits("")),
    ("idle", 0, habits("i")),
    ("cond", 0, habits("cio")),
    ("quick", 0, habits("cqio")),
    ("rev2", 0, habits("r")),
    ("offquick", 0, habits("cqo")),
    ("zip", 1, habits("czi")),
    ("rev2quick", 1, habits("cqrio")),
    ("offcond", 1, habits("co")),
    ("offplain", 1, habits("io")),
];
pub const FRONTENDS: [&str; 2] = ["f1", "f2"];

/// One letter for each.
const fn habits(letters: &str) -> Habits {
    const fn has(letters: &[u8], letter: u8) -> bool {
        let mut k = 0;
        while k < letters.len() {
            if letters[k] == letter {
                return true;
            }
            k += 1;
        }
        false
    }
    let letters = letters.as_bytes();
    Habits {
        condstore: has(letters, b'c'),
        qresync: has(letters, b'q'),
        rev2: has(letters, b'r'),
        compress: has(letters, b'z'),
        idles: has(letters, b'i'),
        offline: has(letters, b'o'),
    }
}

pub struct Field<'d> {
    pub demo: &'d Demo,
    dice: Dice,
    pub facts: Facts,
    pub sessions: Vec<Session>,
    /// They look at what there is when nobody does anything, each through one frontend.
    pub observers: Vec<Session>,
    users: [String; 2],
    n_messages: usize,
    /// Killed and not started again.
    down: Vec<String>,
}

impl<'d> Field<'d> {
    /// Clients of two accounts that no other seed uses.
    pub fn new(demo: &'d Demo, seed: u64, nth: usize) -> Result<Self> {
        let users = [2 * nth + 1, 2 * nth + 2].map(|k| format!("u{k:04}@example.test"));
        let session = |(k, (name, account, habits)): (usize, (&str, usize, Habits))| {
            Session::new(name, account, &users[account], k % 2, habits)
        };
        let sessions = CLIENTS.into_iter().enumerate().map(session).collect();
        let observer = |k: usize| {
            let name = format!("look{k}");
            Session::new(&name, k / 2, &users[k / 2], k % 2, habits("c"))
        };
        let observers = (0..4).map(observer).collect();
        let (dice, facts) = (Dice::new(seed), Facts::default());
        let mut field =
            Self { demo, dice, facts, sessions, observers, users, n_messages: 0, down: Vec::new() };
        field.prepare()?;
        Ok(field)
    }

    fn prepare(&mut self) -> Result<()> {
        for k in [0, 2] {
            self.connect_observer(k)?;
            for name in NAMES.iter().filter(|name| **name != "INBOX" && **name != FLEETING[1]) {
                self.observers[k].ok(&format!("CREATE {name}"), &mut self.facts)?;
            }
            for name in ["INBOX", "INBOX", "Work", "Lists"] {
                let text = super::acts::append(&mut self.dice, name, &mut self.n_messages);
                self.observers[k].ok(&text, &mut self.facts)?;
            }
        }
        Ok(())
    }

    pub fn connect_observer(&mut self, k: usize) -> Result<()> {
        let address = self.demo.at(FRONTENDS[k % 2], "imap")?;
        self.observers[k].connect(&address, &mut self.facts)
    }

    /// A frontend that runs.
    fn frontend(&mut self) -> usize {
        let runs = |k: &usize| !self.down.iter().any(|name| name == FRONTENDS[*k]);
        let running: Vec<usize> = (0..FRONTENDS.len()).filter(runs).collect();
        one_of(&mut self.dice, &running).copied().unwrap_or(0)
    }

    /// Something happens.
    pub fn step(&mut self) -> Result<()> {
        match self.dice.range(0, 99) {
            0..5 => self.deliver(),
            5..8 => self.drain(),
            _ => {
                let k = self.dice.range(0, self.sessions.len() as u64 - 1) as usize;
                self.go_on(k).with_context(|| self.sessions[k].name.clone())
            }
        }
    }

    fn deliver(&mut self) -> Result<()> {
        let frontend = self.frontend();
        let mut lmtp = Lmtp::connect(&self.demo.at(FRONTENDS[frontend], "lmtp")?)?;
        lmtp.set_deadline(Duration::from_secs(90))?;
        self.n_messages += 1;
        let to = &self.users[self.dice.range(0, 1) as usize];
        let replies = lmtp.deliver(&[to], message(self.n_messages).as_bytes())?;
        ensure!(replies[0].starts_with("250"), "LMTP: {replies:?}");
        Ok(())
    }

    /// POP3 takes some of INBOX.
    fn drain(&mut self) -> Result<()> {
        let frontend = self.frontend();
        let user = &self.users[self.dice.range(0, 1) as usize];
        let mut pop3 = Pop3::login(&self.demo.at(FRONTENDS[frontend], "pop3")?, user, "secret")?;
        pop3.set_deadline(Duration::from_secs(90))?;
        let n = pop3.lines("LIST")?.len() as u64;
        if n > 0 {
            pop3.ok(&format!("DELE {}", self.dice.range(1, n)))?;
        }
        pop3.ok("QUIT").map(|_| ())
    }

    /// A client does what it does next.
    fn go_on(&mut self, k: usize) -> Result<()> {
        if !self.sessions[k].is_online() {
            return if self.dice.percent(50) { self.come(k) } else { Ok(()) };
        }
        let (dice, session) = (&mut self.dice, &mut self.sessions[k]);
        if !session.flight.is_empty() {
            if dice.percent(70) {
                session.finish(&mut self.facts)?;
                // What was told so far has to do.
                if session.habits.offline && dice.percent(25) {
                    session.cut();
                }
            }
            return Ok(());
        }
        if session.open.is_none() {
            return self.select(k);
        }
        match dice.range(0, 99) {
            0..4 => self.select(k),
            4..7 => {
                let text = if dice.percent(60) { "CLOSE" } else { "UNSELECT" };
                session.run(text, Sent::default(), &mut self.facts)?;
                session.leave();
                Ok(())
            }
            7..17 => session.ask_rest(&mut self.facts),
            17..35 if session.habits.idles => {
                session.send("IDLE", Sent { is_idle: true, ..Sent::default() })
            }
            35..50 if session.habits.offline => {
                session.cut();
                Ok(())
            }
            _ => act(dice, session, &mut self.n_messages),
        }
    }

    fn come(&mut self, k: usize) -> Result<()> {
        let frontend = self.frontend();
        self.sessions[k].frontend = frontend;
        let address = self.demo.at(FRONTENDS[frontend], "imap")?;
        self.sessions[k].connect(&address, &mut self.facts)?;
        self.select(k)
    }

    fn select(&mut self, k: usize) -> Result<()> {
        let name = match self.dice.percent(60) {
            true => NAMES[self.dice.range(0, 1) as usize],
            false => one_of(&mut self.dice, &NAMES).copied().unwrap_or("INBOX"),
        };
        let read_only = self.dice.percent(12);
        self.sessions[k].select(name, read_only, &mut self.facts).map(|_| ())
    }

    /// The node that leads most shards dies.
    pub fn kill_leader(&mut self) -> Result<()> {
        let deadline = Duration::from_secs(60);
        let leader = wait::until(deadline, "a leader", || self.demo.busiest_leader())?;
        self.demo.signal(&leader, "KILL")?;
        self.down.push(leader);
        Ok(())
    }

    /// A frontend dies, and its clients know what they kept.
    pub fn kill_frontend(&mut self) -> Result<()> {
        let k = self.frontend();
        self.demo.signal(FRONTENDS[k], "KILL")?;
        self.down.push(FRONTENDS[k].to_owned());
        let all = self.sessions.iter_mut().chain(&mut self.observers);
        all.filter(|session| session.frontend == k).for_each(Session::cut);
        Ok(())
    }

    /// Everything that was killed runs again, and every command is answered.
    pub fn settle(&mut self) -> Result<()> {
        for session in &mut self.sessions {
            if session.flight.back().is_none_or(|sent| !sent.is_idle) {
                session.finish(&mut self.facts).with_context(|| session.name.clone())?;
            }
        }
        let down = std::mem::take(&mut self.down);
        for name in &down {
            self.demo.start_again(name)?;
        }
        if !down.is_empty() {
            self.demo.wait_healthy(false)?;
        }
        for k in 0..self.observers.len() {
            if !self.observers[k].is_online() {
                wait::until(Duration::from_secs(60), "a frontend", || self.connect_observer(k))?;
            }
        }
        for k in 0..self.sessions.len() {
            if !self.sessions[k].is_online() {
                self.come(k).with_context(|| self.sessions[k].name.clone())?;
            }
        }
        Ok(())
    }

    /// What was said to a client last, for whoever looks for the fault.
    pub fn conversations(&self, error: &anyhow::Error) -> String {
        let said = format!("{error:#}");
        let sessions = self.sessions.iter().chain(&self.observers);
        let about: Vec<&Session> =
            sessions.filter(|session| said.split(": ").any(|word| word == session.name)).collect();
        let lines = about.into_iter().flat_map(|session| {
            let head = format!("{} (frontend {}):", session.name, session.frontend);
            std::iter::once(head).chain(session.log.iter().cloned())
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}
