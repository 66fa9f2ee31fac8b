//! What the writer, the readers and the owner of a journal share.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::error::Error;
use crate::frame::Salt;
use crate::identity;
use crate::options::Options;
use crate::queue::Queue;
use crate::record::{DiskId, Location, SegmentId};
use crate::segment::Files;
use crate::state::State;
use crate::storage::Storage;

pub(crate) struct Shared {
    pub storage: Arc<dyn Storage>,
    pub disk: DiskId,
    pub start_count: u64,
    pub options: Options,
    pub files: Files,
    pub queue: Queue,
    pub counters: Counters,
    /// Sequence of the last frame that is synced, with everything before it.
    pub synced_sequence: AtomicU64,
    /// What a sync takes, smoothed.
    pub sync_time_us: AtomicU64,
    index: Mutex<Index>,
    health: Mutex<Health>,
}

/// What is durable.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pub state: State,
    /// Used bytes of each segment, the open one included.
    pub segments: Segments,
    pub open: SegmentId,
    /// Bodies in the open segment.
    pub open_blobs: Vec<Location>,
    /// The log start in the newest synced manifest: segments below may be deleted.
    pub manifest_log_start: SegmentId,
}

/// Used bytes of each segment, and their sum: there are some ten thousand on a large disk.
#[derive(Debug, Default)]
pub(crate) struct Segments {
    lens: BTreeMap<SegmentId, u64>,
    n_bytes: u64,
}

impl Segments {
    pub fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    pub fn insert(&mut self, segment: SegmentId, len: u64) {
        let before = self.lens.insert(segment, len).unwrap_or_default();
        self.n_bytes = self.n_bytes - before + len;
    }

    pub fn remove(&mut self, segment: SegmentId) {
        self.n_bytes -= self.lens.remove(&segment).unwrap_or_default();
    }
}

impl From<BTreeMap<SegmentId, u64>> for Segments {
    fn from(lens: BTreeMap<SegmentId, u64>) -> Self {
        Self { n_bytes: lens.values().sum(), lens }
    }
}

impl Deref for Segments {
    type Target = BTreeMap<SegmentId, u64>;

    fn deref(&self) -> &Self::Target {
        &self.lens
    }
}

/// Numbers that only grow.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub n_syncs: AtomicU64,
    pub n_frames: AtomicU64,
    pub n_records: AtomicU64,
    pub n_bytes: AtomicU64,
}

struct Health {
    poisoned: Option<String>,
    last_sync: Instant,
    pending_since: Option<Instant>,
    n_working: u32,
}

/// The writer does something with the storage as long as this lives.
pub(crate) struct Working(Arc<Shared>);

impl Drop for Working {
    fn drop(&mut self) {
        let mut health = self.0.health();
        health.n_working -= 1;
        if health.n_working == 0 {
            health.pending_since = None;
        }
    }
}

/// When the disk last answered. A disk that hangs has an old `pending_since`.
#[derive(Clone, Copy, Debug)]
pub struct SyncHealth {
    /// End of the last completed sync.
    pub last_completed: Instant,
    /// Since when the writer waits for the storage, be it for a frame or for a new segment; `None` if it
    /// waits for nothing.
    pub pending_since: Option<Instant>,
}

impl Shared {
    pub fn new(
        storage: Arc<dyn Storage>,
        (disk, start_count): (DiskId, u64),
        options: Options,
        index: Index,
    ) -> Self {
        Self {
            files: Files::new(Arc::clone(&storage)),
            queue: Queue::new(options.queue_bytes),
            storage,
            disk,
            start_count,
            options,
            counters: Counters::default(),
            synced_sequence: AtomicU64::new(0),
            sync_time_us: AtomicU64::new(0),
            index: Mutex::new(index),
            health: Mutex::new(Health {
                poisoned: None,
                last_sync: Instant::now(),
                pending_since: None,
                n_working: 0,
            }),
        }
    }

    pub fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn salt(&self, segment: SegmentId) -> Salt {
        Salt::new(self.disk, segment)
    }

    pub fn poisoned(&self) -> Option<Error> {
        self.health().poisoned.clone().map(|reason| Error::Poisoned { reason })
    }

    /// Ends the disk's life, now and after every restart.
    pub fn poison(&self, reason: String) -> Error {
        let mut health = self.health();
        if let Some(reason) = &health.poisoned {
            return Error::Poisoned { reason: reason.clone() };
        }
        tracing::error!(disk = %self.disk, reason, "disk poisoned");
        health.poisoned = Some(reason.clone());
        drop(health);
        identity::write_poison(&*self.storage, &reason);
        Error::Poisoned { reason }
    }

    /// From now on, until what is given here goes, the writer waits for the storage.
    pub fn work(self: &Arc<Self>) -> Working {
        let mut health = self.health();
        health.n_working += 1;
        health.pending_since.get_or_insert_with(Instant::now);
        drop(health);
        Working(Arc::clone(self))
    }

    /// The storage did one thing; for the next one the writer waits from now on.
    pub fn answered(&self) {
        let mut health = self.health();
        if health.n_working > 0 {
            health.pending_since = Some(Instant::now());
        }
    }

    pub fn sync_completed(&self) {
        self.answered();
        self.health().last_sync = Instant::now();
        self.counters.n_syncs.fetch_add(1, Relaxed);
    }

    pub fn sync_health(&self) -> SyncHealth {
        let health = self.health();
        SyncHealth { last_completed: health.last_sync, pending_since: health.pending_since }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_that_of_all_segments() {
        let mut segments = Segments::from(BTreeMap::from([(SegmentId(1), 5), (SegmentId(2), 7)]));
        segments.insert(SegmentId(2), 9);
        segments.insert(SegmentId(3), 1);
        segments.remove(SegmentId(1));
        segments.remove(SegmentId(1));
        assert_eq!((segments.n_bytes(), segments.len()), (10, 2));
        assert_eq!(segments.n_bytes(), segments.values().sum::<u64>());
    }
}
