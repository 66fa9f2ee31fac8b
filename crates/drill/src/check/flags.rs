//! Each flag has the value of a change that no later acknowledged change replaced.

use std::collections::BTreeSet;

use super::ledger::{AT_THE_END, Birth, Ledger, Place, PlaceFacts, outcome};
use super::{Promise, Verdicts, at};
use crate::history::{Event, FlagChange, Operation, Reply, Verdict};

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
            names.extend(ever_written(ledger, place));
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
fn ever_written<'a>(ledger: &Ledger<'a>, mut place: Place<'a>) -> BTreeSet<&'a str> {
    let mut names = BTreeSet::new();
    for _ in 0..CARRIES_MAX {
        let Some(here) = ledger.places.get(&place) else { break };
        for event in &here.stores {
            if let Operation::Store { flags, .. } = &event.operation {
                names.extend(flags.iter().map(String::as_str));
            }
        }
        match birth(ledger, place, here) {
            Some(Birth::Carried(_, from)) => place = from,
            Some(Birth::Delivered(event)) => {
                if let Operation::Deliver { flags, .. } = &event.operation {
                    names.extend(flags.iter().map(String::as_str));
                }
                break;
            }
            None => break,
        }
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
        let first = initial(ledger, place, flag, end, carries);
        may.set |= first.set;
        may.clear |= first.clear;
    }
    may
}

/// The value a message came to its place with, which it did before this time.
fn initial(ledger: &Ledger<'_>, place: Place<'_>, flag: &str, end: u64, carries: usize) -> May {
    let facts = ledger.places.get(&place);
    match facts.and_then(|facts| birth(ledger, place, facts)) {
        Some(Birth::Carried(event, from)) if carries > 0 => {
            // Why: what nobody answered may be done at any time until it shows.
            let by = match event.verdict {
                Verdict::Unknown { .. } => end,
                _ => event.end_us,
            };
            allowed(ledger, from, flag, (event.start_us, by), carries - 1)
        }
        Some(Birth::Delivered(Event { operation: Operation::Deliver { flags, .. }, .. })) => {
            let mut may = May::default();
            may.add(flags.contains(flag));
            may
        }
        _ => May::EITHER,
    }
}

/// How a message came to its place: as was told, or if it can have come in one way only.
fn birth<'a>(ledger: &Ledger<'a>, place: Place<'_>, facts: &PlaceFacts<'a>) -> Option<Birth<'a>> {
    if let Some(told) = facts.birth {
        return Some(told);
    }
    let of_token = ledger.tokens.get(&(place.0, facts.token))?;
    // What told its UID put it elsewhere.
    let is_told =
        |event: &Event| matches!(event.verdict, Verdict::Acknowledged { reply: Reply::Placed(_) });
    let is_here = |event: &Event| match &event.operation {
        Operation::Deliver { mailbox, .. } => mailbox == place.1,
        _ => false,
    };
    let delivered = of_token.deliveries.iter().copied();
    let delivered = delivered.filter(|event| is_here(event) && !is_told(event));
    let carried = of_token.carries.iter().filter(|carry| carry.to == place.1);
    let carried = carried.map(|carry| Birth::Carried(carry.event, carry.from));
    let mut ways = delivered.map(Birth::Delivered).chain(carried);
    match (ways.next(), ways.next()) {
        (Some(only), None) => Some(only),
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
