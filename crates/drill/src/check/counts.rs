//! In the end every message is there as often as its deliveries, copies and expunges allow.

use std::collections::BTreeMap;

use super::ledger::{AT_THE_END, Ledger, Place, PlaceFacts, TokenFacts};
use super::{Promise, Verdicts};
use crate::history::Verdict;

pub(super) fn check(ledger: &Ledger<'_>, verdicts: &mut Verdicts) {
    let mut found: BTreeMap<(&str, &str), Vec<Place<'_>>> = BTreeMap::new();
    for read in ledger.reads.iter().filter(|read| read.start == AT_THE_END) {
        for message in &read.view.messages {
            let place = (read.key.0, read.key.1, message.uid);
            found.entry((read.key.0, message.token.as_str())).or_default().push(place);
        }
    }
    let mut endings: BTreeMap<(&str, &str), Vec<&PlaceFacts<'_>>> = BTreeMap::new();
    for (place, facts) in &ledger.places {
        endings.entry((place.0, facts.token)).or_default().push(facts);
    }
    for (key, facts) in &ledger.tokens {
        if ledger.has_final.contains(key.0) && !facts.deliveries.is_empty() {
            let places = endings.get(key).map_or(&[][..], |places| places);
            let here = found.get(key).map_or(&[][..], |here| here);
            check_one(*key, &Bounds::of(facts, places), here, verdicts);
        }
    }
}

/// How often a message may be there.
#[derive(Debug, Default, PartialEq, Eq)]
struct Bounds {
    least: usize,
    most: usize,
    /// Something of it was expunged for certain.
    expunged: bool,
    /// More of it was expunged for certain than there can have been.
    doubled: bool,
    /// It was moved, or may have been.
    moved: bool,
}

impl Bounds {
    fn of(facts: &TokenFacts<'_>, places: &[&PlaceFacts<'_>]) -> Self {
        let (mut made, mut may_be_made, mut taken, mut may_be_taken) = (0, 0, 0, 0);
        for event in &facts.deliveries {
            match event.verdict {
                Verdict::Acknowledged { .. } => made += 1,
                Verdict::Unknown { .. } => may_be_made += 1,
                Verdict::Refused { .. } => {}
            }
        }
        for (_, done) in &facts.copies {
            *(if *done { &mut made } else { &mut may_be_made }) += 1;
        }
        for place in places {
            let done = place.endings.iter().find(|ending| ending.done);
            match done {
                Some(ending) if ending.to.is_none() => taken += 1,
                Some(_) => {}
                None if place.endings.iter().any(|ending| ending.to.is_none()) => may_be_taken += 1,
                None => {}
            }
        }
        Self {
            least: usize::saturating_sub(made, taken + may_be_taken),
            most: usize::saturating_sub(made + may_be_made, taken),
            expunged: taken > 0,
            doubled: taken > made + may_be_made,
            moved: places
                .iter()
                .any(|place| place.endings.iter().any(|ending| ending.to.is_some())),
        }
    }
}

fn check_one(
    (account, token): (&str, &str),
    bounds: &Bounds,
    here: &[Place<'_>],
    verdicts: &mut Verdicts,
) {
    let places: Vec<String> =
        here.iter().map(|(_, mailbox, uid)| format!("{mailbox} UID {uid}")).collect();
    let places = if places.is_empty() { "nowhere".into() } else { places.join(", ") };
    let subject = format!("count {account} {token}");
    let Bounds { least, most, .. } = *bounds;
    if bounds.doubled {
        let sentence = format!(
            "{account}: {token} was expunged more often than it was ever made, and is in the end \
             {places}"
        );
        verdicts.say(Promise::ExactlyOnce, subject.clone(), sentence);
    }
    if here.len() < least {
        let promise = if bounds.moved { Promise::MoveIsAtomic } else { Promise::NothingLost };
        let sentence = format!(
            "{account}: {token} must be there {least} times at least and is in the end {places}"
        );
        verdicts.say(promise, subject, sentence);
    } else if here.len() > most {
        let promise = if bounds.moved {
            Promise::MoveIsAtomic
        } else if bounds.expunged {
            Promise::StaysExpunged
        } else if most == 0 {
            Promise::RefusedIsUndone
        } else {
            Promise::ExactlyOnce
        };
        let sentence = format!(
            "{account}: {token} must be there {most} times at most and is in the end at {places}"
        );
        verdicts.say(promise, subject, sentence);
    }
}
