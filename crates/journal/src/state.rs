//! What the journal itself remembers of each replica: enough for a manifest, and for knowing which
//! segments still hold log entries somebody needs.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::record::{Record, ReplicaId, SegmentId};

/// Indexes of the entries a segment holds for one replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub first: u64,
    pub last: u64,
}

/// One replica as a manifest tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReplicaState {
    pub born: Option<Bytes>,
    pub dead: bool,
    /// Records of it may be missing. Stays true until the replica is dead, or trusted all the same.
    pub suspect: bool,
    pub vote: Option<Bytes>,
    /// Last purged index and the meta of that purge.
    pub floor: Option<(u64, Bytes)>,
    pub last_index: Option<u64>,
    pub committed: Option<Bytes>,
    /// Not in the manifest of a segment as such: where the entries above the floor are.
    pub spans: BTreeMap<SegmentId, Span>,
}

/// All replicas of a disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub replicas: BTreeMap<ReplicaId, ReplicaState>,
}

impl State {
    pub fn apply(&mut self, record: &Record, segment: SegmentId) {
        let replica = self.replicas.entry(record.replica()).or_default();
        match record {
            Record::Vote { vote, .. } => replica.vote = Some(vote.clone()),
            Record::Append { index, .. } => replica.append(*index, segment),
            Record::Truncate { from_index_inclusive, .. } => {
                replica.truncate(*from_index_inclusive)
            }
            Record::Purge { upto_index_inclusive, meta, .. } => {
                replica.purge(*upto_index_inclusive, meta);
            }
            Record::Committed { meta, .. } => replica.committed = Some(meta.clone()),
            Record::Born { meta, .. } => replica.born = Some(meta.clone()),
            Record::Dead { .. } => {
                *replica = ReplicaState { dead: true, ..ReplicaState::default() };
            }
            Record::Blobs { .. } => {}
        }
    }

    /// The first segment whose log records are needed, `open` if none before it is.
    pub fn log_start(&self, open: SegmentId) -> SegmentId {
        let firsts = self.replicas.values().filter_map(|replica| replica.first_segment());
        firsts.min().unwrap_or(open).min(open)
    }
}

impl ReplicaState {
    pub fn first_segment(&self) -> Option<SegmentId> {
        self.spans.keys().next().copied()
    }

    pub fn append(&mut self, index: u64, segment: SegmentId) {
        self.last_index = Some(index);
        let span = self.spans.entry(segment).or_insert(Span { first: index, last: index });
        span.first = span.first.min(index);
        span.last = span.last.max(index);
    }

    pub fn truncate(&mut self, from: u64) {
        if self.last_index.is_some_and(|last| last >= from) {
            self.last_index = from.checked_sub(1);
        }
        self.spans.retain(|_, span| {
            span.last = span.last.min(from.saturating_sub(1));
            span.first < from
        });
    }

    pub fn purge(&mut self, upto: u64, meta: &Bytes) {
        if self.floor.as_ref().is_some_and(|(floor, _)| *floor > upto) {
            return;
        }
        self.floor = Some((upto, meta.clone()));
        if self.last_index.is_none_or(|last| last < upto) {
            self.last_index = Some(upto);
        }
        self.spans.retain(|_, span| span.last > upto);
    }
}
