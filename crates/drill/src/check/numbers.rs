//! UIDs, UIDVALIDITY, UIDNEXT and mod-sequences only go forward.

use std::collections::{BTreeMap, BTreeSet};

use super::ledger::{Ledger, MailboxKey, Place, Read};
use super::{Promise, Verdicts, at};
use crate::history::{Event, View};

pub(super) fn check(ledger: &Ledger<'_>, verdicts: &mut Verdicts) {
    check_validity(ledger, verdicts);
    let mut reads: BTreeMap<MailboxKey<'_>, Vec<&Read<'_>>> = BTreeMap::new();
    for read in &ledger.reads {
        reads.entry(read.key).or_default().push(read);
    }
    for reads in reads.values() {
        check_counters(reads, verdicts);
        check_modseqs(reads, verdicts);
        check_changes_count(reads, verdicts);
        check_new_uids(ledger, reads, verdicts);
    }
    let mut placed: BTreeMap<MailboxKey<'_>, Vec<(Place<'_>, &Event)>> = BTreeMap::new();
    for (place, event) in &ledger.placements {
        placed.entry((place.0, place.1)).or_default().push((*place, *event));
    }
    for (key, placed) in &mut placed {
        check_uids_ascend(placed, verdicts);
        if let Some(reads) = reads.get(key) {
            check_uid_next(placed, reads, verdicts);
        }
    }
}

fn check_validity(ledger: &Ledger<'_>, verdicts: &mut Verdicts) {
    let mut told = ledger.validities.clone();
    told.sort_by_key(|(key, _, time)| (*key, *time));
    for pair in told.windows(2) {
        let ((key, old, _), (other, new, time)) = (pair[0], pair[1]);
        if key == other && old != new {
            let sentence =
                format!("{} {}: UIDVALIDITY was {old} and is {new} at {}", key.0, key.1, at(time));
            verdicts.say(Promise::NumbersAscend, format!("validity {key:?}"), sentence);
        }
    }
}

/// UIDNEXT and HIGHESTMODSEQ never decrease from one look to a later one, and bound what is seen.
fn check_counters(reads: &[&Read<'_>], verdicts: &mut Verdicts) {
    for read in reads {
        let view = read.view;
        let last_uid = view.messages.iter().map(|message| u64::from(message.uid)).max();
        let last_modseq = view.messages.iter().filter_map(|message| message.modseq).max();
        let uid_next = view.uid_next.map(u64::from);
        let bounds = [
            ("UIDNEXT", uid_next, last_uid.map(|uid| uid + 1)),
            ("HIGHESTMODSEQ", view.highest_modseq, last_modseq),
        ];
        for (name, told, least) in bounds {
            if let (Some(told), Some(least)) = (told, least)
                && told < least
            {
                let sentence = format!(
                    "{} {}: {name} is {told} at {}, but must be {least} at least",
                    read.key.0,
                    read.key.1,
                    at(read.end)
                );
                verdicts.say(Promise::NumbersAscend, format!("{name} {:?}", read.key), sentence);
            }
        }
    }
    check_counters_ascend(reads, verdicts);
}

/// From any look to any that began after it ended, whatever those in between told.
fn check_counters_ascend(reads: &[&Read<'_>], verdicts: &mut Verdicts) {
    let mut by_start = reads.to_vec();
    by_start.sort_by_key(|read| read.start);
    let mut ended = reads.iter().peekable();
    // The greatest value of each so far, and when it was told.
    let mut greatest: [Option<(u64, u64)>; 2] = [None; 2];
    for later in by_start {
        while let Some(read) = ended.next_if(|read| read.end < later.start) {
            for (greatest, (_, told)) in greatest.iter_mut().zip(counters(read)) {
                *greatest = (*greatest).max(told.map(|told| (told, read.end)));
            }
        }
        for (greatest, (name, new)) in greatest.into_iter().zip(counters(later)) {
            if let (Some((old, told_by)), Some(new)) = (greatest, new)
                && new < old
            {
                let (account, mailbox) = later.key;
                let sentence = format!(
                    "{account} {mailbox}: {name} was {old} at {} and is {new} at {}",
                    at(told_by),
                    at(later.end)
                );
                verdicts.say(Promise::NumbersAscend, format!("{name} {:?}", later.key), sentence);
            }
        }
    }
}

fn counters(read: &Read<'_>) -> [(&'static str, Option<u64>); 2] {
    let uid_next = read.view.uid_next.map(u64::from);
    [("UIDNEXT", uid_next), ("HIGHESTMODSEQ", read.view.highest_modseq)]
}

/// A message's MODSEQ never decreases, and stands for one set of flags (RFC 7162 3.1): whoever has seen
/// both asks for neither again. What a look tells of one message is of one moment, whatever came between.
fn check_modseqs(reads: &[&Read<'_>], verdicts: &mut Verdicts) {
    let mut known = BTreeMap::new();
    for read in reads {
        let (account, mailbox) = read.key;
        for message in &read.view.messages {
            let (Some(modseq), Some(flags)) = (message.modseq, &message.flags) else { continue };
            let (before, told_by) =
                *known.entry((message.uid, modseq)).or_insert((flags, read.end));
            if before != flags {
                let sentence = format!(
                    "{account} {mailbox}: UID {} has MODSEQ {modseq} at {} and at {}, but other \
                     flags: {before:?} and {flags:?}",
                    message.uid,
                    at(told_by),
                    at(read.end)
                );
                let subject = format!("modseq {account} {mailbox} {}", message.uid);
                verdicts.say(Promise::NumbersAscend, subject, sentence);
            }
        }
    }
    check_modseqs_ascend(reads, verdicts);
}

/// From any look to any that began after it ended.
fn check_modseqs_ascend(reads: &[&Read<'_>], verdicts: &mut Verdicts) {
    let mut by_start = reads.to_vec();
    by_start.sort_by_key(|read| read.start);
    let mut ended = reads.iter().peekable();
    // By UID the greatest so far, and when it was told.
    let mut greatest: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    for later in by_start {
        while let Some(read) = ended.next_if(|read| read.end < later.start) {
            for message in &read.view.messages {
                if let Some(modseq) = message.modseq {
                    let known = greatest.entry(message.uid).or_default();
                    *known = (*known).max((modseq, read.end));
                }
            }
        }
        let (account, mailbox) = later.key;
        for message in &later.view.messages {
            let (Some(new), Some((old, told_by))) = (message.modseq, greatest.get(&message.uid))
            else {
                continue;
            };
            if new < *old {
                let sentence = format!(
                    "{account} {mailbox}: MODSEQ of UID {} was {old} at {} and is {new} at {}",
                    message.uid,
                    at(*told_by),
                    at(later.end)
                );
                let subject = format!("modseq {account} {mailbox} {}", message.uid);
                verdicts.say(Promise::NumbersAscend, subject, sentence);
            }
        }
    }
}

/// Arrival, change of flags and expunge each raise HIGHESTMODSEQ.
fn check_changes_count(reads: &[&Read<'_>], verdicts: &mut Verdicts) {
    let mut known: BTreeMap<u64, &Read<'_>> = BTreeMap::new();
    for read in reads.iter().filter(|read| read.view.complete) {
        let Some(modseq) = read.view.highest_modseq else { continue };
        if read.view.messages.iter().any(|message| message.flags.is_none()) {
            continue;
        }
        let other = known.entry(modseq).or_insert(read);
        let same = other.view.messages.iter().map(state).eq(read.view.messages.iter().map(state));
        if !same {
            let sentence = format!(
                "{} {}: HIGHESTMODSEQ is {modseq} at {} and at {}, but the mailbox changed",
                read.key.0,
                read.key.1,
                at(other.end),
                at(read.end)
            );
            verdicts.say(Promise::NumbersAscend, format!("change {:?}", read.key), sentence);
        }
    }
}

/// What a look did not show and a later one does came in between, under a UID that was free.
fn check_new_uids(ledger: &Ledger<'_>, reads: &[&Read<'_>], verdicts: &mut Verdicts) {
    let mut by_start = reads.to_vec();
    by_start.sort_by_key(|read| read.start);
    let mut ended = reads.iter().filter(|read| read.view.complete).peekable();
    // Of those that ended the one after which most UIDs were used up.
    let mut fullest: Option<(u32, &Read<'_>, BTreeSet<u32>)> = None;
    for later in by_start {
        while let Some(read) = ended.next_if(|read| read.end < later.start) {
            let free = first_free(read.view);
            if fullest.as_ref().is_none_or(|(most, ..)| *most < free) {
                let uids = read.view.messages.iter().map(|message| message.uid).collect();
                fullest = Some((free, *read, uids));
            }
        }
        let Some((free, earlier, uids)) = &fullest else { continue };
        if earlier.view.uid_validity != later.view.uid_validity {
            continue;
        }
        let (account, mailbox) = later.key;
        for message in later.view.messages.iter().filter(|message| message.uid < *free) {
            let facts = ledger.places.get(&(account, mailbox, message.uid));
            // Whatever was there before is back, which is told as that.
            let is_back =
                facts.and_then(|facts| facts.born_by).is_some_and(|by| by < earlier.start);
            if uids.contains(&message.uid) || is_back {
                continue;
            }
            let sentence = format!(
                "{account} {mailbox}: UID {} ({}), read from {} to {}, is new and less than \
                 {free}, the first that was free in what was read from {} to {}",
                message.uid,
                message.token,
                at(later.start),
                at(later.end),
                at(earlier.start),
                at(earlier.end)
            );
            let subject = format!("new {account} {mailbox} {}", message.uid);
            verdicts.say(Promise::NumbersAscend, subject, sentence);
        }
    }
}

/// No UID below this is given out any more. Why UIDNEXT only with HIGHESTMODSEQ, which is told if
/// nothing changed meanwhile: what came after the list was read is not in the list.
fn first_free(view: &View) -> u32 {
    let last = view.messages.iter().map(|message| message.uid).max().unwrap_or(0);
    let told = view.highest_modseq.and(view.uid_next).unwrap_or(0);
    told.max(last.saturating_add(1))
}

/// What makes two looks at a message different.
fn state(
    message: &crate::history::ViewedMessage,
) -> (u32, &str, &Option<std::collections::BTreeSet<String>>) {
    (message.uid, &message.token, &message.flags)
}

/// What began after another ended got a greater UID.
fn check_uids_ascend(placed: &mut [(Place<'_>, &Event)], verdicts: &mut Verdicts) {
    let mut by_end = placed.to_vec();
    by_end.sort_by_key(|(_, event)| event.end_us);
    placed.sort_by_key(|(_, event)| event.start_us);
    let mut ended = by_end.into_iter().peekable();
    let mut highest: Option<(Place<'_>, &Event)> = None;
    for (place, event) in placed.iter() {
        while let Some(next) = ended.next_if(|(_, other)| other.end_us < event.start_us) {
            if highest.is_none_or(|(highest, _)| highest.2 < next.0.2) {
                highest = Some(next);
            }
        }
        if let Some((before, earlier)) = highest
            && before.2 >= place.2
        {
            let sentence = format!(
                "{} {}: UID {} was given at {}, after UID {} had been given at {}",
                place.0,
                place.1,
                place.2,
                at(event.end_us),
                before.2,
                at(earlier.end_us)
            );
            let subject = format!("order {} {} {}", place.0, place.1, place.2);
            verdicts.say(Promise::NumbersAscend, subject, sentence);
        }
    }
}

/// A UID given out before a look is below its UIDNEXT, one given out after it is not.
fn check_uid_next(placed: &[(Place<'_>, &Event)], reads: &[&Read<'_>], verdicts: &mut Verdicts) {
    for read in reads {
        let Some(uid_next) = read.view.uid_next else { continue };
        for (place, event) in placed {
            let stale = event.end_us < read.start && place.2 >= uid_next;
            let taken = read.end < event.start_us && place.2 < uid_next;
            if stale || taken {
                let sentence = format!(
                    "{} {}: UIDNEXT is {uid_next} in what was read from {} to {}, but UID {} was \
                     given from {} to {}",
                    place.0,
                    place.1,
                    at(read.start),
                    at(read.end),
                    place.2,
                    at(event.start_us),
                    at(event.end_us)
                );
                let subject = format!("next {} {} {}", place.0, place.1, place.2);
                verdicts.say(Promise::NumbersAscend, subject, sentence);
            }
        }
    }
}
