//! A history in a few numbers that can be drawn.

use serde::Serialize;

use crate::availability::waits;
use crate::history::{History, Record, Verdict};

/// Width of a bucket.
const BUCKET_US: u64 = 100_000;
/// Waits that are drawn: longer than anything usual.
const SHOWN_US: u64 = 100_000;

/// What the plot shows.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Timeline {
    /// When the last record was written.
    pub end_us: u64,
    /// Width of a bucket of `acknowledged`.
    pub bucket_us: u64,
    /// Acknowledged operations of all clients, by the time of their acknowledgement.
    pub acknowledged: Vec<u32>,
    /// Long waits.
    pub waits: Vec<Wait>,
    /// Lost connections: client and time.
    pub disconnects: Vec<(u32, u64)>,
}

/// A client that waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Wait {
    /// Who.
    pub client: u32,
    /// Since when.
    pub from_us: u64,
    /// Until when.
    pub to_us: u64,
}

impl Timeline {
    /// Of a whole history.
    pub fn of(history: &History) -> Self {
        let mut found = Self { bucket_us: BUCKET_US, ..Self::default() };
        for record in &history.records {
            match record {
                Record::Event(event) => {
                    found.end_us = found.end_us.max(event.end_us);
                    if let Verdict::Acknowledged { .. } = event.verdict {
                        let at = (event.end_us / BUCKET_US) as usize;
                        if found.acknowledged.len() <= at {
                            found.acknowledged.resize(at + 1, 0);
                        }
                        found.acknowledged[at] += 1;
                    }
                }
                Record::Disconnect { client, at_us } => found.disconnects.push((*client, *at_us)),
                _ => {}
            }
        }
        found.waits = waits(history)
            .filter(|(_, from_us, to_us)| to_us - from_us > SHOWN_US)
            .map(|(client, from_us, to_us)| Wait { client, from_us, to_us })
            .collect();
        found
    }
}
