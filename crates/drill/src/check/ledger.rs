//! The history turned by messages: where each was put, seen, changed and taken away.

use std::collections::{BTreeMap, BTreeSet};

use super::{Promise, Verdicts, at};
use crate::history::{Event, History, Operation, Placed, Record, Reply, Target, Verdict, View};

/// When final observations are made: later than anything else.
pub(super) const AT_THE_END: u64 = u64::MAX;

/// Account and mailbox.
pub(super) type MailboxKey<'a> = (&'a str, &'a str);
/// Account, mailbox, UID. Why no UIDVALIDITY: that it never changes is checked by itself.
pub(super) type Place<'a> = (&'a str, &'a str, u32);

/// One look into a mailbox.
pub(super) struct Read<'a> {
    pub key: MailboxKey<'a>,
    pub start: u64,
    pub end: u64,
    pub view: &'a View,
}

/// How a message came to a place.
#[derive(Clone, Copy)]
pub(super) enum Birth<'a> {
    Delivered(&'a Event),
    Carried(&'a Event, Place<'a>),
}

/// Something that takes a message away from a place, or may.
#[derive(Clone, Copy)]
pub(super) struct Ending<'a> {
    pub event: &'a Event,
    /// Acknowledged as done to this very message.
    pub done: bool,
    /// Where to, for MOVE.
    pub to: Option<&'a str>,
}

/// One UID of a mailbox.
pub(super) struct PlaceFacts<'a> {
    pub token: &'a str,
    pub birth: Option<Birth<'a>>,
    /// It was there at this time at the latest.
    pub born_by: Option<u64>,
    /// When it was first seen.
    pub seen_by: Option<u64>,
    /// It was gone at this time at the latest.
    pub gone_by: Option<u64>,
    pub endings: Vec<Ending<'a>>,
    /// STOREs that named it and were not refused.
    pub stores: Vec<&'a Event>,
}

/// One message, all its copies.
#[derive(Default)]
pub(super) struct TokenFacts<'a> {
    pub deliveries: Vec<&'a Event>,
    /// COPYs: of which place, and whether acknowledged as done.
    pub copies: Vec<(Place<'a>, bool)>,
    /// Moves and copies of it, done or perhaps done, that told no UIDs.
    pub carries: Vec<Carry<'a>>,
}

/// A move or copy of one message under a UID nobody told.
pub(super) struct Carry<'a> {
    pub event: &'a Event,
    pub from: Place<'a>,
    pub to: &'a str,
}

/// A message that is in a mailbox under a UID nobody told.
pub(super) struct Arrival<'a> {
    pub key: MailboxKey<'a>,
    pub token: &'a str,
    pub by: u64,
    pub event: &'a Event,
}

/// All facts of a history.
#[derive(Default)]
pub(super) struct Ledger<'a> {
    pub reads: Vec<Read<'a>>,
    pub places: BTreeMap<Place<'a>, PlaceFacts<'a>>,
    /// By account and token.
    pub tokens: BTreeMap<(&'a str, &'a str), TokenFacts<'a>>,
    pub arrivals: Vec<Arrival<'a>>,
    /// UIDs given out by acknowledged operations, with the operation.
    pub placements: Vec<(Place<'a>, &'a Event)>,
    /// UIDVALIDITY as told, with the time it was told.
    pub validities: Vec<(MailboxKey<'a>, u32, u64)>,
    /// Accounts of which every mailbox was looked into in the end.
    pub has_final: BTreeSet<&'a str>,
}

impl<'a> Ledger<'a> {
    pub fn of(history: &'a History, verdicts: &mut Verdicts) -> Self {
        let mut ledger = Self::default();
        for record in &history.records {
            match record {
                Record::Event(event) => ledger.note(event, verdicts),
                Record::Final { account, mailbox, view } => {
                    ledger.has_final.insert(account);
                    let key = (account.as_str(), mailbox.as_str());
                    ledger.reads.push(Read { key, start: AT_THE_END, end: AT_THE_END, view });
                }
                Record::Disconnect { .. }
                | Record::Idle { .. }
                | Record::Fault(_)
                | Record::Replica(_)
                | Record::Copies(_) => {}
            }
        }
        for account in super::unread(history) {
            ledger.has_final.remove(account);
        }
        ledger.reads.sort_by_key(|read| (read.end, read.start));
        ledger.learn_from_reads(verdicts);
        ledger.learn_from_moves();
        ledger
    }

    /// All places of one mailbox.
    pub fn places_of(
        &self,
        key: MailboxKey<'a>,
    ) -> impl Iterator<Item = (&Place<'a>, &PlaceFacts<'a>)> {
        self.places.range((key.0, key.1, 0)..=(key.0, key.1, u32::MAX))
    }

    fn note(&mut self, event: &'a Event, verdicts: &mut Verdicts) {
        let account = event.account.as_str();
        match &event.operation {
            Operation::Deliver { mailbox, token, .. } => {
                self.tokens.entry((account, token)).or_default().deliveries.push(event);
                self.note_delivery(event, (account, mailbox), token, verdicts);
            }
            Operation::Store { mailbox, targets, .. } => {
                for target in targets.iter().filter(|target| outcome(event, target) != Some(false))
                {
                    self.place((account, mailbox, target.uid), &target.token).stores.push(event);
                }
            }
            Operation::Expunge { mailbox, targets } => {
                self.note_endings(event, (account, mailbox), targets, None);
            }
            Operation::Move { from, to, targets } => {
                self.note_endings(event, (account, from), targets, Some(to));
                self.note_carried(event, (account, to), targets, verdicts);
            }
            Operation::Copy { from, to, targets } => {
                for target in targets {
                    if let Some(done) = may_be_done(event, target) {
                        let facts = self.tokens.entry((account, &target.token)).or_default();
                        facts.copies.push(((account, from, target.uid), done));
                    }
                }
                self.note_carried(event, (account, to), targets, verdicts);
            }
            Operation::Read { mailbox } => {
                if let Verdict::Acknowledged { reply: Reply::Viewed(view) } = &event.verdict {
                    let (start, end) = (event.start_us, event.end_us);
                    self.reads.push(Read { key: (account, mailbox), start, end, view });
                }
            }
        }
    }

    fn note_delivery(
        &mut self,
        event: &'a Event,
        key: MailboxKey<'a>,
        token: &'a str,
        verdicts: &mut Verdicts,
    ) {
        let Verdict::Acknowledged { reply } = &event.verdict else { return };
        let Reply::Placed(placed) = reply else {
            self.arrivals.push(Arrival { key, token, by: event.end_us, event });
            return;
        };
        self.validities.push((key, placed.uid_validity, event.end_us));
        for uid in &placed.uids {
            let place = (key.0, key.1, *uid);
            self.born(place, token, Birth::Delivered(event), verdicts);
        }
    }

    fn note_endings(
        &mut self,
        event: &'a Event,
        key: MailboxKey<'a>,
        targets: &'a [Target],
        to: Option<&'a str>,
    ) {
        for target in targets {
            if let Some(done) = may_be_done(event, target) {
                let facts = self.place((key.0, key.1, target.uid), &target.token);
                facts.endings.push(Ending { event, done, to });
                if done {
                    facts.gone_by = earliest(facts.gone_by, event.end_us);
                }
            }
        }
    }

    fn note_carried(
        &mut self,
        event: &'a Event,
        to: MailboxKey<'a>,
        targets: &'a [Target],
        verdicts: &mut Verdicts,
    ) {
        let (Operation::Move { from, .. } | Operation::Copy { from, .. }) = &event.operation else {
            return;
        };
        let Verdict::Acknowledged { reply: Reply::Placed(placed) } = &event.verdict else {
            for target in targets.iter().filter(|target| may_be_done(event, target).is_some()) {
                let facts = self.tokens.entry((to.0, &target.token)).or_default();
                facts.carries.push(Carry { event, from: (to.0, from, target.uid), to: to.1 });
            }
            return;
        };
        self.validities.push((to, placed.uid_validity, event.end_us));
        for (source, uid) in placed.sources.iter().zip(&placed.uids) {
            if let Some(target) = targets.iter().find(|target| target.uid == *source) {
                let birth = Birth::Carried(event, (to.0, from, *source));
                self.born((to.0, to.1, *uid), &target.token, birth, verdicts);
            }
        }
    }

    /// An acknowledged operation told the UID it gave.
    fn born(
        &mut self,
        place: Place<'a>,
        token: &'a str,
        birth: Birth<'a>,
        verdicts: &mut Verdicts,
    ) {
        let (Birth::Delivered(event) | Birth::Carried(event, _)) = birth;
        self.placements.push((place, event));
        let facts = self.place(place, token);
        if facts.token != token || facts.birth.is_some() {
            say_reused(place, facts.token, token, event.end_us, verdicts);
            return;
        }
        facts.birth = Some(birth);
        facts.born_by = earliest(facts.born_by, event.end_us);
    }

    fn place(&mut self, place: Place<'a>, token: &'a str) -> &mut PlaceFacts<'a> {
        self.places.entry(place).or_insert_with(|| PlaceFacts {
            token,
            birth: None,
            born_by: None,
            seen_by: None,
            gone_by: None,
            endings: Vec::new(),
            stores: Vec::new(),
        })
    }

    /// What was seen was there; what is not there any more, is gone from then on.
    fn learn_from_reads(&mut self, verdicts: &mut Verdicts) {
        let reads = std::mem::take(&mut self.reads);
        for read in &reads {
            self.validities.push((read.key, read.view.uid_validity, read.end));
            for message in &read.view.messages {
                let place = (read.key.0, read.key.1, message.uid);
                let facts = self.place(place, &message.token);
                if facts.token != message.token {
                    say_reused(place, facts.token, &message.token, read.end, verdicts);
                }
                facts.seen_by = earliest(facts.seen_by, read.end);
                facts.born_by = earliest(facts.born_by, read.end);
            }
        }
        for read in reads.iter().filter(|read| read.view.complete) {
            let seen: BTreeSet<u32> =
                read.view.messages.iter().map(|message| message.uid).collect();
            let (account, mailbox) = read.key;
            for (place, facts) in
                self.places.range_mut((account, mailbox, 0)..=(account, mailbox, u32::MAX))
            {
                let was_there = facts.born_by.is_some_and(|by| by < read.start);
                if was_there && !seen.contains(&place.2) {
                    facts.gone_by = earliest(facts.gone_by, read.end);
                }
            }
        }
        self.reads = reads;
    }

    /// A move that shows at one end has happened at the other.
    fn learn_from_moves(&mut self) {
        let mut gone = Vec::new();
        for facts in self.places.values() {
            if let (Some(Birth::Carried(event, from)), Some(seen)) = (facts.birth, facts.seen_by)
                && matches!(event.operation, Operation::Move { .. })
            {
                gone.push((from, seen));
            }
        }
        for (from, by) in gone {
            if let Some(facts) = self.places.get_mut(&from) {
                facts.gone_by = earliest(facts.gone_by, by);
            }
        }
        let mut arrivals = Vec::new();
        for (place, facts) in &self.places {
            let [Ending { event, to: Some(to), .. }] = facts.endings[..] else { continue };
            if let Some(by) = facts.gone_by {
                arrivals.push(Arrival { key: (place.0, to), token: facts.token, by, event });
            }
        }
        self.arrivals.append(&mut arrivals);
    }
}

/// Whether an operation was done to a target; `None` when nobody knows.
pub(super) fn outcome(event: &Event, target: &Target) -> Option<bool> {
    match &event.verdict {
        Verdict::Refused { .. } => Some(false),
        Verdict::Unknown { .. } => None,
        Verdict::Acknowledged { reply } => Some(match reply {
            Reply::Changed { uids } => uids.contains(&target.uid),
            Reply::Placed(Placed { sources, .. }) => sources.contains(&target.uid),
            Reply::Done | Reply::Viewed(_) => true,
        }),
    }
}

/// `None` if it was not done; else whether it is known to be done.
fn may_be_done(event: &Event, target: &Target) -> Option<bool> {
    match outcome(event, target) {
        Some(false) => None,
        Some(true) => Some(true),
        None => Some(false),
    }
}

fn earliest(known: Option<u64>, new: u64) -> Option<u64> {
    Some(known.map_or(new, |known| known.min(new)))
}

fn say_reused(place: Place<'_>, old: &str, new: &str, time: u64, verdicts: &mut Verdicts) {
    let (account, mailbox, uid) = place;
    let sentence = format!(
        "{account} {mailbox}: UID {uid} was given to {old} and, as told at {}, to {new}",
        at(time)
    );
    verdicts.say(Promise::NumbersAscend, format!("reused {account} {mailbox} {uid}"), sentence);
}
