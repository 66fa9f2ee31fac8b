//! Frames that are written and whose sync has not ended.
//!
//! Where a sync takes long the next frame does not wait for its end: it is written and synced while
//! those before still are. Promises: frames are answered in the order of the stream, and with `Ok` only
//! when their own sync and those of all frames before have succeeded.
//!
//! Invariant: each of these syncs goes through an open file of its own, opened before its frame was
//! written. Linux tells of a failed write once to each open file; of two syncs of the same file only one
//! would hear of it, and it could be that of the later frame.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::frame::Position;
use crate::group::Group;
use crate::shared::Shared;
use crate::storage::StorageFile;

/// Syncs of one journal under way at once. Limit: a request waits for the begin of the next one and then
/// for its end, 1.5 syncs in the mean with one at a time, 1.25 with two, 1.17 with three. Where a sync takes
/// 5 ms the third brought 8 % more deliveries than two, with smaller frames and so 9 % more CPU for each; a
/// fourth brought 3 %, and more is left to be cut off when the power goes.
pub(crate) const OVERLAP_MAX: u32 = 3;
/// So many requests are worth a sync beside as many others as there may be. For fewer one less is under way:
/// where cores are short, frames of one entry take more of them than they save time.
const CROWD: usize = 2;
/// How much one sync counts for what a sync takes.
const SMOOTHING: u32 = 4;

/// Shared by the writer and the threads that sync.
pub(crate) struct InFlight {
    inner: Mutex<Inner>,
    /// There is something to sync, or there never will be again.
    work: Condvar,
    /// A frame was answered that was the last one, or one of as many as there may be.
    answered: Condvar,
    /// A sync that takes so long is overlapped.
    overlap_from: Duration,
}

struct Inner {
    frames: VecDeque<Flight>,
    /// Bodies in frames that are not answered.
    n_blobs: usize,
    /// Somebody answers the frame that was the first, and looks again afterwards.
    is_answering: bool,
    is_closed: bool,
    /// End of the last sync that ended like all before it.
    durable: Position,
    /// What a sync takes, smoothed.
    sync_time: Duration,
    last_begin: Instant,
    /// Files of the open segment that no frame uses.
    files: Vec<Arc<dyn StorageFile>>,
}

struct Flight {
    group: Group,
    file: Arc<dyn StorageFile>,
    stage: Stage,
}

enum Stage {
    Written,
    Syncing,
    /// Successfully, or the disk is poisoned.
    Ended,
}

impl Inner {
    fn is_empty(&self) -> bool {
        self.frames.is_empty() && !self.is_answering
    }

    /// Whether somebody may have waited for the frame that was answered now. Else the writer waits for the
    /// clock.
    fn is_awaited(&self) -> bool {
        self.is_empty() || self.frames.len() + 1 >= OVERLAP_MAX as usize
    }

    fn measure(&mut self, took: Duration) {
        self.sync_time = (self.sync_time * (SMOOTHING - 1) + took) / SMOOTHING;
    }
}

impl InFlight {
    pub fn new(durable: Position, overlap_from: Duration) -> Self {
        let inner = Inner {
            frames: VecDeque::new(),
            n_blobs: 0,
            is_answering: false,
            is_closed: false,
            durable,
            sync_time: Duration::ZERO,
            last_begin: Instant::now(),
            files: Vec::new(),
        };
        let (work, answered) = (Condvar::new(), Condvar::new());
        Self { inner: Mutex::new(inner), work, answered, overlap_from }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True if the next frame is to be synced by a thread of its own.
    pub fn is_overlapped(&self) -> bool {
        let inner = self.lock();
        inner.sync_time >= self.overlap_from || !inner.is_empty()
    }

    /// What a sync takes, smoothed.
    pub fn sync_time(&self) -> Duration {
        self.lock().sync_time
    }

    pub fn durable(&self) -> Position {
        self.lock().durable
    }

    pub fn n_blobs(&self) -> usize {
        self.lock().n_blobs
    }

    /// The writer synced something itself; nothing was in flight.
    pub fn synced(&self, durable: Position, took: Duration) {
        let mut inner = self.lock();
        inner.durable = durable;
        inner.measure(took);
    }

    /// Another segment was begun; nothing was in flight.
    pub fn begin_segment(&self, durable: Position) {
        let mut inner = self.lock();
        inner.durable = durable;
        inner.files.clear();
    }

    /// Waits until it is time for another frame: the beginnings of syncs are spread evenly over the time
    /// that one takes, so that frames stay as large as they may be, and further apart while few wait
    /// (`n_waiting`).
    pub fn wait_for_turn(&self, n_waiting: impl Fn() -> usize) {
        let mut inner = self.lock();
        loop {
            let now = Instant::now();
            let soon = inner.last_begin + inner.sync_time / OVERLAP_MAX;
            let late = inner.last_begin + inner.sync_time / (OVERLAP_MAX - 1);
            // Why asked only then: until then it does not matter.
            let due = if now < soon || n_waiting() >= CROWD { soon } else { late };
            let is_full = inner.frames.len() >= OVERLAP_MAX as usize;
            if inner.is_empty() || (!is_full && now >= due) {
                return;
            }
            // Why also when it is full: the end of a sync wakes up, whenever it comes.
            let patience = if is_full { Duration::MAX } else { due - now };
            let waited = self.answered.wait_timeout(inner, patience);
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until nothing is in flight.
    pub fn drain(&self) {
        let waited = self.answered.wait_while(self.lock(), |inner| !inner.is_empty());
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// A file that no other frame in flight uses.
    pub fn file(
        &self,
        open: impl FnOnce() -> io::Result<Arc<dyn StorageFile>>,
    ) -> io::Result<Arc<dyn StorageFile>> {
        let free = self.lock().files.pop();
        free.map_or_else(open, Ok)
    }

    /// Takes over a frame that was written to `file`; if that failed, the disk is poisoned.
    pub fn begin(
        &self,
        group: Group,
        file: Arc<dyn StorageFile>,
        is_written: bool,
        shared: &Shared,
    ) {
        let stage = if is_written { Stage::Written } else { Stage::Ended };
        let mut inner = self.lock();
        inner.last_begin = Instant::now();
        inner.n_blobs += group.n_blobs();
        inner.frames.push_back(Flight { group, file, stage });
        drop(inner);
        if is_written {
            self.work.notify_one();
        } else {
            self.answer(shared);
        }
    }

    /// Starts a thread that syncs.
    pub fn start(this: &Arc<Self>, shared: &Arc<Shared>) -> io::Result<JoinHandle<()>> {
        let (this, shared) = (Arc::clone(this), Arc::clone(shared));
        let thread = std::thread::Builder::new().name("journal-sync".to_owned());
        thread.spawn(move || this.run(&shared))
    }

    /// Ends the threads when nothing is left to sync.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.work.notify_all();
    }

    fn run(&self, shared: &Shared) {
        while let Some((sequence, file)) = self.next() {
            let begun = Instant::now();
            // Durability: the frame was written through this very file, before.
            let synced = file.sync_data();
            drop(file);
            let took = begun.elapsed();
            match synced {
                Ok(()) => shared.sync_completed(),
                Err(error) => drop(shared.poison(format!("sync a frame: {error}"))),
            }
            self.ended(sequence, took);
            self.answer(shared);
        }
    }

    fn next(&self) -> Option<(u64, Arc<dyn StorageFile>)> {
        let mut inner = self.lock();
        loop {
            let is_written = |flight: &&mut Flight| matches!(flight.stage, Stage::Written);
            if let Some(flight) = inner.frames.iter_mut().find(is_written) {
                flight.stage = Stage::Syncing;
                return Some((flight.group.sequence, Arc::clone(&flight.file)));
            }
            if inner.is_closed {
                return None;
            }
            inner = self.work.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn ended(&self, sequence: u64, took: Duration) {
        let mut inner = self.lock();
        inner.measure(took);
        let mut frames = inner.frames.iter_mut();
        if let Some(flight) = frames.find(|flight| flight.group.sequence == sequence) {
            flight.stage = Stage::Ended;
        }
    }

    /// Answers the frames whose sync has ended and before which there is none any more.
    fn answer(&self, shared: &Shared) {
        let mut inner = self.lock();
        // Why not wait: who answers now looks again when that is done.
        while !inner.is_answering {
            let is_ended = |flight: &Flight| matches!(flight.stage, Stage::Ended);
            if !inner.frames.front().is_some_and(is_ended) {
                return;
            }
            let Some(Flight { group, file, .. }) = inner.frames.pop_front() else { return };
            inner.is_answering = true;
            let durable = inner.durable;
            drop(inner);
            // Why: if this one or one before is not on the disk, a start cuts it off.
            let synced = shared.poisoned().map_or(Ok(()), Err);
            let durable = if synced.is_ok() { group.end } else { durable };
            let n_blobs = group.n_blobs();
            group.answer(shared, synced);
            inner = self.lock();
            inner.is_answering = false;
            inner.n_blobs -= n_blobs;
            inner.durable = durable;
            inner.files.push(file);
            if inner.is_awaited() {
                self.answered.notify_all();
            }
        }
    }
}
