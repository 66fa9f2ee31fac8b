//! The clients of a drill: each a thread with a real connection, which does one thing at a time and writes
//! down what came of it. Enter at [`Crew::start`].

mod collect;
mod deliver;
mod hand;
mod idle;
mod reader;
mod sorter;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result};

use crate::client::line::Endpoint;
use crate::dice::Dice;
use crate::recorder::Recorder;
use hand::Hand;

/// After so long pauses are twice as long, after twice as long three times,
const SLOWER_AFTER_US: u64 = 120_000_000;
/// and so many times at most, so that it shows soon enough whether a client works.
const SLOWER_MAX: u64 = 4;

/// Where the mail protocols are spoken.
#[derive(Clone)]
pub(crate) struct Site {
    pub imap: Vec<Endpoint>,
    pub pop3: Vec<Endpoint>,
    pub lmtp: Vec<Endpoint>,
    /// The mailboxes that are worked in; what arrives is put into the first.
    pub mailboxes: [String; 2],
}

/// An account that exists for a drill.
#[derive(Clone, Debug)]
pub(crate) struct Canary {
    pub name: String,
    pub password: String,
}

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    /// LMTP.
    Deliver,
    /// IMAP: APPEND, STORE, MOVE, COPY, EXPUNGE.
    Sorter,
    /// IMAP: SELECT, FETCH.
    Reader,
    /// IMAP: IDLE.
    Idle,
    /// POP3: RETR, DELE.
    Collect,
}

/// How often clients do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Always as often.
    Steady,
    /// Less often the longer it takes: what they see stays in memory, and a disk is verified for an hour.
    Slowing,
}

impl Pace {
    /// How many times as long as at first a pause is by now.
    fn factor(self, now_us: u64) -> u64 {
        match self {
            Self::Steady => 1,
            Self::Slowing => (1 + now_us / SLOWER_AFTER_US).min(SLOWER_MAX),
        }
    }
}

/// One client of a drill.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub id: u32,
    pub role: Role,
    pub account: String,
}

impl Role {
    /// What its row is called in a plot.
    pub fn words(self) -> &'static str {
        match self {
            Self::Deliver => "deliver",
            Self::Sorter => "sort",
            Self::Reader => "read",
            Self::Idle => "idle",
            Self::Collect => "pop3",
        }
    }

    /// For people.
    pub fn protocol(self) -> &'static str {
        match self {
            Self::Deliver => "LMTP",
            Self::Sorter | Self::Reader => "IMAP",
            Self::Idle => "IDLE",
            Self::Collect => "POP3",
        }
    }
}

/// All clients of one scenario.
pub(crate) struct Crew {
    pub members: Vec<Member>,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Crew {
    /// Starts the clients of all canaries, spread over the frontends.
    pub fn start(
        site: &Site,
        canaries: &[Canary],
        recorder: &Arc<Recorder>,
        pace: Pace,
        dice: &Dice,
    ) -> Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let mut crew = Self { members: Vec::new(), over, threads: Vec::new() };
        for (k, canary) in canaries.iter().enumerate() {
            let mut roles = vec![Role::Sorter, Role::Reader, Role::Idle];
            if !site.lmtp.is_empty() {
                roles.push(Role::Deliver);
            }
            // One maildrop is enough: POP3 sessions exclude each other and log in anew each time.
            let collects = k == 0 && !site.pop3.is_empty();
            if collects {
                roles.push(Role::Collect);
            }
            for role in roles {
                let id = crew.members.len() as u32;
                let hand = Hand {
                    id,
                    canary: canary.clone(),
                    others: canaries.iter().map(|canary| canary.name.clone()).collect(),
                    shares: if collects { 4 } else { 0 },
                    site: site.clone(),
                    first: k + crew.members.len(),
                    pace,
                    recorder: Arc::clone(recorder),
                    over: Arc::clone(&crew.over),
                    dice: dice.fork(u64::from(id) + 1),
                };
                let thread = std::thread::Builder::new().name(format!("client-{id}"));
                let thread = thread.spawn(move || work(role, hand)).context("start a client")?;
                crew.threads.push(thread);
                crew.members.push(Member { id, role, account: canary.name.clone() });
            }
        }
        Ok(crew)
    }

    /// Lets every client finish what it does; gives how many of them panicked.
    pub fn stop(mut self) -> usize {
        self.over.store(true, Ordering::Relaxed);
        self.threads.drain(..).filter_map(|thread| thread.join().err()).count()
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

fn work(role: Role, hand: Hand) {
    match role {
        Role::Deliver => deliver::run(hand),
        Role::Sorter => sorter::run(hand),
        Role::Reader => reader::run(hand),
        Role::Idle => idle::run(hand),
        Role::Collect => collect::run(hand),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_hours_asks_less_often_and_never_stops_asking() {
        let factors =
            |pace: Pace| [0, 119, 120, 250, 360, 7200].map(|s| pace.factor(s * 1_000_000));
        assert_eq!(factors(Pace::Slowing), [1, 1, 2, 3, 4, 4]);
        assert_eq!(factors(Pace::Steady), [1; 6]);
    }
}
