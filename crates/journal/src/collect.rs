//! Garbage collection: empties nearly dead segments and deletes dead ones.

use std::io;

use crate::error::Error;
use crate::journal::Journal;
use crate::options::REQUEST_BYTES_MAX;
use crate::record::{Blob, Digest, Location, Pointer, Record, ReplicaId, SegmentId};
use crate::segment;
use crate::shared::Shared;

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
}

type IsLive<'a> = &'a dyn Fn(ReplicaId, &Digest, Pointer) -> bool;
type Moved<'a> = &'a dyn Fn(ReplicaId, &Digest, Pointer, Pointer);

pub(crate) fn collect(
    journal: &Journal,
    shared: &Shared,
    next: &mut Option<SegmentId>,
    is_live: IsLive<'_>,
    moved: Moved<'_>,
) -> Result<Collected, Error> {
    if let Some(error) = shared.poisoned() {
        return Err(error);
    }
    let mut collected = Collected::default();
    let live_max = shared.options.segment_bytes / 100 * shared.options.collect_below_percent;
    let candidates: Vec<(SegmentId, u64)> = {
        let index = shared.index();
        let log_start = index.state.log_start(index.open);
        let begin = next.take().filter(|next| *next < log_start).unwrap_or(SegmentId(0));
        let segments = &index.segments;
        let round = segments.range(begin..log_start).chain(segments.range(..begin));
        round.map(|(segment, len)| (*segment, *len)).collect()
    };
    let mut n_looks = 0;
    for (segment, len) in candidates {
        if n_looks >= shared.options.collect_looks_max {
            *next = Some(segment);
            break;
        }
        let mut bodies = match shared.blob_locations(segment) {
            // Why nothing: who needs a body of it finds that its place is no more.
            Err(Error::Missing { .. }) => Vec::new(),
            other => other?,
        };
        {
            let index = shared.index();
            let replicas = &index.state.replicas;
            bodies.retain(|at| !replicas.get(&at.replica).is_some_and(|state| state.dead));
        }
        let (mut live, mut live_bytes) = (Vec::new(), 0);
        for at in bodies {
            n_looks += 1;
            if is_live(at.replica, &at.digest, at.pointer) {
                live_bytes += u64::from(at.pointer.len);
                live.push(at);
            }
            // Why not to the end: most segments are nearly all alive.
            if live_bytes > live_max {
                break;
            }
        }
        if live_bytes > live_max {
            continue;
        }
        // Durability: the log start that lets this segment go is in a synced manifest first.
        if segment >= shared.index().manifest_log_start {
            journal.roll()?;
        }
        if segment >= shared.index().manifest_log_start {
            continue;
        }
        if !copy_forward(journal, &live, moved, &mut collected)? {
            continue;
        }
        delete(shared, segment)?;
        collected.deleted.push(segment);
        collected.freed_bytes += len;
    }
    Ok(collected)
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
    shared.index().segments.remove(&segment);
    Ok(())
}
