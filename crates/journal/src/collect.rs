//! Garbage collection: empties nearly dead segments and deletes dead ones. Where little is free it also
//! empties segments that are more alive, the least alive first, until enough is free again.

use std::collections::BTreeMap;
use std::io;

use crate::error::Error;
use crate::footer;
use crate::frame::RECORD_HEAD;
use crate::journal::Journal;
use crate::options::{Options, REQUEST_BYTES_MAX};
use crate::record::{Blob, Digest, Location, Pointer, Record, ReplicaId, SegmentId};
use crate::segment::{self, Spares};
use crate::shared::Shared;
use crate::storage::Space;

/// Where less than the first number is free, in percent of the disk, a segment may be alive up to the second
/// one, in percent of what it takes, and is emptied.
///
/// Limit: each octet that comes free costs one to six that are copied, more the more is alive. Beyond the
/// last it would be hardly anything that comes free.
const SHORT: [(u64, u64); 3] = [(5, 85), (10, 70), (20, 50)];
/// So much more has to be free, in percent of the disk, before less is emptied again. Why: where it hovers
/// around one of these numbers, what is begun is brought to an end.
const RELIEF_PERCENT: u64 = 2;
/// Limit: copied in one collection before no more segments are emptied that are more alive than usual; it
/// is as much as a disk writes in some seconds, and mail waits behind it.
const COPIED_BYTES_MAX: u64 = 1 << 30;
/// What a copy takes besides its body.
const COPY_BYTES: u64 = RECORD_HEAD as u64 + footer::ENTRY;

/// What a collection did.
#[derive(Clone, Debug, Default)]
pub struct Collected {
    /// Segments that are gone.
    pub deleted: Vec<SegmentId>,
    /// Bytes they took.
    pub freed_bytes: u64,
    /// Bytes copied forward from them.
    pub moved_bytes: u64,
    /// Bodies that are alive but do not verify; their segments stay until they are repaired.
    pub damaged: Vec<Location>,
    /// It did not come to the end of the journal: the next one goes on there.
    pub is_cut: bool,
    /// Little is free: segments that are more alive than usual are emptied.
    pub is_short: bool,
    /// Since something came free last, or as much became short, all segments were gone over.
    pub is_vain: bool,
}

/// What a collection leaves to the next one.
#[derive(Default)]
pub(crate) struct Collecting {
    /// Where the next one begins, if this one did not come to the end.
    next: Option<SegmentId>,
    /// Segments up to so many percent alive are emptied; 0 where nothing is short, and only those that are
    /// nearly dead are.
    upto_percent: u64,
    /// Segments that were gone over since something came free, or since that number is what it is.
    n_in_vain: usize,
    /// Segments that are no more alive than that, and the share that was alive when it was looked at, in
    /// thousandths. Limit: one for each segment.
    seen: BTreeMap<SegmentId, u64>,
}

type IsLive<'a> = &'a dyn Fn(ReplicaId, &Digest, Pointer) -> bool;
type Moved<'a> = &'a dyn Fn(ReplicaId, &Digest, Pointer, Pointer);
type Epoch<'a> = &'a dyn Fn() -> u64;

/// One collection.
struct Round<'a> {
    journal: &'a Journal,
    shared: &'a Shared,
    is_live: IsLive<'a>,
    moved: Moved<'a>,
    epoch: Epoch<'a>,
    /// What it was before the segment at hand was looked at.
    looked_in: u64,
    n_looks: usize,
    done: Collected,
}

/// What was found alive in a segment.
#[derive(Default)]
struct Alive {
    bodies: Vec<Location>,
    /// What they take,
    bytes: u64,
    /// and what their copies would.
    copies_bytes: u64,
}

pub(crate) fn collect(
    journal: &Journal,
    shared: &Shared,
    left: &mut Collecting,
    (is_live, moved, epoch): (IsLive<'_>, Moved<'_>, Epoch<'_>),
) -> Result<Collected, Error> {
    if let Some(error) = shared.poisoned() {
        return Err(error);
    }
    left.weigh(shared);
    let (looked_in, n_looks, done) = (epoch(), 0, Collected::default());
    let mut round = Round { journal, shared, is_live, moved, epoch, looked_in, n_looks, done };
    round.go_round(left)?;
    round.make_room(left)?;
    let mut done = round.done;
    (done.is_cut, done.is_short) = (left.next.is_some(), left.upto_percent > 0);
    if !done.deleted.is_empty() {
        (left.n_in_vain, done.is_vain) = (0, false);
    }
    Ok(done)
}

impl Collecting {
    /// Looks how much is free.
    fn weigh(&mut self, shared: &Shared) {
        let before = self.upto_percent;
        self.upto_percent = match shared.storage.space() {
            Ok(space) => {
                let relief = space.total_bytes / 100 * RELIEF_PERCENT;
                let less = Space { free_bytes: space.free_bytes.saturating_sub(relief), ..space };
                let begins = upto_percent(space, &shared.options);
                self.upto_percent.clamp(begins, upto_percent(less, &shared.options))
            }
            Err(_) => 0,
        };
        if self.upto_percent != before {
            self.n_in_vain = 0;
        }
        if self.upto_percent == 0 {
            self.seen.clear();
        }
    }
}

/// Up to how many percent alive segments are emptied where so much is free. The less, the more.
fn upto_percent(space: Space, options: &Options) -> u64 {
    let [(_, most), ..] = SHORT;
    if space.free_bytes < options.soft_free_bytes.saturating_mul(2) {
        return most;
    }
    let free_percent = space.free_bytes.saturating_mul(100) / space.total_bytes.max(1);
    SHORT.iter().find(|(free, _)| free_percent < *free).map_or(0, |(_, upto)| *upto)
}

impl Alive {
    fn add(&mut self, at: Location) {
        self.bytes += u64::from(at.pointer.len);
        self.copies_bytes += u64::from(at.pointer.len) + COPY_BYTES;
        self.bodies.push(at);
    }

    /// Whether no more than so many percent of what the segment takes would be copied.
    fn is_upto(&self, len: u64, percent: u64) -> bool {
        self.copies_bytes <= len.saturating_mul(percent) / 100
    }
}

impl Round<'_> {
    /// Goes over all segments, or as many as may be looked at, and empties those that are nearly dead.
    fn go_round(&mut self, left: &mut Collecting) -> Result<(), Error> {
        let (shared, percent) = (self.shared, left.upto_percent);
        let options = &shared.options;
        let candidates: Vec<(SegmentId, u64)> = {
            let index = shared.index();
            let log_start = index.state.log_start(index.open);
            let begin = left.next.take().filter(|next| *next < log_start);
            let begin = begin.unwrap_or(SegmentId(0));
            let segments = &index.segments;
            let round = segments.range(begin..log_start).chain(segments.range(..begin));
            round.map(|(segment, len)| (*segment, *len)).collect()
        };
        let looks_max = match percent {
            0 => options.collect_looks_max,
            // Why not all: who is emptied after that is looked at once more.
            _ => options.collect_looks_max.div_ceil(2),
        };
        let nearly_dead_bytes = options.segment_bytes / 100 * options.collect_below_percent;
        let n_candidates = candidates.len();
        for (segment, len) in candidates {
            if self.n_looks >= looks_max {
                left.next = Some(segment);
                break;
            }
            let is_nearly_dead = |alive: &Alive| alive.bytes <= nearly_dead_bytes;
            let is_eligible = |alive: &Alive| alive.is_upto(len, percent);
            let is_wanted = |alive: &Alive| is_nearly_dead(alive) || is_eligible(alive);
            let alive = self.look(segment, &is_wanted)?;
            left.n_in_vain += 1;
            left.seen.remove(&segment);
            if is_nearly_dead(&alive) {
                match self.empty(segment, len, &alive.bodies) {
                    // Why it goes on: where nothing is alive no room is needed.
                    Err(Error::Full | Error::Overloaded) => {}
                    done => done?,
                }
            } else if is_eligible(&alive) {
                left.seen.insert(segment, alive.copies_bytes.saturating_mul(1000) / len.max(1));
            }
        }
        self.done.is_vain = left.n_in_vain >= n_candidates;
        Ok(())
    }

    /// Where little is free: empties more of those that were looked at, now or earlier, the least alive
    /// first, until enough is free or enough was done at once.
    fn make_room(&mut self, left: &mut Collecting) -> Result<(), Error> {
        let mut order: Vec<(u64, SegmentId)> =
            left.seen.iter().map(|(segment, share)| (*share, *segment)).collect();
        order.sort_unstable();
        let shared = self.shared;
        let spares = Spares { storage: &*shared.storage, options: &shared.options };
        for (share, segment) in order {
            left.weigh(shared);
            let is_enough = self.n_looks >= shared.options.collect_looks_max
                || self.done.moved_bytes >= COPIED_BYTES_MAX;
            // Why the room: what is copied takes some before it gives any, and votes need the last of it.
            if is_enough || share > left.upto_percent * 10 || !spares.has_room_for_copies() {
                break;
            }
            left.seen.remove(&segment);
            let len = {
                let index = shared.index();
                let log_start = index.state.log_start(index.open);
                index.segments.get(&segment).copied().filter(|_| segment < log_start)
            };
            let Some(len) = len else { continue };
            let percent = left.upto_percent;
            let is_eligible = |alive: &Alive| alive.is_upto(len, percent);
            let alive = self.look(segment, &is_eligible)?;
            if !is_eligible(&alive) {
                continue;
            }
            match self.empty(segment, len, &alive.bodies) {
                // Others took the room; it is tried again.
                Err(Error::Full | Error::Overloaded) => break,
                done => done?,
            }
        }
        Ok(())
    }

    /// What is alive of a segment, as far as it is wanted.
    fn look(
        &mut self,
        segment: SegmentId,
        is_wanted: &dyn Fn(&Alive) -> bool,
    ) -> Result<Alive, Error> {
        self.looked_in = (self.epoch)();
        let mut bodies = match self.shared.blob_locations(segment) {
            // Why nothing: who needs a body of it finds that its place is no more.
            Err(Error::Missing { .. }) => Vec::new(),
            other => other?,
        };
        {
            let index = self.shared.index();
            let replicas = &index.state.replicas;
            bodies.retain(|at| !replicas.get(&at.replica).is_some_and(|state| state.dead));
        }
        let mut alive = Alive::default();
        for at in bodies {
            self.n_looks += 1;
            if (self.is_live)(at.replica, &at.digest, at.pointer) {
                alive.add(at);
            }
            // Why not to the end: most segments are nearly all alive.
            if !is_wanted(&alive) {
                break;
            }
        }
        Ok(alive)
    }

    /// Copies what is alive of a segment, and deletes it.
    fn empty(&mut self, segment: SegmentId, len: u64, live: &[Location]) -> Result<(), Error> {
        // Durability: the log start that lets this segment go is in a synced manifest first.
        if segment >= self.shared.index().manifest_log_start {
            self.journal.roll()?;
        }
        if segment >= self.shared.index().manifest_log_start {
            return Ok(());
        }
        if !copy_forward(self.journal, live, self.moved, &mut self.done)? {
            return Ok(());
        }
        if (self.epoch)() != self.looked_in {
            // Why later: what was dead then may be needed now, and is looked at once more.
            return Ok(());
        }
        delete(self.shared, segment)?;
        self.done.deleted.push(segment);
        self.done.freed_bytes += len;
        Ok(())
    }
}

/// Copies bodies to the open segment. True if all of them are there now.
fn copy_forward(
    journal: &Journal,
    live: &[Location],
    moved: Moved<'_>,
    collected: &mut Collected,
) -> Result<bool, Error> {
    let mut is_whole = true;
    let mut batch: Vec<(Location, Blob)> = Vec::new();
    let mut batch_bytes = 0;
    let batch_max = (REQUEST_BYTES_MAX / 8).min(journal.request_bytes_max() / 2);
    for at in live {
        let blob = match journal.read_blob(at.pointer) {
            Ok(blob) if blob.digest == at.digest => blob,
            Ok(_) | Err(Error::Corrupt { .. }) => {
                collected.damaged.push(*at);
                is_whole = false;
                continue;
            }
            Err(error) => return Err(error),
        };
        if batch_bytes + u64::from(at.pointer.len) > batch_max {
            move_batch(journal, &mut batch, moved)?;
            batch_bytes = 0;
        }
        batch_bytes += u64::from(at.pointer.len);
        collected.moved_bytes += u64::from(at.pointer.len);
        batch.push((*at, blob));
    }
    move_batch(journal, &mut batch, moved)?;
    Ok(is_whole)
}

fn move_batch(
    journal: &Journal,
    batch: &mut Vec<(Location, Blob)>,
    moved: Moved<'_>,
) -> Result<(), Error> {
    let batch = std::mem::take(batch);
    if batch.is_empty() {
        return Ok(());
    }
    let records = batch
        .iter()
        .map(|(at, blob)| Record::Blobs { replica: at.replica, blobs: vec![blob.clone()] });
    // Durability: the copies are synced before the locator learns of them, and the locator before
    // the old segment goes.
    let written = journal.append_copies(records.collect())?;
    for ((at, _), written) in batch.iter().zip(&written) {
        moved(at.replica, &at.digest, at.pointer, written.blobs[0]);
    }
    Ok(())
}

fn delete(shared: &Shared, segment: SegmentId) -> Result<(), Error> {
    let poison = |error| shared.poison(format!("unlink a segment: {error}"));
    match shared.storage.unlink(&segment::name(segment)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => other.map_err(poison)?,
    }
    // Durability: a deleted segment must not come back after a crash, since its bodies may be
    // expunged mail.
    shared.storage.sync_dir().map_err(poison)?;
    shared.files.remove(segment);
    shared.index().segments.remove(segment);
    Ok(())
}
