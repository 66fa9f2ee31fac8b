//! The requests of one frame, from when they were taken to their answers.

use std::sync::atomic::Ordering::Relaxed;

use crate::encode::Prepared;
use crate::error::Error;
use crate::frame::Position;
use crate::queue::Done;
use crate::record::{Location, Written};
use crate::segment::Need;
use crate::shared::{Shared, Working};

/// A request that is not written yet.
pub(crate) struct Waiting {
    pub records: Vec<Prepared>,
    pub disk_len: u64,
    pub need: Need,
    pub done: Done,
}

impl Waiting {
    pub fn n_blobs(&self) -> usize {
        self.records.iter().map(|prepared| prepared.record.blobs().len()).sum()
    }
}

/// What went into one frame.
pub(crate) struct Group {
    pub sequence: u64,
    pub begin: u64,
    pub end: Position,
    /// Records nobody waits for.
    pub lazy: Vec<Prepared>,
    pub requests: Vec<(Waiting, Vec<Written>)>,
    /// Until the answer the writer waits for the storage.
    pub working: Working,
}

impl Group {
    pub fn n_blobs(&self) -> usize {
        self.requests.iter().map(|(waiting, _)| waiting.n_blobs()).sum()
    }

    /// Tells everybody who waits what became of the frame.
    pub fn answer(self, shared: &Shared, synced: Result<(), Error>) {
        if synced.is_ok() {
            shared.counters.n_frames.fetch_add(1, Relaxed);
            shared.counters.n_bytes.fetch_add(self.end.offset - self.begin, Relaxed);
            shared.synced_sequence.store(self.sequence, Relaxed);
            self.learn(shared);
        }
        let n_bytes = self.requests.iter().map(|(waiting, _)| waiting.disk_len).sum();
        for (waiting, pointers) in self.requests {
            (waiting.done)(synced.clone().map(|()| pointers));
        }
        shared.queue.release(n_bytes);
        drop(self.working);
    }

    fn learn(&self, shared: &Shared) {
        let mut index = shared.index();
        let segment = self.end.segment;
        index.segments.insert(segment, self.end.offset);
        for prepared in &self.lazy {
            index.state.apply(&prepared.record, segment);
        }
        for (waiting, written) in &self.requests {
            for (prepared, written) in waiting.records.iter().zip(written) {
                index.state.apply(&prepared.record, segment);
                shared.counters.n_records.fetch_add(1, Relaxed);
                let replica = prepared.record.replica();
                for (blob, pointer) in prepared.record.blobs().iter().zip(&written.blobs) {
                    let digest = blob.digest;
                    index.open_blobs.push(Location { replica, digest, pointer: *pointer });
                }
            }
        }
    }
}
