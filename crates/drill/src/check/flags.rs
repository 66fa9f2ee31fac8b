//! Each flag has the value of a change that no later acknowledged change replaced.

use std::collections::BTreeSet;

use super::ledger::{AT_THE_END, Birth, Ledger, Place, PlaceFacts, outcome};
use super::{Promise, Verdicts, at};
use crate::history::{Event, FlagChange, Operation};

pub(super) fn check(ledger: &Ledger<'_>, verdicts: &mut Verdicts) {
    for read in &ledger.reads {
        for message in &read.view.messages {
            let place = (read.key.0, read.key.1, message.uid);
            let (Some(seen), Some(facts)) = (&message.flags, ledger.places.get(&place)) else {
                continue;
            };
            if facts.token != message.token {
                continue;
            }
            let mut names: BTreeSet<&str> = seen.iter().map(String::as_str).collect();
            names.extend(ever_written(ledger, facts));
            for flag in names {
                let is_set = seen.contains(flag);
                let may = allowed(ledger, place, flag, (read.start, read.end), CARRIES_MAX);
                if !(if is_set { may.set } else { may.clear }) {
                    let sentence = format!(
                        "{} {}: {flag} of UID {} ({}) is {} in what was read from {} to {}, \
                         against the last acknowledged change",
                        place.0,
                        place.1,
                        place.2,
                        facts.token,
                        if is_set { "set" } else { "not set" },
                        at(read.start),
                        at(read.end)
                    );
                    // Why: a stale read heals, a wrong end does not; both are told.
                    let phase = if read.start == AT_THE_END { "end" } else { "read" };
                    let subject = format!("{phase} {} {} {} {flag}", place.0, place.1, place.2);
                    verdicts.say(Promise::LastFlagWins, subject, sentence);
                }
            }
        }
    }
}

/// Limit: how many moves and copies back a flag's value is followed; further back both are legal.
const CARRIES_MAX: usize = 32;

#[derive(Clone, Copy, Default)]
struct May {
    set: bool,
    clear: bool,
}

impl May {
    const EITHER: Self = Self { set: true, clear: true };

    fn add(&mut self, is_set: bool) {
        *(if is_set { &mut self.set } else { &mut self.clear }) = true;
    }
}

/// Names of all flags that were changed here, or where the message came from.
fn ever_written<'a>(ledger: &Ledger<'a>, facts: &PlaceFacts<'a>) -> BTreeSet<&'a str> {
    let mut names = BTreeSet::new();
    let mut facts = Some(facts);
    for _ in 0..CARRIES_MAX {
        let Some(here) = facts else { break };
        for event in &here.stores {
            if let Operation::Store { flags, .. } = &event.operation {
                names.extend(flags.iter().map(String::as_str));
            }
        }
        facts = match here.birth {
            Some(Birth::Carried(_, from)) => ledger.places.get(&from),
            Some(Birth::Delivered(event)) => {
                if let Operation::Deliver { flags, .. } = &event.operation {
                    names.extend(flags.iter().map(String::as_str));
                }
                None
            }
            None => None,
        };
    }
    names
}

/// Which values a flag may show to somebody who looks between these times.
fn allowed(
    ledger: &Ledger<'_>,
    place: Place<'_>,
    flag: &str,
    (start, end): (u64, u64),
    carries: usize,
) -> May {
    let Some(facts) = ledger.places.get(&place) else { return May::EITHER };
    let writes: Vec<Write<'_>> =
        facts.stores.iter().filter_map(|event| Write::of(event, place.2, flag)).collect();
    // Before the look began, and acknowledged: it replaced everything that ended before it began.
    let settled: Vec<&Write<'_>> =
        writes.iter().filter(|write| write.acknowledged && write.event.end_us < start).collect();
    let mut may = May::default();
    for write in writes.iter().filter(|write| write.event.start_us < end) {
        let replaced = write.acknowledged
            && settled.iter().any(|later| write.event.end_us < later.event.start_us);
        if !replaced {
            may.add(write.is_set);
        }
    }
    if settled.is_empty() {
        let first = initial(ledger, place, facts, flag, carries);
        may.set |= first.set;
        may.clear |= first.clear;
    }
    may
}

/// The value a message came to its place with.
fn initial(
    ledger: &Ledger<'_>,
    place: Place<'_>,
    facts: &PlaceFacts<'_>,
    flag: &str,
    carries: usize,
) -> May {
    let delivery = match facts.birth {
        Some(Birth::Carried(event, from)) if carries > 0 => {
            return allowed(ledger, from, flag, (event.start_us, event.end_us), carries - 1);
        }
        Some(Birth::Carried(..)) => None,
        Some(Birth::Delivered(event)) => Some(event),
        None => only_delivery(ledger, place, facts.token),
    };
    let Some(Operation::Deliver { flags, .. }) = delivery.map(|event| &event.operation) else {
        return May::EITHER;
    };
    let mut may = May::default();
    may.add(flags.contains(flag));
    may
}

/// A message nobody told the UID of came by its delivery if it can have come in no other way.
fn only_delivery<'a>(ledger: &Ledger<'a>, place: Place<'_>, token: &str) -> Option<&'a Event> {
    let facts = ledger.tokens.get(&(place.0, token))?;
    match facts.deliveries[..] {
        [only] if !facts.carried_to.contains(place.1) => Some(only),
        _ => None,
    }
}

/// A change of one flag of one message.
struct Write<'a> {
    event: &'a Event,
    acknowledged: bool,
    is_set: bool,
}

impl<'a> Write<'a> {
    fn of(event: &'a Event, uid: u32, flag: &str) -> Option<Self> {
        let Operation::Store { targets, change, flags, .. } = &event.operation else { return None };
        let target = targets.iter().find(|target| target.uid == uid)?;
        let named = flags.contains(flag);
        let is_set = match change {
            FlagChange::Replace => named,
            FlagChange::Add if named => true,
            FlagChange::Remove if named => false,
            FlagChange::Add | FlagChange::Remove => return None,
        };
        let acknowledged = match outcome(event, target) {
            Some(true) => true,
            Some(false) => return None,
            None => false,
        };
        Some(Self { event, acknowledged, is_set })
    }
}
