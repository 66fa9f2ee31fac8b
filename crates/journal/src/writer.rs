//! The one writer of a disk: drains the queue, writes a frame, syncs once, completes in order. A sync
//! that takes long is left to a thread of its own ([`InFlight`]), and the next frame is written meanwhile.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::Instant;

use crate::encode::{Encoder, Prepared, plain_frame};
use crate::error::Error;
use crate::footer;
use crate::frame::{FRAME_HEAD, FrameKind, Position};
use crate::group::{Group, Waiting};
use crate::in_flight::{InFlight, OVERLAP_MAX};
use crate::manifest::{COPIES, Manifest};
use crate::options::FRAME_BYTES_MAX;
use crate::queue::{Request, Taken};
use crate::record::{Location, Record, ReplicaId, SegmentId};
use crate::segment::{self, Need, Refusal, Spares};
use crate::shared::Shared;
use crate::storage::StorageFile;

/// A frame up to this size has zeros written behind it, one message of usual size among them,
const SMALL_FRAME_BYTES: u64 = 32 << 10;
/// so many, whenever those of before are used up.
const ZERO_AHEAD_BYTES: u64 = 256 << 10;

/// The open segment.
pub(crate) struct Open {
    pub segment: SegmentId,
    pub file: Arc<dyn StorageFile>,
    pub end: u64,
    pub capacity: u64,
    /// Up to here the file was written, not only reserved.
    pub written: u64,
    /// Only requests of this need or a stronger one may use the segment.
    pub allows: Need,
}

pub(crate) struct Writer {
    shared: Arc<Shared>,
    open: Open,
    in_flight: Arc<InFlight>,
    /// They sync what is in flight; none before a sync took long.
    threads: Vec<JoinHandle<()>>,
    next_sequence: u64,
    /// Records nobody waits for; they go with the next frame.
    lazy: Vec<Prepared>,
    /// Something was written after the last mark.
    is_dirty: bool,
    /// Replicas whose entry was refused for space, with its index: later entries are refused
    /// too until it comes again, else a log would have a hole.
    refused: BTreeMap<ReplicaId, u64>,
    zeros: Vec<u8>,
}

impl Writer {
    pub fn new(shared: Arc<Shared>, open: Open, (next_sequence, is_dirty): (u64, bool)) -> Self {
        let durable = Position { segment: open.segment, offset: open.end };
        shared.synced_sequence.store(next_sequence - 1, Relaxed);
        let in_flight = Arc::new(InFlight::new(durable, shared.options.overlap_from));
        Self {
            shared,
            open,
            in_flight,
            threads: Vec::new(),
            next_sequence,
            lazy: Vec::new(),
            is_dirty,
            refused: BTreeMap::new(),
            zeros: Vec::new(),
        }
    }

    /// The writer thread.
    pub fn run(mut self) {
        loop {
            self.in_flight.wait_for_turn(|| self.shared.queue.n_waiting());
            let options = &self.shared.options;
            let patience = if self.is_marked() { options.probe_after } else { options.mark_after };
            match self.shared.queue.take(patience) {
                Taken::Requests(requests) => self.commit(requests),
                Taken::Idle => self.probe(),
                Taken::Closed => return self.mark(),
            }
        }
    }

    /// Writes all requests; they are answered in their order.
    pub fn commit(&mut self, requests: Vec<Request>) {
        let _working = self.shared.work();
        let mut waiting = VecDeque::new();
        for request in requests {
            match request {
                Request::Lazy { records, disk_len } => {
                    self.lazy.extend(records);
                    self.shared.queue.release(disk_len);
                }
                Request::Records { records, disk_len, need, done } => {
                    waiting.push_back(Waiting { records, disk_len, need, done });
                }
                Request::Roll { done } => {
                    self.commit_records(std::mem::take(&mut waiting));
                    let rolled = match self.shared.poisoned() {
                        Some(error) => Err(error),
                        None => self.roll(Need::Vital, 0),
                    };
                    done(rolled.map(|()| Vec::new()));
                }
            }
        }
        self.commit_records(waiting);
    }

    fn commit_records(&mut self, mut waiting: VecDeque<Waiting>) {
        while let Some(first) = waiting.front() {
            let room = match self.shared.poisoned() {
                Some(error) => Err(error),
                None => self.make_room(first),
            };
            match room {
                Ok(()) => self.commit_frame(&mut waiting),
                Err(error) => {
                    let Some(first) = waiting.pop_front() else { return };
                    self.refuse(first, error);
                }
            }
        }
    }

    fn refuse(&mut self, waiting: Waiting, error: Error) {
        self.in_flight.drain();
        for prepared in &waiting.records {
            if let Record::Append { replica, index, .. } = &prepared.record {
                self.refused.entry(*replica).or_insert(*index);
            }
        }
        (waiting.done)(Err(error));
        self.shared.queue.release(waiting.disk_len);
    }

    /// True if the request would leave a hole after an entry that was refused.
    fn is_behind_refused(&mut self, waiting: &Waiting) -> bool {
        for prepared in &waiting.records {
            let (replica, at) = match &prepared.record {
                Record::Append { replica, index, .. } => (replica, *index),
                Record::Truncate { replica, from_index_inclusive } => {
                    (replica, *from_index_inclusive)
                }
                Record::Purge { replica, upto_index_inclusive, .. } => {
                    if self.refused.get(replica).is_some_and(|i| i <= upto_index_inclusive) {
                        self.refused.remove(replica);
                    }
                    continue;
                }
                _ => continue,
            };
            match self.refused.get(replica) {
                Some(refused) if at > *refused => {
                    if matches!(prepared.record, Record::Append { .. }) {
                        return true;
                    }
                }
                Some(_) => {
                    self.refused.remove(replica);
                }
                None => {}
            }
        }
        false
    }

    /// Bytes the open segment must hold for one more request of this size.
    fn needed(&self, disk_len: u64, n_blobs: usize) -> u64 {
        let lazy: u64 = self.lazy.iter().map(Prepared::disk_len).sum();
        FRAME_HEAD as u64 + lazy + disk_len + footer::disk_len(n_blobs)
    }

    fn make_room(&mut self, first: &Waiting) -> Result<(), Error> {
        if self.is_behind_refused(first) {
            return Err(Error::Full);
        }
        let need = first.need;
        if need < self.open.allows {
            if self.spares().has_room_for_bodies() {
                self.open.allows = Need::Bodies;
                self.refill();
            } else if need == Need::Bodies {
                return Err(Error::Full);
            } else {
                // Why not for each of them: the next segment allows what this one was begun for.
                return self.roll(need, self.needed(first.disk_len, first.n_blobs()));
            }
        }
        let n_blobs = self.n_blobs() + first.n_blobs();
        if self.open.end + self.needed(first.disk_len, n_blobs) <= self.open.capacity {
            return Ok(());
        }
        self.roll(need, self.needed(first.disk_len, first.n_blobs()))
    }

    /// Bodies in the open segment, be they synced or not; a few may be counted twice.
    fn n_blobs(&self) -> usize {
        // Why in this order: an answer moves them from the first to the second.
        self.in_flight.n_blobs() + self.shared.index().open_blobs.len()
    }

    /// Writes as many requests as fit in one frame, and sees to it that they are synced and answered.
    fn commit_frame(&mut self, waiting: &mut VecDeque<Waiting>) {
        let file = self.file_in_flight(waiting.len());
        let mut encoder =
            Encoder::new(self.shared.salt(self.open.segment), self.open.segment, self.open.end);
        let group = self.fill(&mut encoder, waiting);
        encoder.finish(group.sequence, self.in_flight.durable());
        let (end, mut slices) = (encoder.end(), encoder.slices());
        let written = self.plan_zeros(end);
        if written > end {
            slices.push(IoSlice::new(&self.zeros[..(written - end) as usize]));
        }
        // Durability: everything in the frame is on the disk when its sync has ended; its requests are
        // answered after that, and frames written after that state `end` as durable.
        match file {
            Some(file) => {
                let written = file.write_at(self.open.end, &slices).map_err(|error| {
                    self.shared.poison(format!("write a frame: {error}"));
                });
                self.in_flight.begin(group, file, written.is_ok(), &self.shared);
            }
            None => self.write_synced(group, &slices),
        }
        self.next_sequence += 1;
        self.open.end = end;
        self.open.written = self.open.written.max(written);
        self.is_dirty = true;
    }

    fn fill(&mut self, encoder: &mut Encoder, waiting: &mut VecDeque<Waiting>) -> Group {
        let lazy = std::mem::take(&mut self.lazy);
        for prepared in &lazy {
            encoder.push(prepared);
        }
        let mut n_blobs = self.n_blobs();
        let mut requests = Vec::new();
        while let Some(next) = waiting.front() {
            let end = encoder.end() + next.disk_len + footer::disk_len(n_blobs + next.n_blobs());
            let is_too_much = end > self.open.capacity
                || encoder.end() - self.open.end + next.disk_len > FRAME_BYTES_MAX
                || next.need < self.open.allows;
            if !requests.is_empty() && (is_too_much || self.is_behind_refused(next)) {
                break;
            }
            let Some(next) = waiting.pop_front() else { break };
            n_blobs += next.n_blobs();
            let written = next.records.iter().map(|prepared| encoder.push(prepared)).collect();
            requests.push((next, written));
        }
        Group {
            sequence: self.next_sequence,
            begin: self.open.end,
            end: Position { segment: self.open.segment, offset: encoder.end() },
            lazy,
            requests,
            working: self.shared.work(),
        }
    }

    /// A file for a frame that is synced beside others, if this disk is one whose syncs take long. So many
    /// requests wait for it.
    fn file_in_flight(&mut self, n_waiting: usize) -> Option<Arc<dyn StorageFile>> {
        let sync_time = self.in_flight.sync_time();
        self.shared.sync_time_us.store(sync_time.as_micros() as u64, Relaxed);
        if !self.shared.options.threaded || !self.in_flight.is_overlapped() {
            return None;
        }
        let file = self.start_threads().and_then(|()| {
            self.in_flight.wait_for_turn(|| n_waiting);
            // Why named only now: mostly a file of a frame before is free.
            self.in_flight.file(|| self.shared.storage.open(&segment::name(self.open.segment)))
        });
        match file {
            Ok(file) => Some(file),
            Err(error) => {
                tracing::warn!(disk = %self.shared.disk, %error, "syncs are not overlapped");
                self.in_flight.drain();
                None
            }
        }
    }

    fn start_threads(&mut self) -> io::Result<()> {
        for _ in self.threads.len()..OVERLAP_MAX as usize {
            match InFlight::start(&self.in_flight, &self.shared) {
                Ok(thread) => self.threads.push(thread),
                // One will do.
                Err(_) if !self.threads.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes, syncs and answers, here and now. Nothing is in flight.
    fn write_synced(&self, group: Group, slices: &[IoSlice<'_>]) {
        let begun = Instant::now();
        let file = &self.open.file;
        // Durability: the frame is synced before anybody in the group is answered.
        let synced = match file.write_at(self.open.end, slices).and_then(|()| file.sync_data()) {
            Ok(()) => {
                self.shared.sync_completed();
                self.in_flight.synced(group.end, begun.elapsed());
                Ok(())
            }
            Err(error) => Err(self.shared.poison(format!("write a frame: {error}"))),
        };
        group.answer(&self.shared, synced);
    }

    /// Up to where the file is written with the frame that ends at `end`.
    ///
    /// Why: the first sync of space that is only reserved makes the file system write a journal of
    /// its own; one in space that was written before does not. With small frames that is most of
    /// what a sync costs; with large ones the zeros would cost as much as they save. Where much is
    /// written frames are large, since they gather, and each octet is written once.
    fn plan_zeros(&mut self, end: u64) -> u64 {
        let is_small = end - self.open.end <= SMALL_FRAME_BYTES;
        if end <= self.open.written || !is_small || !self.shared.options.threaded {
            return end;
        }
        self.zeros.resize(ZERO_AHEAD_BYTES as usize, 0);
        (end + ZERO_AHEAD_BYTES).min(self.open.capacity)
    }

    /// The stream states already that everything is durable.
    fn is_marked(&self) -> bool {
        !self.is_dirty && self.lazy.is_empty()
    }

    /// States in the stream that everything before is durable.
    pub fn mark(&mut self) {
        self.in_flight.drain();
        if self.is_marked() || self.shared.poisoned().is_some() {
            return;
        }
        let _working = self.shared.work();
        let needed = self.needed(0, self.n_blobs());
        if self.open.end + needed > self.open.capacity {
            // Rolling states the same in the next manifest. A full disk leaves it unsaid.
            if self.roll(Need::Vital, needed).is_ok() {
                self.is_dirty = false;
            }
            return;
        }
        let mut waiting = VecDeque::new();
        self.commit_frame(&mut waiting);
        self.in_flight.drain();
        self.is_dirty = false;
    }

    /// One more mark after the mark: who only waits never learns that a disk died.
    fn probe(&mut self) {
        let was_marked = self.is_marked();
        self.is_dirty = true;
        self.mark();
        // Why: a full disk refuses it, and it is to be tried when the next probe is due, not before.
        self.is_dirty &= !was_marked;
    }

    fn spares(&self) -> Spares<'_> {
        Spares { storage: &*self.shared.storage, options: &self.shared.options }
    }

    fn refill(&self) {
        if let Err(error) = self.spares().refill(&|| self.shared.answered()) {
            self.shared.poison(format!("refill the reserve: {error}"));
        }
    }

    /// Seals the open segment and begins the next one, which has room for `needed` bytes.
    /// Nothing is written if there is no space.
    fn roll(&mut self, need: Need, needed: u64) -> Result<(), Error> {
        self.in_flight.drain();
        if let Some(error) = self.shared.poisoned() {
            return Err(error);
        }
        let segment = SegmentId(self.open.segment.0 + 1);
        let (manifest, log_start, sealed_blobs) = {
            let index = self.shared.index();
            let log_start = index.state.log_start(segment);
            let manifest = Manifest {
                disk: self.shared.disk,
                start_count: self.shared.start_count,
                log_start,
                state: index.state.clone(),
            };
            // Why they stay: as long as the segment is the open one, these are what it has.
            (manifest.encode(), log_start, index.open_blobs.clone())
        };
        let manifests_len = (COPIES * (FRAME_HEAD + manifest.len())) as u64;
        let capacity = self.shared.options.segment_bytes.max(manifests_len + needed);
        let (file, allows) = match self.spares().acquire(segment, need, capacity) {
            Ok(acquired) => acquired,
            Err(Refusal::Full) => return Err(Error::Full),
            Err(Refusal::Failed(error)) => {
                return Err(self.shared.poison(format!("make a segment: {error}")));
            }
        };
        self.shared.answered();
        let rolled = self.seal(&sealed_blobs).and_then(|sealed_end| {
            self.begin(Arc::clone(&file), segment, &manifest)?;
            Ok(sealed_end)
        });
        let sealed_end =
            rolled.map_err(|error| self.shared.poison(format!("roll a segment: {error}")))?;
        let end = manifests_len;
        self.shared.synced_sequence.store(self.next_sequence - 1, Relaxed);
        {
            let mut index = self.shared.index();
            index.segments.insert(self.open.segment, sealed_end);
            index.segments.insert(segment, end);
            index.open = segment;
            index.open_blobs.clear();
            index.manifest_log_start = log_start;
        }
        let allows = if self.spares().has_room_for_bodies() { Need::Bodies } else { allows };
        self.shared.files.insert(segment, Arc::clone(&file));
        self.open = Open { segment, file, end, capacity, written: end, allows };
        self.in_flight.begin_segment(Position { segment, offset: end });
        if allows == Need::Bodies {
            self.refill();
        }
        Ok(())
    }

    fn seal(&mut self, blobs: &[Location]) -> io::Result<u64> {
        let salt = self.shared.salt(self.open.segment);
        let stamp = (self.next_sequence, self.in_flight.durable());
        self.next_sequence += 1;
        let end = write_footer(&*self.open.file, salt, stamp, blobs)?;
        self.in_flight.begin_segment(Position { segment: self.open.segment, offset: end });
        self.shared.sync_completed();
        Ok(end)
    }

    fn begin(
        &mut self,
        file: Arc<dyn StorageFile>,
        segment: SegmentId,
        manifest: &[u8],
    ) -> io::Result<()> {
        let salt = self.shared.salt(segment);
        let mut at = 0;
        for _ in 0..COPIES {
            let stamp = (self.next_sequence, self.in_flight.durable());
            let frame = plain_frame(FrameKind::Manifest, stamp, salt, at, manifest);
            self.next_sequence += 1;
            file.write_at(at, &[IoSlice::new(&frame)])?;
            at += frame.len() as u64;
        }
        // Durability: the manifest is synced before the segment gets the name that counts, and
        // the name is synced before any record goes in.
        file.sync_data()?;
        self.shared.storage.rename(&segment::new_name(segment), &segment::name(segment))?;
        self.shared.storage.sync_dir()?;
        self.shared.sync_completed();
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.in_flight.close();
        for thread in self.threads.drain(..) {
            // One that panicked has lost its callers' answers; nothing to add.
            drop(thread.join());
        }
    }
}

/// Ends a segment at the durable position `stamp` states: footer, trailer, and nothing behind.
pub(crate) fn write_footer(
    file: &dyn StorageFile,
    salt: crate::frame::Salt,
    stamp: (u64, Position),
    blobs: &[Location],
) -> io::Result<u64> {
    let at = stamp.1.offset;
    let mut bytes = plain_frame(FrameKind::Footer, stamp, salt, at, &footer::encode(blobs));
    bytes.extend_from_slice(&footer::trailer(at));
    let end = at + bytes.len() as u64;
    file.write_at(at, &[IoSlice::new(&bytes)])?;
    file.set_len(end)?;
    // Durability: a sealed segment is whole before the next one begins.
    file.sync_data()?;
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;
    use crate::record::DiskId;
    use crate::storage::sim::SimStorage;
    use crate::{identity, recover};

    const DISK_BYTES: u64 = 1 << 20;

    #[test]
    fn a_probe_that_a_full_disk_refuses_leaves_everything_as_it_was() {
        let storage = SimStorage::new(DISK_BYTES);
        identity::format(&storage, DiskId([1; 16])).unwrap();
        let options = Options {
            segment_bytes: 4096,
            reserve_segments: 0,
            hard_free_bytes: 0,
            soft_free_bytes: 0,
            threaded: false,
            ..Options::default()
        };
        let mut writer = recover::open(Arc::new(storage.clone()), options).unwrap().writer;
        storage.set_total_bytes(0);
        let mut last = 0;
        while writer.open.end > last {
            last = writer.open.end;
            writer.probe();
            assert!(writer.is_marked(), "the next probe is not due at once");
        }
        let (segment, next_sequence) = (writer.open.segment, writer.next_sequence);
        writer.probe();
        assert_eq!((writer.open.segment, writer.next_sequence), (segment, next_sequence));
        assert!(writer.is_marked() && writer.shared.poisoned().is_none());
        storage.set_total_bytes(DISK_BYTES);
        writer.probe();
        assert!(writer.is_marked() && writer.open.segment > segment);
    }
}
