//! What one client does, over and over.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tests::imap::Imap;
use tests::lmtp::Lmtp;
use tests::pop3::Pop3;

use crate::message::{Chance, compose};
use crate::options::{Options, pick};

/// Messages composed before the clock starts.
const COMPOSED: u64 = 32;

/// Where MOVE moves to and back from.
const OTHER: &str = "Bench";

/// One client.
pub struct Client {
    options: Options,
    number: u32,
    chance: Chance,
    n_steps: u64,
    messages: Vec<Vec<u8>>,
    link: Link,
    uids: Vec<u32>,
    /// MOVE: whether the messages are in the other mailbox now.
    is_away: bool,
}

enum Link {
    None,
    Lmtp(Lmtp),
    Imap(Imap),
    /// One that waits in IDLE, and one that delivers.
    Idle(Imap, Lmtp, String),
}

impl Client {
    /// Connects, logs in and learns what is there.
    pub fn connect(options: &Options, number: u32) -> Result<Self> {
        let mut chance = Chance::new(u64::from(number) + 1);
        let composes = ["deliver", "append", "idle", "mixed"].contains(&options.operation.as_str());
        let n_composed = if composes { COMPOSED } else { 0 };
        let messages = (0..n_composed)
            .map(|n| compose(&mut chance, options.size, u64::from(number) * COMPOSED + n));
        let messages = messages.collect();
        let mut client = Self {
            options: options.clone(),
            number,
            chance,
            n_steps: 0,
            messages,
            link: Link::None,
            uids: Vec::new(),
            is_away: false,
        };
        client.again()?;
        Ok(client)
    }

    /// Connects anew.
    pub fn again(&mut self) -> Result<()> {
        self.link = match self.options.operation.as_str() {
            "deliver" => Link::Lmtp(self.lmtp()?),
            "login" | "drain" => Link::None,
            "idle" => {
                let user = self.options.user(u64::from(self.number));
                let mut imap = self.imap(&user)?;
                imap.ok("SELECT INBOX")?;
                Link::Idle(imap, self.lmtp()?, user)
            }
            operation => {
                let user = self.options.user(u64::from(self.number));
                let mut imap = self.imap(&user)?;
                if operation == "move" {
                    // It may be there from before.
                    imap.run(&format!("CREATE {OTHER}"))?;
                }
                imap.ok("SELECT INBOX")?;
                self.uids = imap.uids()?;
                self.is_away = false;
                Link::Imap(imap)
            }
        };
        Ok(())
    }

    /// Does it once; how long each of its parts took that counts. `None`: there is nothing left to do.
    pub fn step(&mut self) -> Result<Option<Vec<f64>>> {
        if self.n_steps == self.options.steps {
            return Ok(None);
        }
        self.n_steps += 1;
        let operation = self.options.operation.clone();
        let begun = Instant::now();
        match operation.as_str() {
            "deliver" => self.deliver()?,
            "append" => self.append()?,
            "store" => self.store()?,
            "move" => self.move_one()?,
            "headers" => self.headers()?,
            "body" => self.fetch("BODY.PEEK[]")?,
            "part" => self.fetch("BODY.PEEK[1]")?,
            "search-from" => {
                let from = self.chance.below(500);
                self.of_imap(&format!("UID SEARCH FROM \"sender{from}@\""))?;
            }
            "search-text" => {
                let number = self.chance.below(1000);
                self.of_imap(&format!("UID SEARCH TEXT \"message {number} about\""))?;
            }
            "login" => self.login()?,
            "idle" => return self.idle().map(|took| Some(vec![took])),
            "drain" => return self.drain(),
            "mixed" => self.mixed()?,
            other => bail!("{other}: no such operation"),
        }
        Ok(Some(vec![begun.elapsed().as_secs_f64()]))
    }

    fn lmtp(&self) -> Result<Lmtp> {
        Lmtp::connect(pick(&self.options.lmtp, self.number)?)
    }

    fn imap(&self, user: &str) -> Result<Imap> {
        Imap::login(pick(&self.options.imap, self.number)?, user, &self.options.password)
    }

    fn of_imap(&mut self, command: &str) -> Result<usize> {
        match &mut self.link {
            Link::Imap(imap) => Ok(imap.ok(command)?.len()),
            _ => bail!("no IMAP session"),
        }
    }

    fn any_uid(&mut self) -> Result<u32> {
        ensure!(!self.uids.is_empty(), "the mailbox is empty");
        Ok(self.uids[self.chance.below(self.uids.len() as u64) as usize])
    }

    fn message(&self) -> &[u8] {
        &self.messages[(self.n_steps % COMPOSED) as usize]
    }

    fn deliver(&mut self) -> Result<()> {
        let user = self.options.user(u64::from(self.number) + self.n_steps);
        let message = &self.messages[(self.n_steps % COMPOSED) as usize];
        let Link::Lmtp(lmtp) = &mut self.link else { bail!("no LMTP session") };
        delivered(&lmtp.deliver(&[&user], message)?)
    }

    fn append(&mut self) -> Result<()> {
        let message = self.message().to_vec();
        let Link::Imap(imap) = &mut self.link else { bail!("no IMAP session") };
        imap.append("INBOX", &message)
    }

    fn store(&mut self) -> Result<()> {
        let uid = self.any_uid()?;
        let sign = if self.chance.below(2) == 0 { '+' } else { '-' };
        self.of_imap(&format!("UID STORE {uid} {sign}FLAGS (\\Flagged)")).map(drop)
    }

    fn move_one(&mut self) -> Result<()> {
        if self.uids.is_empty() {
            let (to, from) = if self.is_away { ("INBOX", OTHER) } else { (OTHER, "INBOX") };
            self.is_away = !self.is_away;
            self.of_imap(&format!("SELECT {to}"))?;
            let Link::Imap(imap) = &mut self.link else { bail!("no IMAP session") };
            self.uids = imap.uids()?;
            ensure!(!self.uids.is_empty(), "nothing came from {from}");
        }
        let uid = self.uids.pop().context("one was there")?;
        let to = if self.is_away { "INBOX" } else { OTHER };
        self.of_imap(&format!("UID MOVE {uid} {to}")).map(drop)
    }

    fn headers(&mut self) -> Result<()> {
        self.of_imap("SELECT INBOX")?;
        let n_lines = self.of_imap("FETCH 1:* (UID FLAGS RFC822.SIZE ENVELOPE)")?;
        ensure!(n_lines > self.uids.len(), "{n_lines} lines for {} messages", self.uids.len());
        Ok(())
    }

    fn fetch(&mut self, what: &str) -> Result<()> {
        let uid = self.any_uid()?;
        self.of_imap(&format!("UID FETCH {uid} ({what})")).map(drop)
    }

    fn login(&mut self) -> Result<()> {
        let mut imap = self.imap(&self.options.user(u64::from(self.number) + self.n_steps))?;
        imap.ok("SELECT INBOX")?;
        imap.ok("LOGOUT").map(drop)
    }

    /// From the start of a delivery to the EXISTS.
    fn idle(&mut self) -> Result<f64> {
        let message = self.message().to_vec();
        let Link::Idle(imap, lmtp, user) = &mut self.link else { bail!("no IDLE session") };
        let tag = imap.start("IDLE")?;
        while !imap.response()?.text.starts_with('+') {}
        let begun = Instant::now();
        let replies = lmtp.start(&[user.as_str()], &message)?;
        while !imap.response()?.text.ends_with(" EXISTS") {}
        let took = begun.elapsed().as_secs_f64();
        delivered(&lmtp.finish(replies)?)?;
        imap.done(&tag)?;
        std::thread::sleep(Duration::from_millis(50));
        Ok(took)
    }

    /// One user's session; what counts is each message.
    fn drain(&mut self) -> Result<Option<Vec<f64>>> {
        let n_users = u64::from(self.options.users.1 - self.options.users.0) + 1;
        let turn = u64::from(self.number) + (self.n_steps - 1) * u64::from(self.options.clients);
        if turn >= n_users {
            return Ok(None);
        }
        let address = pick(&self.options.pop3, self.number)?;
        let user = self.options.user(turn);
        let mut pop3 = Pop3::login(address, &user, &self.options.password)?;
        let n_messages = pop3.lines("UIDL")?.len() as u32;
        let mut took = Vec::new();
        for number in 1..=n_messages {
            let begun = Instant::now();
            pop3.lines(&format!("RETR {number}"))?;
            pop3.ok(&format!("DELE {number}"))?;
            took.push(begun.elapsed().as_secs_f64());
        }
        pop3.ok("QUIT")?;
        Ok(Some(took))
    }

    /// What a mail client does in a day: mostly reading.
    fn mixed(&mut self) -> Result<()> {
        match self.chance.below(100) {
            0..35 => self.fetch("BODY.PEEK[]"),
            35..60 => self.store(),
            60..80 => self.of_imap("NOOP").map(drop),
            80..90 => self.append(),
            90..95 => self.headers(),
            95..98 => {
                let from = self.chance.below(500);
                self.of_imap(&format!("UID SEARCH FROM \"sender{from}@\"")).map(drop)
            }
            _ => {
                let mut imap = self.imap(&self.options.user(u64::from(self.number)))?;
                imap.ok("SELECT INBOX")?;
                imap.ok("LOGOUT").map(drop)
            }
        }
    }
}

fn delivered(replies: &[String]) -> Result<()> {
    for reply in replies {
        ensure!(reply.starts_with("250"), "delivery: {reply}");
    }
    Ok(())
}
