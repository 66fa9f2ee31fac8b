//! What all clients have in common: who they are, where they go, and how they write down what they saw.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;

use super::{Canary, Pace, Site};
use crate::client::imap::Imap;
use crate::client::is_lost;
use crate::client::line::Endpoint;
use crate::dice::Dice;
use crate::history::{Operation, Record, Reply, Verdict};
use crate::recorder::Recorder;

/// A mail client that waits longer for one answer gives the connection up.
pub(super) const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
/// Pause before a client connects again.
const RECONNECT: Duration = Duration::from_millis(50);

/// One client.
pub(super) struct Hand {
    pub id: u32,
    pub canary: Canary,
    /// All accounts of the drill.
    pub others: Vec<String>,
    /// Who takes messages away must not meet another who does: the outcome would tell neither what it
    /// did. One of so many messages belongs to the POP3 client; 0: all are the sorter's.
    pub shares: u64,
    pub site: Site,
    /// Which frontend it goes to first.
    pub first: usize,
    pub pace: Pace,
    pub recorder: Arc<Recorder>,
    pub over: Arc<AtomicBool>,
    pub dice: Dice,
}

impl Hand {
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    pub fn now_us(&self) -> u64 {
        self.recorder.now_us()
    }

    /// Does nothing for a time of its own choice.
    pub fn think(&mut self, least_ms: u64, most_ms: u64) {
        let pause_ms = self.dice.range(least_ms, most_ms) * self.pace.factor(self.now_us());
        std::thread::sleep(Duration::from_millis(pause_ms));
    }

    /// Writes down what came of an operation.
    pub fn note(&self, start_us: u64, operation: Operation, answered: Result<Reply, Verdict>) {
        let verdict = match answered {
            Ok(reply) => Verdict::Acknowledged { reply },
            Err(verdict) => verdict,
        };
        self.recorder.event((self.id, &self.canary.name), start_us, operation, verdict);
    }

    /// Writes down that the connection is gone.
    pub fn disconnected(&self) {
        self.recorder.record(Record::Disconnect { client: self.id, at_us: self.now_us() });
    }

    /// The second mailbox in so many of 100 throws, else the first.
    pub fn mailbox(&mut self, percent: u64) -> String {
        self.site.mailboxes[usize::from(self.dice.percent(percent))].clone()
    }

    /// The frontend to go to; another one each time.
    pub fn endpoint<'a>(&mut self, all: &'a [Endpoint]) -> Option<&'a Endpoint> {
        let chosen = all.get(self.first % all.len().max(1));
        self.first += 1;
        chosen
    }

    /// Whether the POP3 client may take this message away; the sorter takes the others.
    pub fn is_collectors(&self, token: &str) -> bool {
        let sum = token.bytes().fold(7u64, |sum, byte| sum.wrapping_mul(31) + u64::from(byte));
        self.shares > 0 && sum % self.shares == 0
    }

    /// An IMAP session, once there is one; `None` when the drill is over.
    pub fn imap(&mut self) -> Option<Imap> {
        let all = self.site.imap.clone();
        while !self.is_over() {
            let endpoint = self.endpoint(&all)?;
            let opened = Imap::open(endpoint, &self.canary.name, &self.canary.password);
            let ready = opened.and_then(|mut imap| {
                imap.set_deadline(ANSWER_DEADLINE)?;
                Ok(imap)
            });
            match ready {
                Ok(imap) => return Some(imap),
                Err(error) => tracing::debug!(client = self.id, %error, "not connected"),
            }
            std::thread::sleep(RECONNECT);
        }
        None
    }

    /// What a failed operation may have done; drops the session if that is what it cost.
    pub fn failed<S>(&self, error: &anyhow::Error, session: &mut Option<S>) -> Verdict {
        let why = format!("{error:#}");
        if is_lost(error) {
            // Without a session nothing was asked yet.
            return match session.take() {
                None => Verdict::Refused { why },
                Some(_) => {
                    self.disconnected();
                    Verdict::Unknown { why }
                }
            };
        }
        verdict_of(why)
    }
}

/// A refusal in words; some servers say that they do not know.
pub(super) fn verdict_of(why: String) -> Verdict {
    let is_open = ["may or may not", "Outcome not known"].iter().any(|words| why.contains(words));
    if is_open { Verdict::Unknown { why } } else { Verdict::Refused { why } }
}

/// A client of `anna` by herself, for tests.
#[cfg(test)]
pub(super) fn of_anna(imap: Vec<Endpoint>, pop3: Vec<Endpoint>) -> Hand {
    let (name, password) = ("anna".to_owned(), "secret".to_owned());
    Hand {
        id: 0,
        others: vec![name.clone()],
        canary: Canary { name, password },
        shares: 0,
        site: Site { imap, pop3, lmtp: Vec::new(), mailboxes: ["INBOX".into(), "Archive".into()] },
        first: 0,
        recorder: Arc::new(Recorder::begin(None).expect("in memory")),
        over: Arc::default(),
        pace: Pace::Steady,
        dice: Dice::new(1),
    }
}
