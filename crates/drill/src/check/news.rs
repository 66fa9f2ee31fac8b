//! Who waits in IDLE is told of what arrives.

use std::collections::BTreeMap;

use super::{Promise, Verdicts, at};
use crate::history::{History, Operation, Record, Verdict};

/// Limit: a failure is over, and told of, long before a person has turned away.
const NEWS_MAX_US: u64 = 10_000_000;

/// Limit: an account that nothing succeeds in for so long is away: its clients work all the time.
const SILENCE_US: u64 = 1_000_000;

pub(super) fn check(history: &History, verdicts: &mut Verdicts) {
    let outages = Outages::of(history);
    for (idle, lag_us) in lags(history) {
        let Record::Idle { client, account, mailbox, end_us, .. } = idle else { continue };
        // Why: who cannot be asked cannot tell. What was hurt may be the one frontend that has this client.
        let since_us = outages.over(account, (end_us - lag_us, *end_us));
        let lag_us = end_us.saturating_sub(since_us);
        if lag_us > NEWS_MAX_US {
            let sentence = format!(
                "{account} {mailbox}: client {client} waited in IDLE until {}, {} after a message \
                 had arrived and nothing stood in its way",
                at(*end_us),
                at(lag_us)
            );
            verdicts.say(Promise::NewsArrive, format!("{client} {end_us}"), sentence);
        }
    }
}

/// When a store may not have been able to tell anything.
struct Outages<'a> {
    faults: Vec<(u64, u64)>,
    /// By account: between two successes that lie far apart.
    silences: BTreeMap<&'a str, Vec<(u64, u64)>>,
}

impl<'a> Outages<'a> {
    fn of(history: &'a History) -> Self {
        let faults = history.records.iter().filter_map(|record| match record {
            Record::Fault(fault) => Some((fault.start_us, fault.end_us)),
            _ => None,
        });
        let mut successes: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for event in history.events() {
            if let Verdict::Acknowledged { .. } = event.verdict {
                successes.entry(&event.account).or_default().push(event.end_us);
            }
        }
        let silences = successes.into_iter().map(|(account, mut times)| {
            times.sort_unstable();
            let pairs = times.windows(2).map(|pair| (pair[0], pair[1]));
            (account, pairs.filter(|(from, to)| to - from >= SILENCE_US).collect())
        });
        Self { faults: faults.collect(), silences: silences.collect() }
    }

    /// When the last outage that touched this time was over; its beginning if none did.
    fn over(&self, account: &str, (start, end): (u64, u64)) -> u64 {
        let silences = self.silences.get(account).map_or(&[][..], |found| found);
        let all = self.faults.iter().chain(silences);
        let touching = all.filter(|(from, to)| *from <= end && *to >= start);
        touching.map(|(_, to)| *to).max().unwrap_or(start).max(start)
    }
}

/// How long each IDLE that ended waited for news that was there: a delivery that began after it, and
/// was acknowledged.
pub(crate) fn lags(history: &History) -> impl Iterator<Item = (&Record, u64)> {
    let mut arrivals: BTreeMap<(&str, &str), Vec<(u64, u64)>> = BTreeMap::new();
    for event in history.events() {
        if let (Operation::Deliver { mailbox, .. }, Verdict::Acknowledged { .. }) =
            (&event.operation, &event.verdict)
        {
            let of = (event.account.as_str(), mailbox.as_str());
            arrivals.entry(of).or_default().push((event.start_us, event.end_us));
        }
    }
    history.records.iter().filter_map(move |record| {
        let Record::Idle { account, mailbox, start_us, end_us, .. } = record else { return None };
        let arrived = arrivals.get(&(account.as_str(), mailbox.as_str()))?.iter();
        let later = arrived.filter(|(start, end)| start >= start_us && end < end_us);
        later.map(|(_, end)| end_us - end).max().map(|lag| (record, lag))
    })
}
