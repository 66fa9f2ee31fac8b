//! How long clients had to wait, and how often they were cut off.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::history::{Event, History, Record, Verdict};

/// What clients felt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Availability {
    /// Each client for itself.
    pub clients: BTreeMap<u32, ClientAvailability>,
    /// The longest wait of any client, in microseconds.
    pub longest_us: u64,
    /// Connections lost, of all clients.
    pub n_disconnects: usize,
}

/// What one client felt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientAvailability {
    /// Operations that were acknowledged.
    pub n_acknowledged: usize,
    /// Operations that were refused.
    pub n_refused: usize,
    /// Operations of which it never heard.
    pub n_unknown: usize,
    /// From the start of the first try after a success until the next success; the time a client
    /// does nothing by its own choice does not count. Without a further success: until its last try.
    pub longest_us: u64,
    /// When that longest wait began.
    pub longest_from_us: u64,
    /// Connections lost.
    pub n_disconnects: usize,
}

/// Every wait of every client: who, from when, until when.
pub(crate) fn waits(history: &History) -> impl Iterator<Item = (u32, u64, u64)> {
    let mut events: Vec<&Event> = history.events().collect();
    events.sort_by_key(|event| (event.client, event.start_us, event.end_us));
    let mut found = Vec::new();
    for of_client in events.chunk_by(|a, b| a.client == b.client) {
        let client = of_client[0].client;
        found.extend(waits_of_one(of_client).into_iter().map(|(from, to)| (client, from, to)));
    }
    found.into_iter()
}

/// A wait is from the start of the first try after a success until the next success, or the end of
/// the last try; the time a client does nothing by its own choice does not count.
fn waits_of_one(events: &[&Event]) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    let mut since = None;
    for event in events {
        let from = *since.get_or_insert(event.start_us);
        if let Verdict::Acknowledged { .. } = event.verdict {
            found.push((from, event.end_us));
            since = None;
        }
    }
    if let (Some(from), Some(last)) = (since, events.last()) {
        found.push((from, last.end_us));
    }
    found
}

/// Measures a history.
pub fn availability(history: &History) -> Availability {
    let mut events: Vec<&Event> = history.events().collect();
    events.sort_by_key(|event| (event.client, event.start_us, event.end_us));
    let mut found = Availability::default();
    for of_client in events.chunk_by(|a, b| a.client == b.client) {
        found.clients.insert(of_client[0].client, of_one(of_client));
    }
    for record in &history.records {
        if let Record::Disconnect { client, .. } = record {
            found.clients.entry(*client).or_default().n_disconnects += 1;
            found.n_disconnects += 1;
        }
    }
    found.longest_us = found.clients.values().map(|client| client.longest_us).max().unwrap_or(0);
    found
}

fn of_one(events: &[&Event]) -> ClientAvailability {
    let mut found = ClientAvailability::default();
    for (from, to) in waits_of_one(events) {
        let waited = to.saturating_sub(from);
        if waited > found.longest_us {
            (found.longest_us, found.longest_from_us) = (waited, from);
        }
    }
    for event in events {
        match event.verdict {
            Verdict::Acknowledged { .. } => found.n_acknowledged += 1,
            Verdict::Refused { .. } => found.n_refused += 1,
            Verdict::Unknown { .. } => found.n_unknown += 1,
        }
    }
    found
}
