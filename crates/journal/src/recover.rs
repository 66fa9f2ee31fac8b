//! Opening a journal: replay from the log start, tell a torn tail from damage, and put everything
//! that may only have been in the page cache into a new segment before anyone relies on it.
//!
//! A byte below any stated `durable_up_to` was synced: if it does not verify now, it is damage and
//! the replicas it may concern are `suspect`. What lies behind the last `durable_up_to` was never
//! known to be synced: as far as it verifies it is copied and synced, the rest is cut.

mod replay;

use std::collections::{BTreeMap, BTreeSet};
use std::io::IoSlice;
use std::sync::Arc;

use bytes::Bytes;

use crate::encode::{Encoder, Prepared, plain_frame};
use crate::error::Error;
use crate::footer;
use crate::frame::{Bad, FRAME_HEAD, FrameKind, Position, Salt, walk};
use crate::identity;
use crate::manifest::{COPIES, Manifest};
use crate::options::Options;
use crate::record::{Digest, DiskId, Location, Pointer, Record, ReplicaId, SegmentId};
use crate::scan::{Outline, Scan, frame_end};
use crate::segment::{self, Need, Refusal, Spares};
use crate::shared::{Index, Shared};
use crate::state::State;
use crate::storage::{Storage, StorageFile};
use crate::writer::{Open, Writer, write_footer};
use replay::Replay;

/// What the journal knows after a start.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Sequence of the last frame that was found, 0 if none was. Never less than what
    /// [`Journal::synced_sequence`](crate::Journal::synced_sequence) said in an earlier life.
    pub sequence: u64,
    /// Every replica this disk ever had; dead ones too, since their ids never come back.
    pub replicas: BTreeMap<ReplicaId, RecoveredReplica>,
    /// Bytes behind the last whole frame that were cut.
    pub torn_bytes: u64,
    /// Records behind the last known sync, copied to a new segment.
    pub n_resynced: u64,
    /// Bytes that were synced once and do not verify any more.
    pub damaged: Vec<Damage>,
}

/// One replica after a start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveredReplica {
    /// What it was born with.
    pub born: Option<Bytes>,
    /// It left this disk.
    pub is_dead: bool,
    /// Damage may have taken records of it: it must not vote before it was readmitted.
    pub is_suspect: bool,
    /// Damage took entries up to this index, or left there some that had been replaced. Who has
    /// applied all of them does not need them.
    pub lost_upto: Option<u64>,
    /// Its last vote.
    pub vote: Option<Bytes>,
    /// Last purged index, and the meta of that purge.
    pub purge_floor: Option<(u64, Bytes)>,
    /// The last committed meta that reached the disk; may be older than what was committed.
    pub committed: Option<Bytes>,
    /// Entries above the floor.
    pub entries: BTreeMap<u64, RecoveredEntry>,
}

/// One log entry after a start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredEntry {
    /// Where the whole record is.
    pub pointer: Pointer,
    /// The first bytes of its meta, at most [`ENTRY_HEAD_BYTES`](crate::ENTRY_HEAD_BYTES).
    pub head: Bytes,
}

/// Bytes that do not verify although they were synced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where.
    pub segment: SegmentId,
    /// Where in it.
    pub offset: u64,
    /// What was there.
    pub what: Damaged,
}

/// What a damaged place held, as far as it can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damaged {
    /// The whole segment is not there.
    Segment,
    /// A manifest; its second copy or older segments serve.
    Manifest,
    /// The list of bodies; it is rebuilt from the frames.
    Footer,
    /// One bit of a head or of a short record. It was put right, so nothing is missing.
    Mended,
    /// Records of any replica.
    Records,
    /// A record of this replica.
    Record(ReplicaId),
    /// A log entry of this replica, and its index.
    Entry(ReplicaId, u64),
    /// One body of this replica; with its digest if that is known.
    Body(ReplicaId, Option<Digest>),
}

/// Everything `open` hands over.
pub(crate) struct Opened {
    pub shared: Arc<Shared>,
    pub writer: Writer,
    pub recovered: Recovered,
}

/// What is learned from the segments before a new one is begun.
struct Past {
    /// Used bytes of each segment.
    segments: BTreeMap<SegmentId, u64>,
    next_sequence: u64,
    /// Records behind the last known sync.
    tail: Vec<Record>,
    /// What is to be done with segments as soon as there is another one.
    endings: Vec<Ending>,
    /// End of everything that is known to be synced, but for what the next manifest says again.
    durable: Position,
}

/// The end of a segment that no process writes to any more.
enum Ending {
    /// It is sealed where it ends; the bodies before.
    Sealed(SegmentId, u64, Vec<Location>),
    /// Nothing is in it but what the next manifest says again, so it is deleted: of a process that is refused
    /// at each start, and started again every second, nothing piles up.
    Deleted(SegmentId),
}

pub(crate) fn open(storage: Arc<dyn Storage>, options: Options) -> Result<Opened, Error> {
    if let Some(reason) = identity::poison_reason(&*storage) {
        return Err(Error::Poisoned { reason });
    }
    let (disk, start_count) = identity::load(&*storage)?;
    let files = SegmentFiles::of(&*storage)?;
    let newest = newest_manifest(&files, disk)?;
    // A counter slot that rotted is no reason to count a start twice.
    let start_count = start_count.max(newest.as_ref().map_or(0, |newest| newest.start_count)) + 1;
    let mut replay = Replay::new(disk);
    let poison = |doing: &str, refusal: Refusal| {
        let Refusal::Failed(error) = refusal else { return Error::Full };
        let reason = format!("{doing}: {error}");
        tracing::error!(%disk, reason, "disk poisoned");
        identity::write_poison(&*storage, &reason);
        Error::Poisoned { reason }
    };
    // Durability: the counter is synced before anything else of this start can be seen.
    identity::write_start(&*storage, start_count).map_err(|error| {
        let doing = "write the start counter";
        if segment::has_no_descriptor(&error) {
            // Why not poisoned: the disk was not asked.
            return Error::io(doing)(error);
        }
        poison(doing, Refusal::Failed(error))
    })?;
    Spares { storage: &*storage, options: &options }.clear()?;
    let first = files.ids.first().copied().unwrap_or_default();
    let past = read_past(&files, newest.map_or(first, |newest| newest.log_start), &mut replay)?;
    replay.judge();
    replay.recovered.sequence = past.next_sequence - 1;
    let (mut index, open, next_sequence) =
        begin(&*storage, (disk, start_count), &options, (past, &mut replay))
            .map_err(|refusal| poison("begin a segment", refusal))?;
    let has_tail = replay.recovered.n_resynced > 0;
    index.state = replay.state;
    let (segment, file) = (open.segment, Arc::clone(&open.file));
    let shared = Arc::new(Shared::new(storage, (disk, start_count), options, index));
    shared.files.insert(segment, file);
    let writer = Writer::new(Arc::clone(&shared), open, (next_sequence, has_tail));
    Ok(Opened { shared, writer, recovered: replay.recovered })
}

/// The segments there are. Each is opened when it is looked at: a large disk has more of them than a process
/// may have files open.
struct SegmentFiles<'a> {
    storage: &'a dyn Storage,
    ids: BTreeSet<SegmentId>,
}

impl<'a> SegmentFiles<'a> {
    fn of(storage: &'a dyn Storage) -> Result<Self, Error> {
        let names = storage.list().map_err(Error::io("list"))?;
        let ids = names.iter().filter_map(|name| segment::parse_name(name)).collect();
        Ok(Self { storage, ids })
    }

    fn open(&self, segment: SegmentId) -> Result<Arc<dyn StorageFile>, Error> {
        self.storage.open(&segment::name(segment)).map_err(Error::io("open a segment"))
    }
}

/// The newest manifest that verifies. The log start of an older one is only earlier.
fn newest_manifest(files: &SegmentFiles<'_>, disk: DiskId) -> Result<Option<Manifest>, Error> {
    for segment in files.ids.iter().rev() {
        let scan = Scan { file: &*files.open(*segment)?, disk, segment: *segment };
        if let Some((mut manifest, _)) = scan.manifest()? {
            manifest.log_start = manifest.log_start.min(*segment);
            return Ok(Some(manifest));
        }
    }
    Ok(None)
}

/// Reads all segments that may hold log records.
fn read_past(
    files: &SegmentFiles<'_>,
    log_start: SegmentId,
    replay: &mut Replay,
) -> Result<Past, Error> {
    let mut past = Past {
        segments: BTreeMap::new(),
        next_sequence: 1,
        tail: Vec::new(),
        endings: Vec::new(),
        durable: Position::default(),
    };
    for segment in files.ids.range(..log_start) {
        let size = files.open(*segment)?.size().map_err(Error::io("stat a segment"))?;
        past.segments.insert(*segment, size);
    }
    if let Some(last) = files.ids.last().copied() {
        let mut outlines = BTreeMap::new();
        for segment in files.ids.range(log_start..) {
            let file = &*files.open(*segment)?;
            let scan = Scan { file, disk: replay.disk, segment: *segment };
            outlines.insert(*segment, scan.outline()?);
        }
        past.end_idle_before(files, &outlines, (log_start, &*replay))?;
        past.replay(files, &outlines, (log_start, last), replay)?;
    }
    Ok(past)
}

impl Past {
    fn replay(
        &mut self,
        files: &SegmentFiles<'_>,
        outlines: &BTreeMap<SegmentId, Outline>,
        (log_start, last): (SegmentId, SegmentId),
        replay: &mut Replay,
    ) -> Result<(), Error> {
        if !outlines.contains_key(&log_start) {
            replay.damage(log_start, 0, Damaged::Segment);
        }
        for (segment, outline) in outlines {
            let file = &*files.open(*segment)?;
            let scan = Scan { file, disk: replay.disk, segment: *segment };
            let stated = next_states(files, outlines, (*segment, replay.disk))?;
            let durable = match stated {
                _ if *segment == last => outline.durable(*segment),
                Some(end) if end.segment == *segment => end.offset,
                _ => outline.end,
            };
            let bodies = replay.segment(&scan, outline, durable)?;
            match stated {
                Some(end) if end.segment > *segment => {
                    replay.damage(end.segment, 0, Damaged::Segment);
                }
                // Whoever wrote that was about to delete this one.
                Some(end) if end.segment < *segment => {
                    let before = end_before_idle(&scan, outline, &replay.recovered)?;
                    self.endings.extend(before.map(|_| Ending::Deleted(*segment)));
                }
                _ => {}
            }
            let sequences = outline.frames.iter().map(|(_, head)| head.sequence + 1);
            self.next_sequence = sequences.max().unwrap_or(0).max(self.next_sequence);
            self.segments.insert(*segment, durable);
            self.durable = Position { segment: *segment, offset: durable };
            if *segment != last {
                continue;
            }
            let mut tail_end = self.read_tail(&scan, (outline, durable), replay)?;
            if outline.is_sealed() && tail_end == outline.end {
                tail_end += footer::TRAILER as u64;
            }
            replay.recovered.torn_bytes = scan.n_used_behind(tail_end)?;
            if let Some(before) = end_before_idle(&scan, outline, &replay.recovered)? {
                self.durable = before;
                self.endings.push(Ending::Deleted(*segment));
            } else if !outline.frames.is_empty() {
                // A footer that is there may not be synced either, so it is written again.
                self.endings.push(Ending::Sealed(*segment, durable, bodies));
            }
        }
        Ok(())
    }

    /// The segment that the newest one was about to take the place of when a crash came. Where no log needs
    /// anything before the newest one it is not among those that are replayed, but goes all the same: it has
    /// no footer, which scrub would take for damage.
    fn end_idle_before(
        &mut self,
        files: &SegmentFiles<'_>,
        outlines: &BTreeMap<SegmentId, Outline>,
        (log_start, replay): (SegmentId, &Replay),
    ) -> Result<(), Error> {
        let Some(segment) = files.ids.range(..log_start).next_back().copied() else {
            return Ok(());
        };
        let stated = next_states(files, outlines, (segment, replay.disk))?;
        if stated.is_none_or(|end| end.segment >= segment) {
            return Ok(());
        }
        let scan = Scan { file: &*files.open(segment)?, disk: replay.disk, segment };
        let before = end_before_idle(&scan, &scan.outline()?, &replay.recovered)?;
        self.endings.extend(before.map(|_| Ending::Deleted(segment)));
        Ok(())
    }

    /// Collects the records behind the last known sync, up to the first that does not verify.
    fn read_tail(
        &mut self,
        scan: &Scan<'_>,
        (outline, durable): (&Outline, u64),
        replay: &mut Replay,
    ) -> Result<u64, Error> {
        let mut end = durable;
        for (offset, head) in outline.frames.iter().filter(|(offset, _)| *offset >= durable) {
            if *offset != end {
                break;
            }
            let Some(payload) = scan.payload(*offset, head)? else { break };
            if outline.mended.contains(offset) {
                replay.damage(scan.segment, *offset, Damaged::Mended);
            }
            if head.kind == FrameKind::Records {
                let at = offset + FRAME_HEAD as u64;
                let walked = walk(&payload, scan.segment, scan.salt(), at);
                if !walked.is_whole() || walked.heads_crc != head.payload_crc {
                    break;
                }
                for (at, what) in walked.bad.into_iter().map(Bad::place) {
                    replay.damage(scan.segment, at, what);
                }
                self.tail.extend(walked.records.into_iter().map(|(_, stored)| stored.record));
            }
            end = frame_end(*offset, head);
        }
        Ok(end)
    }
}

/// What a segment says of the end of the one before it, if nothing is in it that would be missed: no record,
/// nothing that is damaged, nothing torn.
fn end_before_idle(
    scan: &Scan<'_>,
    outline: &Outline,
    recovered: &Recovered,
) -> Result<Option<Position>, Error> {
    let is_missed = |kind: FrameKind| !matches!(kind, FrameKind::Manifest | FrameKind::Mark);
    let is_used = outline.frames.iter().any(|(_, head)| is_missed(head.kind))
        || recovered.torn_bytes > 0
        || recovered.damaged.iter().any(|damage| damage.segment == scan.segment);
    if is_used {
        return Ok(None);
    }
    Ok(scan.manifest()?.map(|(_, before)| before))
}

/// What the manifest of the next segment says about the end of the one before it.
fn next_states(
    files: &SegmentFiles<'_>,
    outlines: &BTreeMap<SegmentId, Outline>,
    (segment, disk): (SegmentId, DiskId),
) -> Result<Option<Position>, Error> {
    let Some((next, _)) = outlines.range(SegmentId(segment.0 + 1)..).next() else {
        return Ok(None);
    };
    let scan = Scan { file: &*files.open(*next)?, disk, segment: *next };
    Ok(scan.manifest()?.map(|(_, before)| before))
}

impl Ending {
    /// Ends it, now that the next one is there, with a frame of this sequence.
    fn end(
        self,
        storage: &dyn Storage,
        (disk, sequence): (DiskId, u64),
        segments: &mut BTreeMap<SegmentId, u64>,
    ) -> Result<(), Refusal> {
        match self {
            Self::Sealed(segment, end, bodies) => {
                let file = storage.open(&segment::name(segment)).map_err(Refusal::of)?;
                let stamp = (sequence, Position { segment, offset: end });
                let end = write_footer(&*file, Salt::new(disk, segment), stamp, &bodies);
                segments.insert(segment, end.map_err(Refusal::Failed)?);
            }
            // Durability: none is wanted. If its name comes back it is deleted at the next start.
            Self::Deleted(segment) => {
                storage.unlink(&segment::name(segment)).map_err(Refusal::Failed)?;
                segments.remove(&segment);
            }
        }
        Ok(())
    }
}

/// Makes the segment of this start: manifest and tail synced, then named, then the old one ended.
fn begin(
    storage: &dyn Storage,
    (disk, start_count): (DiskId, u64),
    options: &Options,
    (past, replay): (Past, &mut Replay),
) -> Result<(Index, Open, u64), Refusal> {
    let last = past.segments.keys().next_back().map_or(0, |segment| segment.0);
    let segment = SegmentId(last + 1);
    let salt = Salt::new(disk, segment);
    let log_start = replay.state.log_start(segment);
    let state = State::clone(&replay.state);
    let manifest = Manifest { disk, start_count, log_start, state }.encode();
    let tail: Vec<Prepared> = past.tail.into_iter().map(Prepared::new).collect();
    let tail_len: u64 = tail.iter().map(Prepared::disk_len).sum();
    let n_blobs = tail.iter().map(|prepared| prepared.record.blobs().len()).sum();
    let manifests_len = (COPIES * (FRAME_HEAD + manifest.len())) as u64;
    let needed = manifests_len + 2 * FRAME_HEAD as u64 + tail_len + footer::disk_len(n_blobs);
    let capacity = options.segment_bytes.max(needed);
    let spares = Spares { storage, options };
    let (file, _) = spares.acquire(segment, Need::Vital, capacity)?;

    let mut sequence = past.next_sequence;
    let mut at = 0;
    for _ in 0..COPIES {
        let stamp = (sequence, past.durable);
        let frame = plain_frame(FrameKind::Manifest, stamp, salt, at, &manifest);
        file.write_at(at, &[IoSlice::new(&frame)]).map_err(Refusal::Failed)?;
        (at, sequence) = (at + frame.len() as u64, sequence + 1);
    }
    let mut open_blobs = Vec::new();
    if !tail.is_empty() {
        let mut encoder = Encoder::new(salt, segment, at);
        for prepared in &tail {
            let written = encoder.push(prepared);
            replay.learn(&prepared.record, &written, &mut open_blobs);
            replay.recovered.n_resynced += 1;
        }
        encoder.finish(sequence, Position { segment, offset: at });
        file.write_at(at, &encoder.slices()).map_err(Refusal::Failed)?;
        (at, sequence) = (encoder.end(), sequence + 1);
    }
    // Durability: manifest and tail are synced before the segment gets the name that counts, the
    // name before the old segment is touched; a crash in between finds the one or the other.
    file.sync_data().map_err(Refusal::Failed)?;
    storage
        .rename(&segment::new_name(segment), &segment::name(segment))
        .map_err(Refusal::Failed)?;
    storage.sync_dir().map_err(Refusal::Failed)?;

    let mut segments = past.segments;
    for ending in past.endings {
        ending.end(storage, (disk, sequence), &mut segments)?;
    }
    spares.refill(&|| ()).map_err(Refusal::Failed)?;
    segments.insert(segment, at);
    let allows = if spares.has_room_for_bodies() { Need::Bodies } else { Need::Entries };
    let state = State::default();
    let (segments, manifest_log_start) = (segments.into(), log_start);
    let index = Index { state, segments, open: segment, open_blobs, manifest_log_start };
    let open = Open { segment, file, end: at, capacity, written: at, allows };
    Ok((index, open, sequence))
}
