//! The journal of one disk, as its owner sees it.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;

use crate::collect::{self, Collected, Collecting};
use crate::encode::Prepared;
use crate::error::Error;
use crate::identity;
use crate::options::{Options, RECORD_BLOBS_MAX, REQUEST_BYTES_MAX};
use crate::queue::{Done, Request, Taken};
use crate::record::{
    Blob, Digest, DiskId, Location, Pointer, Record, ReplicaId, SegmentId, Stored, Written,
};
use crate::recover::{self, Recovered};
use crate::scrub::{Scrub, Scrubbed};
use crate::segment::Need;
use crate::shared::{Shared, SyncHealth};
use crate::storage::Storage;
use crate::writer::Writer;

/// Whoever drops a journal does not wait for a disk that has not answered for so long.
const HUNG_AFTER: Duration = Duration::from_secs(2);
/// Whether it answers is looked at this often meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// One disk's append-only stream. Shared by all replicas on the disk; all methods take `&self`.
///
/// Dropping it answers what is queued, writes a mark, and joins the writer. A writer whose disk hangs is left
/// to itself: it ends when the disk answers, and has its files until then.
pub struct Journal {
    shared: Arc<Shared>,
    thread: Option<WriterThread>,
    /// The writer itself, if it has no thread.
    inline: Option<Mutex<Writer>>,
    scrub: Mutex<Scrub>,
    /// What the last collection left to the next one.
    collecting: Mutex<Collecting>,
}

struct WriterThread {
    handle: JoinHandle<()>,
    /// Nothing comes; it closes when the thread ends.
    ended: Mutex<mpsc::Receiver<()>>,
}

/// How full the disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SpaceLevel {
    /// Enough for everything.
    Ample,
    /// Refuse growth above the journal.
    Soft,
    /// The journal itself refuses bodies as soon as the open segment is used up.
    Hard,
}

/// Sizes and counts.
#[derive(Clone, Debug)]
pub struct Usage {
    /// Used bytes in all segments.
    pub n_bytes: u64,
    /// Segments, the open one included.
    pub n_segments: u64,
    /// Free bytes of the disk.
    pub free_bytes: u64,
    /// All bytes of the disk.
    pub total_bytes: u64,
    /// What the free bytes mean.
    pub space: SpaceLevel,
    /// Bytes waiting for the writer or being written.
    pub queued_bytes: u64,
    /// Completed syncs since the start.
    pub n_syncs: u64,
    /// Frames written since the start.
    pub n_frames: u64,
    /// Records written since the start.
    pub n_records: u64,
    /// Bytes written since the start.
    pub n_bytes_written: u64,
}

impl Journal {
    /// Gives an empty directory a disk identity. Explicit, once in a disk's life.
    pub fn format(storage: &dyn Storage, disk: DiskId) -> Result<(), Error> {
        identity::format(storage, disk)
    }

    /// Raises the start counter, recovers, and starts the writer.
    pub fn open(storage: Arc<dyn Storage>, options: Options) -> Result<(Self, Recovered), Error> {
        let is_threaded = options.threaded;
        let opened = recover::open(storage, options)?;
        let (thread, inline) = if is_threaded {
            let (ends, ended) = mpsc::channel();
            let thread = std::thread::Builder::new().name("journal".to_owned());
            let started = thread.spawn(move || {
                let _ends: mpsc::Sender<()> = ends;
                opened.writer.run();
            });
            let handle = started.map_err(Error::io("start the writer"))?;
            (Some(WriterThread { handle, ended: Mutex::new(ended) }), None)
        } else {
            (None, Some(Mutex::new(opened.writer)))
        };
        let journal = Self {
            shared: opened.shared,
            thread,
            inline,
            scrub: Mutex::default(),
            collecting: Mutex::default(),
        };
        Ok((journal, opened.recovered))
    }

    /// Queues records, which stay together, and returns at once. `done` is called from the writer
    /// when a sync has covered them, in the order of the calls; it must not block. If this
    /// returns an error, `done` is dropped without a call.
    pub fn append(&self, records: Vec<Record>, done: Done) -> Result<(), Error> {
        let need = need(&records);
        self.append_for(need, records, done)
    }

    /// Queues records that nobody waits for, such as [`Record::Committed`]: they go with the next
    /// frame, and are lost if there is none. Bodies are refused here.
    pub fn append_unsynced(&self, records: Vec<Record>) -> Result<(), Error> {
        assert!(records.iter().all(|record| record.blobs().is_empty()), "bodies are never lazy");
        let (records, disk_len) = self.prepare(records)?;
        self.shared.queue.push(Request::Lazy { records, disk_len })
    }

    /// Appends and waits. For callers with a thread to spare, and for tests.
    pub fn append_wait(&self, records: Vec<Record>) -> Result<Vec<Written>, Error> {
        self.wait(|done| self.append(records, done))
    }

    /// Copies of garbage collection, which go on while the disk is full.
    pub(crate) fn append_copies(&self, records: Vec<Record>) -> Result<Vec<Written>, Error> {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.when_room(Box::new(move || sender.send(()).unwrap_or_default()));
        self.pump();
        if receiver.recv().is_err() {
            return Err(Error::Closed);
        }
        self.wait(|done| self.append_for(Need::Vital, records, done))
    }

    fn append_for(&self, need: Need, records: Vec<Record>, done: Done) -> Result<(), Error> {
        let (records, disk_len) = self.prepare(records)?;
        self.shared.queue.push(Request::Records { records, disk_len, need, done })
    }

    /// Seals the open segment and begins another with a manifest of its own. Waits.
    pub fn roll(&self) -> Result<(), Error> {
        self.wait(|done| self.shared.queue.push(Request::Roll { done })).map(|_| ())
    }

    /// A replica counts as suspect no more, whatever damage took before, also after a restart. If this
    /// fails it may once more, since no manifest says so yet. Waits.
    pub fn trust(&self, replica: ReplicaId) -> Result<(), Error> {
        if let Some(state) = self.shared.index().state.replicas.get_mut(&replica) {
            state.suspect = false;
        }
        // Durability: the newest manifest counts, and the one that is written here says it.
        self.roll()
    }

    fn wait(&self, start: impl FnOnce(Done) -> Result<(), Error>) -> Result<Vec<Written>, Error> {
        let (sender, receiver) = mpsc::sync_channel(1);
        start(Box::new(move |result| drop(sender.send(result))))?;
        self.pump();
        receiver.recv().unwrap_or(Err(Error::Closed))
    }

    fn prepare(&self, records: Vec<Record>) -> Result<(Vec<Prepared>, u64), Error> {
        if let Some(error) = self.shared.poisoned() {
            return Err(error);
        }
        let too_many = records.iter().any(|record| record.blobs().len() > RECORD_BLOBS_MAX);
        let prepared: Vec<_> = records.into_iter().map(Prepared::new).collect();
        let size_bytes = prepared.iter().map(Prepared::disk_len).sum();
        if too_many || size_bytes > self.request_bytes_max() {
            return Err(Error::TooLarge { size_bytes });
        }
        Ok((prepared, size_bytes))
    }

    /// The largest request this journal takes.
    pub fn request_bytes_max(&self) -> u64 {
        REQUEST_BYTES_MAX.min(self.shared.options.segment_bytes / 2)
    }

    /// Calls `room` when at least half of the queue is free, at once if it is already.
    pub fn when_room(&self, room: Box<dyn FnOnce() + Send>) {
        self.shared.queue.when_room(room);
    }

    /// Without a writer thread: does all that is queued, here and now.
    pub fn pump(&self) {
        let Some(inline) = &self.inline else { return };
        let mut writer = inline.lock().unwrap_or_else(PoisonError::into_inner);
        while let Taken::Requests(requests) = self.shared.queue.take(std::time::Duration::ZERO) {
            writer.commit(requests);
        }
    }

    /// Without a writer thread: what an idle writer does.
    pub fn mark(&self) {
        let Some(inline) = &self.inline else { return };
        inline.lock().unwrap_or_else(PoisonError::into_inner).mark();
    }

    /// Reads one record with its blobs; everything is verified.
    pub fn read_record(&self, pointer: Pointer) -> Result<Stored, Error> {
        self.shared.read_record(pointer)
    }

    /// The entry of a record of which bodies may be damaged: replica, index, meta, and where its
    /// bodies lie. All but the bodies is verified.
    pub fn read_entry(
        &self,
        pointer: Pointer,
    ) -> Result<(ReplicaId, u64, Bytes, Vec<Pointer>), Error> {
        let bare = self.shared.read_bare(pointer)?;
        Ok((bare.replica, bare.index, bare.meta, bare.blobs))
    }

    /// Reads one blob without the rest of its record; verified.
    pub fn read_blob(&self, pointer: Pointer) -> Result<Blob, Error> {
        self.shared.read_blob(pointer)
    }

    /// All segments, oldest first.
    pub fn segments(&self) -> Vec<SegmentId> {
        self.shared.index().segments.keys().copied().collect()
    }

    /// How many segments there are, and the last one: both are what they were only if no segment came or
    /// went.
    pub fn extent(&self) -> (usize, Option<SegmentId>) {
        let index = self.shared.index();
        (index.segments.len(), index.segments.keys().next_back().copied())
    }

    /// The bodies in a segment, for rebuilding a locator.
    pub fn blob_locations(&self, segment: SegmentId) -> Result<Vec<Location>, Error> {
        self.shared.blob_locations(segment)
    }

    /// Deletes segments below the log start in which nothing is alive, and empties nearly dead
    /// ones, and where little is free the least alive of the others: live bodies are copied forward,
    /// `moved(replica, digest, old, new)` is called for each after the copy is synced, and the segment is
    /// deleted after that.
    ///
    /// `is_live` must answer `false` only for what can never become alive again at that pointer:
    /// it is asked before the copy, and what it calls dead is gone when this returns.
    pub fn collect(
        &self,
        is_live: &dyn Fn(ReplicaId, &Digest, Pointer) -> bool,
        moved: &dyn Fn(ReplicaId, &Digest, Pointer, Pointer),
    ) -> Result<Collected, Error> {
        self.collect_in(is_live, moved, &|| 0)
    }

    /// The same where `is_live` may come to answer something else. What it answered holds as long as `epoch`
    /// gives the same number: a segment about which it was asked before stays, and is looked at again later.
    pub fn collect_in(
        &self,
        is_live: &dyn Fn(ReplicaId, &Digest, Pointer) -> bool,
        moved: &dyn Fn(ReplicaId, &Digest, Pointer, Pointer),
        epoch: &dyn Fn() -> u64,
    ) -> Result<Collected, Error> {
        let mut left = self.collecting.lock().unwrap_or_else(PoisonError::into_inner);
        collect::collect(self, &self.shared, &mut left, (is_live, moved, epoch))
    }

    /// The first segment with log records somebody needs.
    pub fn log_start(&self) -> SegmentId {
        let index = self.shared.index();
        index.state.log_start(index.open)
    }

    /// Bytes of the journal that cannot be given up because of this replica's oldest entry.
    pub fn pinned_bytes(&self, replica: ReplicaId) -> u64 {
        let index = self.shared.index();
        let first = index.state.replicas.get(&replica).and_then(|state| state.first_segment());
        first.map_or(0, |first| index.segments.range(first..).map(|(_, len)| len).sum())
    }

    /// The last entry of a replica that lies in this segment or one before it, and is still needed.
    pub fn last_index_upto(&self, replica: ReplicaId, segment: SegmentId) -> Option<u64> {
        let index = self.shared.index();
        let spans = &index.state.replicas.get(&replica)?.spans;
        spans.range(..=segment).map(|(_, span)| span.last).max()
    }

    /// Verifies what is stored, about `budget_bytes` of it, and goes on where it stopped: every
    /// checksum, and of each body what `is_right` says, which may look behind the checksum.
    pub fn scrub_step(
        &self,
        budget_bytes: u64,
        is_right: &dyn Fn(&Blob) -> bool,
    ) -> Result<Scrubbed, Error> {
        let mut scrub = self.scrub.lock().unwrap_or_else(PoisonError::into_inner);
        scrub.step(&self.shared, budget_bytes.max(1), is_right)
    }

    /// Sizes and counts of now.
    pub fn usage(&self) -> Result<Usage, Error> {
        let space = self.shared.storage.space().map_err(Error::io("ask for free space"))?;
        let options = &self.shared.options;
        let level = if space.free_bytes < options.hard_free_bytes + options.segment_bytes {
            SpaceLevel::Hard
        } else if space.free_bytes < options.soft_free_bytes {
            SpaceLevel::Soft
        } else {
            SpaceLevel::Ample
        };
        let index = self.shared.index();
        let counters = &self.shared.counters;
        Ok(Usage {
            n_bytes: index.segments.n_bytes(),
            n_segments: index.segments.len() as u64,
            free_bytes: space.free_bytes,
            total_bytes: space.total_bytes,
            space: level,
            queued_bytes: self.shared.queue.n_bytes(),
            n_syncs: counters.n_syncs.load(Relaxed),
            n_frames: counters.n_frames.load(Relaxed),
            n_records: counters.n_records.load(Relaxed),
            n_bytes_written: counters.n_bytes.load(Relaxed),
        })
    }

    /// True after a write or sync error, for ever.
    pub fn is_poisoned(&self) -> bool {
        self.shared.poisoned().is_some()
    }

    /// For the watchdog: when the disk last answered, and since when it has not.
    pub fn last_sync(&self) -> SyncHealth {
        self.shared.sync_health()
    }

    /// What a sync of this disk takes, smoothed, when something was written last.
    pub fn sync_time(&self) -> Duration {
        Duration::from_micros(self.shared.sync_time_us.load(Relaxed))
    }

    /// Sequence of the last frame that is synced. It only grows, also over restarts, power cuts and
    /// damage that leaves the last synced frame's head: a journal that wakes up with less
    /// ([`Recovered::sequence`]) is not the one that said so, but an older copy.
    pub fn synced_sequence(&self) -> u64 {
        self.shared.synced_sequence.load(Relaxed)
    }

    /// How often this disk was started, this start included.
    pub fn start_count(&self) -> u64 {
        self.shared.start_count
    }

    /// Who this disk is.
    pub fn disk_id(&self) -> DiskId {
        self.shared.disk
    }
}

/// How badly the records need space.
fn need(records: &[Record]) -> Need {
    let is_entry = |record: &Record| matches!(record, Record::Append { .. });
    if records.iter().any(|record| !record.blobs().is_empty()) {
        Need::Bodies
    } else if records.iter().any(is_entry) {
        Need::Entries
    } else {
        Need::Vital
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.pump();
        self.mark();
        self.shared.queue.close();
        let Some(WriterThread { handle, ended }) = self.thread.take() else { return };
        let ended = ended.into_inner().unwrap_or_else(PoisonError::into_inner);
        while ended.recv_timeout(LOOK_EVERY) == Err(mpsc::RecvTimeoutError::Timeout) {
            let pending_since = self.shared.sync_health().pending_since;
            if pending_since.is_some_and(|since| since.elapsed() > HUNG_AFTER) {
                tracing::warn!(disk = %self.shared.disk, "disk hangs, its writer is left to itself");
                return;
            }
        }
        // A writer that panicked has already lost its callers' answers; nothing to add.
        drop(handle.join());
    }
}
