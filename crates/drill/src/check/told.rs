//! A store that tells where messages went tells it each time, and leaves none of them out (RFC 4315 3).

use std::collections::BTreeSet;

use super::ledger::{Ledger, Place};
use super::{Promise, Verdicts, at};
use crate::history::{Event, History, Operation, Placed, Reply, Target, Verdict};

pub(super) fn check(history: &History, ledger: &Ledger<'_>, verdicts: &mut Verdicts) {
    // Why by client: which way it came to the store may matter, and clients keep to theirs.
    let tellers = carries(history).filter(|one| !one.sources().is_empty());
    let told: BTreeSet<u32> = tellers.map(|one| one.event.client).collect();
    for carry in carries(history) {
        let Carry { event, from, targets, reply } = carry;
        let account = event.account.as_str();
        let is_told = matches!(reply, Reply::Placed(_));
        if !is_told && !told.contains(&event.client) {
            continue;
        }
        let reached = carry.sources();
        for target in targets.iter().filter(|target| !reached.contains(&target.uid)) {
            if !was_there(ledger, event, (account, from, target.uid)) {
                continue;
            }
            let (promise, how) = match is_told {
                true => (Promise::NothingLost, "left out"),
                false => (Promise::NumbersAscend, "not told of"),
            };
            let sentence = format!(
                "{account} {from}: UID {} ({}) was {how} where messages were moved or copied from {} \
                 to {}, though it was there",
                target.uid,
                target.token,
                at(event.start_us),
                at(event.end_us)
            );
            let subject = format!("told {account} {from} {} {}", target.uid, event.start_us);
            verdicts.say(promise, subject, sentence);
        }
    }
}

/// An acknowledged MOVE or COPY.
struct Carry<'a> {
    event: &'a Event,
    from: &'a str,
    targets: &'a [Target],
    reply: &'a Reply,
}

impl<'a> Carry<'a> {
    /// Those of which was told where they went.
    fn sources(&self) -> &'a [u32] {
        match self.reply {
            Reply::Placed(Placed { sources, .. }) => sources,
            _ => &[],
        }
    }
}

fn carries(history: &History) -> impl Iterator<Item = Carry<'_>> {
    history.events().filter_map(|event| match (&event.operation, &event.verdict) {
        (
            Operation::Move { from, targets, .. } | Operation::Copy { from, targets, .. },
            Verdict::Acknowledged { reply },
        ) => Some(Carry { event, from, targets, reply }),
        _ => None,
    })
}

/// Whether a message was there from before an operation until after it, whatever others did.
fn was_there(ledger: &Ledger<'_>, event: &Event, place: Place<'_>) -> bool {
    let Some(facts) = ledger.places.get(&place) else { return false };
    let is_later = |other: &Event| other.start_us > event.end_us;
    facts.born_by.is_some_and(|by| by < event.start_us)
        && facts.endings.iter().all(|one| std::ptr::eq(one.event, event) || is_later(one.event))
}
