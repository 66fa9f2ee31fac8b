//! Who waits in IDLE is told of what arrives.

use std::collections::BTreeMap;

use super::{Promise, Verdicts, at};
use crate::history::{History, Operation, Record, Verdict};

/// Limit: a failure is over, and told of, long before a person has turned away.
const NEWS_MAX_US: u64 = 10_000_000;

pub(super) fn check(history: &History, verdicts: &mut Verdicts) {
    for (idle, lag_us) in lags(history) {
        let Record::Idle { client, account, mailbox, end_us, .. } = idle else { continue };
        if lag_us > NEWS_MAX_US {
            let sentence = format!(
                "{account} {mailbox}: client {client} waited in IDLE until {}, {} after a message \
                 had arrived",
                at(*end_us),
                at(lag_us)
            );
            verdicts.say(Promise::NewsArrive, format!("{client} {end_us}"), sentence);
        }
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
