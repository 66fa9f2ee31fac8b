//! What each look into a mailbox must and must not show.

use std::collections::{BTreeMap, BTreeSet};

use super::ledger::{AT_THE_END, Arrival, Ledger, MailboxKey, PlaceFacts, Read};
use super::{Promise, Verdicts, at};
use crate::history::{Operation, Verdict, ViewedMessage};

pub(super) fn check(ledger: &Ledger<'_>, verdicts: &mut Verdicts) {
    let leaving = earliest_endings(ledger);
    // Why by mailbox: to look through those of all accounts for each look takes hours after a long drill.
    let mut arrivals: BTreeMap<MailboxKey<'_>, Vec<&Arrival<'_>>> = BTreeMap::new();
    for arrival in &ledger.arrivals {
        arrivals.entry(arrival.key).or_default().push(arrival);
    }
    for read in &ledger.reads {
        for message in &read.view.messages {
            check_origin(ledger, read, message, verdicts);
            check_not_gone(ledger, read, message, verdicts);
        }
        if read.view.complete {
            let arrivals = arrivals.get(&read.key).map_or(&[][..], Vec::as_slice);
            check_present(ledger, read, arrivals, &leaving, verdicts);
        }
    }
}

/// By account, mailbox and token: when the first operation began that may have taken it away.
type Leaving<'a> = BTreeMap<(&'a str, &'a str, &'a str), u64>;

fn earliest_endings<'a>(ledger: &Ledger<'a>) -> Leaving<'a> {
    let mut leaving = Leaving::new();
    for ((account, mailbox, _), facts) in &ledger.places {
        for ending in &facts.endings {
            let first = leaving.entry((account, mailbox, facts.token)).or_insert(AT_THE_END);
            *first = (*first).min(ending.event.start_us);
        }
    }
    leaving
}

/// What is seen was delivered, was not refused, and has the octets it was delivered with.
fn check_origin(
    ledger: &Ledger<'_>,
    read: &Read<'_>,
    message: &ViewedMessage,
    verdicts: &mut Verdicts,
) {
    let (account, mailbox) = read.key;
    let token = message.token.as_str();
    let head =
        format!("{account} {mailbox}: UID {} ({token}) seen at {}", message.uid, at(read.end));
    let subject = format!("{account} {token}");
    let deliveries =
        ledger.tokens.get(&(account, token)).map_or(&[][..], |facts| &facts.deliveries[..]);
    let mut may_exist = deliveries.iter().filter(|event| event.start_us < read.end).peekable();
    if may_exist.peek().is_none() {
        let sentence = format!("{head} was not delivered by anybody before that");
        verdicts.say(Promise::BytesEqual, subject, sentence);
        return;
    }
    if may_exist.all(|event| matches!(event.verdict, Verdict::Refused { .. })) {
        let sentence = format!("{head}, but every delivery of it was refused");
        verdicts.say(Promise::RefusedIsUndone, subject.clone(), sentence);
    }
    let Some(seen) = &message.digest else {
        // In the end every message is read whole.
        if read.start == AT_THE_END {
            let sentence = format!("{head} cannot be read");
            verdicts.say(Promise::BytesEqual, subject, sentence);
        }
        return;
    };
    let given = deliveries.iter().find_map(|event| match &event.operation {
        Operation::Deliver { digest, .. } => Some(digest),
        _ => None,
    });
    if let Some(given) = given.filter(|given| *given != seen) {
        let sentence = format!("{head} has digest {seen}, but was delivered with {given}");
        verdicts.say(Promise::BytesEqual, subject, sentence);
    }
}

/// What was taken away before the look began is not seen again.
fn check_not_gone(
    ledger: &Ledger<'_>,
    read: &Read<'_>,
    message: &ViewedMessage,
    verdicts: &mut Verdicts,
) {
    let (account, mailbox) = read.key;
    let Some(facts) = ledger.places.get(&(account, mailbox, message.uid)) else { return };
    let Some(gone_by) = facts.gone_by.filter(|by| *by < read.start) else { return };
    let promise = match facts.endings.iter().find(|ending| ending.done) {
        Some(ending) if ending.to.is_some() => Promise::MoveIsAtomic,
        _ => Promise::StaysExpunged,
    };
    let sentence = format!(
        "{account} {mailbox}: UID {} ({}) was gone at {} and is there again in what was read \
         from {} to {}",
        message.uid,
        facts.token,
        at(gone_by),
        at(read.start),
        at(read.end)
    );
    verdicts.say(promise, format!("{account} {mailbox} {}", message.uid), sentence);
}

/// What was there before the look began, and was not asked away before it ended, is seen.
fn check_present(
    ledger: &Ledger<'_>,
    read: &Read<'_>,
    arrivals: &[&Arrival<'_>],
    leaving: &Leaving<'_>,
    verdicts: &mut Verdicts,
) {
    let (account, mailbox) = read.key;
    let uids: BTreeSet<u32> = read.view.messages.iter().map(|message| message.uid).collect();
    let tokens: BTreeSet<&str> =
        read.view.messages.iter().map(|message| message.token.as_str()).collect();
    for (place, facts) in ledger.places_of(read.key) {
        let Some(by) = facts.born_by.filter(|by| *by < read.start) else { continue };
        if uids.contains(&place.2) || may_be_gone(facts, read.end) {
            continue;
        }
        let what = format!("UID {} ({}), there since {}", place.2, facts.token, at(by));
        say_missing(read, facts.token, &what, verdicts);
    }
    for arrival in arrivals {
        let token = arrival.token;
        let left = leaving.get(&(account, mailbox, token)).is_some_and(|start| *start < read.end);
        if arrival.by < read.start && !left && !tokens.contains(token) {
            let is_move = matches!(arrival.event.operation, Operation::Move { .. });
            let how = if is_move { "moved there" } else { "acknowledged" };
            let what = format!("{token}, {how} at {}", at(arrival.by));
            if is_move && read.start == AT_THE_END {
                let sentence = format!("{account} {mailbox}: {what}, is not there at the end");
                verdicts.say(Promise::MoveIsAtomic, format!("{account} {token}"), sentence);
            } else {
                say_missing(read, token, &what, verdicts);
            }
        }
    }
}

fn may_be_gone(facts: &PlaceFacts<'_>, before: u64) -> bool {
    facts.endings.iter().any(|ending| ending.event.start_us < before)
}

fn say_missing(read: &Read<'_>, token: &str, what: &str, verdicts: &mut Verdicts) {
    let (account, mailbox) = read.key;
    let subject = format!("{account} {mailbox} {token}");
    if read.start == AT_THE_END {
        let sentence = format!("{account} {mailbox}: {what}, is not there at the end");
        verdicts.say(Promise::NothingLost, subject, sentence);
    } else {
        let sentence = format!(
            "{account} {mailbox}: {what}, is missing in what was read from {} to {}",
            at(read.start),
            at(read.end)
        );
        verdicts.say(Promise::ReadsAreCurrent, subject, sentence);
    }
}
