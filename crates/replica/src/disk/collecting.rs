//! When the journal of a disk is collected, and what keeps it from coming free.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use journal::{Collected, Pointer, ReplicaId, SegmentId};
use mailbox::Digest;
use tokio::time::Instant;

use super::Disk;
use crate::error::Error;
use crate::state::Applying;

/// Where little is free, but growth is not refused, it rests so many times as long as a collection took.
const SHORT_REST: u32 = 4;
/// Where nothing came free although little is, the next one comes after this part of the usual time.
const VAIN_PART: u32 = 8;
/// Limit: it rests so long at least.
const REST_MIN: Duration = Duration::from_secs(1);

/// A log that keeps so many times as much of the journal as makes a replica write a checkpoint and cut it is
/// one that cannot be cut.
const PINNED_TIMES: u64 = 4;

/// The journal of a disk is being collected; while this lives, nobody else begins to.
struct Turn {
    disk: Arc<Disk>,
    rest: Duration,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.disk.lock();
        state.is_collecting = false;
        state.collect_at = Some(Instant::now() + self.rest);
    }
}

impl Disk {
    /// Frees segments in which nothing is alive any more, and empties nearly dead ones. Blocks.
    pub fn collect(&self) -> Result<Collected, Error> {
        let applying =
            |replica: ReplicaId| self.lock().running.get(&replica.0).and_then(Weak::upgrade);
        let is_live = |replica: ReplicaId, digest: &journal::Digest, pointer: Pointer| {
            {
                let state = self.lock();
                if state.dead.contains(&replica.0) {
                    return false;
                }
                if state.installing.contains(&replica.0) {
                    // Why true: rows are coming that may need it.
                    return true;
                }
            }
            // Why true: of a replica that does not run nothing is known.
            let Some(applying) = applying(replica) else { return true };
            applying.is_body_live(&Digest(*digest), pointer)
        };
        let moved = |replica: ReplicaId, digest: &journal::Digest, old: Pointer, new: Pointer| {
            if let Some(applying) = self.applying_or_note(replica, new.segment) {
                applying.moved(&Digest(*digest), old, new);
            }
        };
        // Why: a snapshot's rows may need what those before it did not, and its index finds bodies where
        // they are. With one that was deleted behind that the replica would count as whole without it. So
        // may those that come in the place of wrong ones.
        let epoch = || self.lock().n_rows_changed;
        let collected = self.journal().collect_in(&is_live, &moved, &epoch)?;
        for at in &collected.damaged {
            self.found_damage(at.pointer.segment, at.pointer.offset);
        }
        Ok(collected)
    }

    /// Who is told that a body of a replica was copied to a segment. If that is nobody, the segment is kept
    /// in mind for who attaches next.
    fn applying_or_note(&self, replica: ReplicaId, segment: SegmentId) -> Option<Arc<Applying>> {
        let mut state = self.lock();
        let applying = state.running.get(&replica.0).and_then(Weak::upgrade);
        if applying.is_none() && !state.dead.contains(&replica.0) {
            state.copied.entry(replica.0).or_default().insert(segment);
        }
        applying
    }

    /// Garbage collection asks this about a replica from now on; unless bodies of it were copied to segments
    /// in which they have to be found first.
    pub(crate) fn attach(
        &self,
        replica: u64,
        applying: &Arc<Applying>,
    ) -> Result<(), BTreeSet<SegmentId>> {
        let mut state = self.lock();
        if let Some(segments) = state.copied.remove(&replica) {
            return Err(segments);
        }
        state.running.insert(replica, Arc::downgrade(applying));
        Ok(())
    }

    /// They were not found there yet.
    pub(crate) fn not_found_in(&self, replica: u64, segments: BTreeSet<SegmentId>) {
        self.lock().copied.entry(replica).or_default().extend(segments);
    }

    /// Collects now and then, whoever of the replicas asks, and never twice at once. Nobody waits for it:
    /// half a million bodies may be looked for in indexes, and whoever asked has a log that is to be cut
    /// meanwhile, or nothing behind it comes free.
    pub(crate) fn collect_in_turn(self: &Arc<Self>) {
        let every = self.options.upkeep.collect_every;
        {
            let mut state = self.lock();
            let is_early = state.collect_at.is_some_and(|at| Instant::now() < at);
            if is_early || state.is_collecting {
                return;
            }
            state.is_collecting = true;
        }
        // Why it goes along: it goes on when whoever asked is gone.
        let mut turn = Turn { disk: self.clone(), rest: every };
        let collect = move || {
            let began = Instant::now();
            let collected = turn.disk.collect();
            if let Ok(done) = &collected {
                turn.rest = rest(every, began.elapsed(), turn.disk.refuses_growth(), done);
            }
            turn.disk.tell_of_pinning();
            collected
        };
        let collecting = self.blocking().run(collect);
        drop(tokio::spawn(async move { tell(collecting.await) }));
    }

    /// Bytes of the journal that cannot come free as long as the log of a replica is not cut, be it running
    /// or not.
    pub fn pinned_bytes(&self, replica: u64) -> u64 {
        self.journal().pinned_bytes(ReplicaId(replica))
    }

    /// Says it once if some log keeps much of the journal: its group may have no majority, or it is stopped.
    fn tell_of_pinning(&self) {
        let usual_bytes = self.options.upkeep.pinned_bytes.saturating_mul(PINNED_TIMES);
        let all = self.replicas().into_iter();
        let all = all.map(|(replica, shard)| (self.pinned_bytes(replica), replica, shard));
        let most = all.max().filter(|(n_bytes, ..)| *n_bytes > usual_bytes);
        let replica = most.map(|(_, replica, _)| replica);
        let told = std::mem::replace(&mut self.lock().pinning, replica);
        match most {
            Some((n_bytes, replica, shard)) if told != Some(replica) => {
                tracing::warn!(replica, %shard, n_bytes, "a log keeps much of the journal");
            }
            None if told.is_some() => tracing::info!("no log keeps the journal any more"),
            _ => {}
        }
    }
}

/// Says what came of a collection.
fn tell(done: io::Result<Result<Collected, Error>>) {
    match done {
        Ok(Ok(collected)) if collected.deleted.is_empty() => {}
        Ok(Ok(collected)) => {
            let (n_segments, n_bytes) = (collected.deleted.len(), collected.freed_bytes);
            let (n_copied, is_short) = (collected.moved_bytes, collected.is_short);
            tracing::info!(n_segments, n_bytes, n_copied, is_short, "journal segments freed");
        }
        Ok(Err(error)) => tracing::warn!(%error, "journal cannot be collected"),
        Err(error) => tracing::error!(%error, "collecting the journal panicked"),
    }
}

/// How long it is until the next collection after one that took so long. Where there is little space and some
/// more may come free it hurries, and where growth is refused it hardly rests.
fn rest(every: Duration, took: Duration, is_full: bool, done: &Collected) -> Duration {
    let goes_on = !done.deleted.is_empty() || (done.is_cut && !done.is_vain);
    let rest = match (is_full || done.is_short, goes_on) {
        (false, _) => every,
        // Why no longer: on a full disk mail is refused until something that went meanwhile is found.
        (true, false) if is_full && done.is_cut => {
            took.saturating_mul(SHORT_REST).min(every / VAIN_PART)
        }
        (true, false) => every / VAIN_PART,
        (true, true) if is_full => took,
        (true, true) => took.saturating_mul(SHORT_REST),
    };
    rest.clamp(REST_MIN.min(every), every)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use journal::sim::SimStorage;
    use journal::{Record, Storage};

    use super::*;
    use crate::disk::DiskOptions;
    use crate::upkeep::Upkeep;

    fn opened(dir: &Path, storage: &SimStorage) -> Arc<Disk> {
        let journal = journal::Options {
            segment_bytes: 64 << 10,
            hard_free_bytes: 0,
            soft_free_bytes: 0,
            threaded: false,
            ..journal::Options::default()
        };
        let upkeep = Upkeep { pinned_bytes: 1, ..Upkeep::default() };
        let storage: Arc<dyn Storage> = Arc::new(storage.clone());
        let storage = Some(storage);
        Disk::open(dir, DiskOptions { journal, upkeep, storage, ..DiskOptions::default() }).unwrap()
    }

    #[tokio::test]
    async fn whose_log_keeps_the_journal_is_told_until_it_is_cut() {
        let (dir, storage) = (tempfile::tempdir().unwrap(), SimStorage::new(4 << 20));
        Disk::format_storage(&storage).unwrap();
        let disk = opened(dir.path(), &storage);
        let replica = ReplicaId(7);
        let born = Record::Born { replica, meta: 3u32.to_be_bytes().to_vec().into() };
        let meta = vec![0; 48].into();
        let entry = Record::Append { replica, index: 1, meta, blobs: Vec::new() };
        disk.journal().append_wait(vec![born, entry]).unwrap();
        drop(disk);
        // It is not started.
        let disk = opened(dir.path(), &storage);
        assert!(disk.pinned_bytes(7) > PINNED_TIMES && disk.pinned_bytes(8) == 0);
        disk.tell_of_pinning();
        assert_eq!(disk.lock().pinning, Some(7));
        let meta = vec![0; 48].into();
        let purge = Record::Purge { replica, upto_index_inclusive: 1, meta };
        disk.journal().append_wait(vec![purge]).unwrap();
        disk.tell_of_pinning();
        assert_eq!((disk.lock().pinning, disk.pinned_bytes(7)), (None, 0));
    }

    #[tokio::test]
    async fn where_bodies_of_a_replica_are_copied_that_is_not_attached_is_kept_in_mind() {
        let (dir, storage) = (tempfile::tempdir().unwrap(), SimStorage::new(4 << 20));
        Disk::format_storage(&storage).unwrap();
        let disk = opened(dir.path(), &storage);
        let (replica, segment) = (ReplicaId(7), SegmentId(3));
        assert!(disk.applying_or_note(replica, segment).is_none());
        disk.not_found_in(7, BTreeSet::from([SegmentId(2)]));
        let copied = disk.lock().copied.remove(&7);
        assert_eq!(copied, Some(BTreeSet::from([SegmentId(2), segment])));
        disk.lock().dead.insert(7);
        assert!(disk.applying_or_note(replica, segment).is_none());
        assert!(disk.lock().copied.is_empty(), "of the dead nothing is looked for");
    }

    #[test]
    fn a_collection_hurries_where_space_is_short_and_some_may_come_free() {
        let (every, took) = (Duration::from_secs(300), Duration::from_secs(20));
        let ample = Collected { is_cut: true, ..Collected::default() };
        assert_eq!(rest(every, took, false, &ample), every);
        let short = Collected { is_short: true, ..ample };
        assert_eq!(rest(every, took, false, &short), took * SHORT_REST);
        assert_eq!(rest(every, took, true, &short), took);
        assert_eq!(rest(every, Duration::ZERO, true, &short), REST_MIN);
        assert_eq!(rest(every, every * 9, true, &short), every);
        let vain = Collected { is_cut: false, ..short };
        assert_eq!(rest(every, took, true, &vain), every / VAIN_PART);
        // However much there is to look at: all of it was looked at.
        let vain_for_now = Collected { is_cut: true, is_vain: true, ..vain.clone() };
        assert_eq!(rest(every, took, true, &vain_for_now), every / VAIN_PART);
        let quick = took / 10;
        assert_eq!(rest(every, quick, true, &vain_for_now), quick * SHORT_REST);
        assert_eq!(rest(Duration::from_millis(10), took, true, &vain), Duration::from_millis(10));
    }
}
