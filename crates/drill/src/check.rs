//! The judge: reads a history and names every promise that was broken. It knows nothing of how the
//! store works, only what was promised to a client, so it judges a foreign store as well as ours.
//!
//! Operations that overlap in time may have happened in either order, and one of unknown outcome may
//! have happened or not, at any time after it began; what is legal under any such reading passes.

mod counts;
mod flags;
mod ledger;
pub(crate) mod news;
mod numbers;
mod reads;
mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::history::{History, Record};
use ledger::Ledger;

/// What a mail store promises and a history can show to be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Promise {
    /// Nothing acknowledged is lost.
    NothingLost,
    /// An acknowledged delivery is there once, one of unknown outcome at most once.
    ExactlyOnce,
    /// Octets come back as they were given.
    BytesEqual,
    /// What was expunged stays expunged.
    StaysExpunged,
    /// The last acknowledged value of a flag wins.
    LastFlagWins,
    /// UIDs ascend, are told and are not reused; UIDVALIDITY, UIDNEXT and HIGHESTMODSEQ behave.
    NumbersAscend,
    /// Reads see every change acknowledged before they began.
    ReadsAreCurrent,
    /// A moved message is in exactly one of both mailboxes.
    MoveIsAtomic,
    /// What was refused did not happen.
    RefusedIsUndone,
    /// Who waits in IDLE is told of what arrives.
    NewsArrive,
    /// All replicas hold the same.
    Convergence,
    /// Every replica has every body, and each is what it should be.
    EveryCopyIsGood,
}

/// One broken promise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// Which.
    pub promise: Promise,
    /// How, in one sentence that names tokens, UIDs and times.
    pub sentence: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.promise, self.sentence)
    }
}

/// Every promise this history shows to be broken; each fact is told once, where it first shows.
pub fn check(history: &History) -> Vec<Violation> {
    let mut verdicts = Verdicts::default();
    let ledger = Ledger::of(history, &mut verdicts);
    reads::check(&ledger, &mut verdicts);
    flags::check(&ledger, &mut verdicts);
    numbers::check(&ledger, &mut verdicts);
    counts::check(&ledger, &mut verdicts);
    told::check(history, &ledger, &mut verdicts);
    news::check(history, &mut verdicts);
    check_convergence(history, &mut verdicts);
    check_copies(history, &mut verdicts);
    verdicts.found
}

/// Accounts with a mailbox that something was done in and nobody looked into in the end: what they lost is
/// not known.
pub(crate) fn unread(history: &History) -> BTreeSet<&str> {
    let mut mailboxes = BTreeSet::new();
    for event in history.events() {
        let account = event.account.as_str();
        mailboxes.extend(event.operation.mailboxes().map(|mailbox| (account, mailbox)));
    }
    for record in &history.records {
        if let Record::Final { account, mailbox, .. } = record {
            mailboxes.remove(&(account.as_str(), mailbox.as_str()));
        }
    }
    mailboxes.into_iter().map(|(account, _)| account).collect()
}

fn check_convergence(history: &History, verdicts: &mut Verdicts) {
    let mut first = BTreeMap::new();
    for state in history.replicas() {
        let other = *first.entry(state.shard).or_insert(state);
        if other.applied != state.applied || other.digest != state.digest {
            let subject = format!("{}/{}", state.shard, state.replica);
            let sentence = format!(
                "shard {}: replica {} rests at index {} with digest {}, replica {} at index {} \
                 with digest {}",
                state.shard,
                other.replica,
                other.applied,
                other.digest,
                state.replica,
                state.applied,
                state.digest
            );
            verdicts.say(Promise::Convergence, subject, sentence);
        }
    }
}

fn check_copies(history: &History, verdicts: &mut Verdicts) {
    for copies in history.copies() {
        for (digests, how) in [(&copies.missing, "lacks"), (&copies.damaged, "has damaged")] {
            let Some(first) = digests.first() else { continue };
            let (n, all) = (digests.len(), copies.n_chunks);
            let sentence = format!(
                "{}: replica {} of shard {} on {} {how} {n} of {all} chunks, the first is {first}",
                copies.account, copies.replica, copies.shard, copies.node
            );
            let subject = format!("{how} {} {}", copies.account, copies.replica);
            verdicts.say(Promise::EveryCopyIsGood, subject, sentence);
        }
    }
}

/// Violations found so far.
#[derive(Default)]
struct Verdicts {
    found: Vec<Violation>,
    said: BTreeSet<(Promise, String)>,
}

impl Verdicts {
    /// Keeps the first sentence about each subject, so that one lost message is one violation.
    fn say(&mut self, promise: Promise, subject: String, sentence: String) {
        if self.said.insert((promise, subject)) {
            self.found.push(Violation { promise, sentence });
        }
    }
}

/// Microseconds as a reader of a report wants them.
fn at(us: u64) -> String {
    if us == ledger::AT_THE_END {
        return "the end".into();
    }
    format!("{}.{:06}s", us / 1_000_000, us % 1_000_000)
}
