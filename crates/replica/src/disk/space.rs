//! How full a disk is, and what may still be written to it.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use journal::{Journal, SpaceLevel, Usage};
use tokio::time::Instant;

use super::Disk;
use crate::error::Error;

/// Space is asked for this often at most: the reserve is larger than what arrives meanwhile.
const SPACE_AGE_MAX: Duration = Duration::from_millis(20);

/// Below so much free space nothing is written to an index: what a round of all replicas' rows, and the
/// segments sled makes for them, may take.
const INDEX_ROOM_BYTES: u64 = 64 << 20;

/// A disk that has not answered for so long gets no rows for an index unless it has to.
const SILENT_AFTER: Duration = Duration::from_secs(1);

/// Besides that, so many segments of the journal are left free by whoever writes a large file: the next one,
/// and the one after it while the first is emptied.
const ROOM_SEGMENTS: u64 = 2;

/// What was answered when it was asked last.
#[derive(Default)]
pub(super) struct Lately {
    at: Option<Instant>,
    /// `None`: that could not be told.
    usage: Option<Usage>,
    /// Somebody asks, on a thread that may block.
    is_asked: bool,
}

impl Lately {
    /// Asks now.
    pub fn of(journal: &Journal) -> Self {
        let usage = journal.usage().ok();
        Self { at: Some(Instant::now()), usage, is_asked: false }
    }
}

impl Disk {
    /// How full it is; as it was a moment ago, if that might take long.
    pub fn usage(&self) -> Result<Usage, Error> {
        let usage = match self.apart().has_others() {
            true => self.lately().ok_or_else(|| Error::io("ask for free space")("no answer"))?,
            false => self.journal().usage()?,
        };
        match self.pretends_full.load(Ordering::Relaxed) {
            true => Ok(Usage { free_bytes: 0, space: SpaceLevel::Hard, ..usage }),
            false => Ok(usage),
        }
    }

    /// Whether growth has to be refused; as it was a moment ago.
    pub fn refuses_growth(&self) -> bool {
        self.space() > SpaceLevel::Ample
    }

    /// Whether the journal refuses bodies, now or soon; as it was a moment ago.
    pub(crate) fn refuses_bodies(&self) -> bool {
        self.space() >= SpaceLevel::Hard
    }

    /// What the free bytes mean, as they were a moment ago. Ample if they cannot be told.
    fn space(&self) -> SpaceLevel {
        if self.pretends_full.load(Ordering::Relaxed) {
            return SpaceLevel::Hard;
        }
        self.lately().map_or(SpaceLevel::Ample, |usage| usage.space)
    }

    /// Whether an index may grow here. An index that found no room has to be built anew, which takes more.
    pub(crate) fn has_room_for_index(&self) -> bool {
        // Why: a simulated disk has its indexes elsewhere.
        let is_elsewhere = self.options.storage.is_some();
        is_elsewhere || self.free_bytes() >= INDEX_ROOM_BYTES
    }

    /// Whether rows are to be written to an index here now. Why not while the disk is silent: all indexes of
    /// the process write by the same few threads of sled's, and those that hang are missing to the others.
    pub(crate) fn takes_rows(&self) -> bool {
        self.has_room_for_index() && self.unanswered() < SILENT_AFTER
    }

    /// Whether a file of this size may be written that nobody needs now: growth goes on behind it.
    pub(crate) fn has_room_to_spare(&self, bytes: u64) -> bool {
        // Why: a simulated disk has its checkpoints elsewhere.
        let is_elsewhere = self.options.storage.is_some();
        is_elsewhere || self.free_bytes() > bytes + self.options.journal.soft_free_bytes
    }

    /// Whether a file of this size may be written at all. Why not the last of what there is: indexes, and the
    /// journal when it goes on, would find none; and what is broken off halfway was in vain.
    pub(crate) fn has_room_for(&self, bytes: u64) -> bool {
        let is_elsewhere = self.options.storage.is_some();
        let kept_free = INDEX_ROOM_BYTES + ROOM_SEGMENTS * self.options.journal.segment_bytes;
        is_elsewhere || self.free_bytes() > bytes + kept_free
    }

    /// Whether so much of a snapshot may come from a peer. Why not the last of what there is: all indexes
    /// here would find none, and replicas stop whose rows wait too long for theirs.
    pub(crate) fn has_room_for_snapshot(&self, bytes: u64) -> bool {
        if self.pretends_full.load(Ordering::Relaxed) {
            return false;
        }
        let is_elsewhere = self.options.storage.is_some();
        is_elsewhere || self.free_bytes() > bytes.saturating_add(INDEX_ROOM_BYTES)
    }

    fn free_bytes(&self) -> u64 {
        let usage = match self.apart().has_others() {
            true => self.lately(),
            false => self.journal().usage().ok(),
        };
        usage.map_or(u64::MAX, |usage| usage.free_bytes)
    }

    /// Counts as full, or as full as it is: a rehearsal.
    pub fn pretend_full(&self, full: bool) {
        self.pretends_full.store(full, Ordering::Relaxed);
    }

    /// How full it was a moment ago. Where a thread serves other disks as well, it does not wait for an
    /// answer: some file systems ask a server that may be away.
    fn lately(&self) -> Option<Usage> {
        let mut lately = lock(&self.lately);
        if lately.is_asked || lately.at.is_some_and(|at| at.elapsed() < SPACE_AGE_MAX) {
            return lately.usage.clone();
        }
        if !self.apart().has_others() {
            *lately = Lately::of(self.journal());
            return lately.usage.clone();
        }
        lately.is_asked = true;
        let usage = lately.usage.clone();
        drop(lately);
        let (appender, known) = (self.appender.clone(), self.lately.clone());
        self.blocking().begin(move || {
            let now = Lately::of(&appender.journal);
            *lock(&known) = now;
        });
        usage
    }
}

fn lock(lately: &Mutex<Lately>) -> MutexGuard<'_, Lately> {
    lately.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::apart::Asking;
    use crate::disk::DiskOptions;

    #[tokio::test]
    async fn an_index_gets_no_rows_while_its_disk_is_silent() {
        let dir = tempfile::tempdir().unwrap();
        Disk::format(dir.path()).unwrap();
        let journal = journal::Options { reserve_segments: 0, ..journal::Options::default() };
        let options = DiskOptions { journal, has_others: true, ..DiskOptions::default() };
        let disk = Disk::open(dir.path(), options).unwrap();
        assert!(disk.takes_rows() && disk.usage().unwrap().total_bytes > 0);
        let all_bytes = disk.usage().unwrap().total_bytes;
        assert!(disk.has_room_for_snapshot(0) && !disk.has_room_for_snapshot(all_bytes));
        let (go, may_go) = channel::<()>();
        let apart = disk.apart().clone();
        let silent = tokio::spawn(async move {
            let hang = move |_: &Asking| may_go.recv().is_err();
            apart.look(hang).await.unwrap()
        });
        while disk.unanswered() < SILENT_AFTER {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(!disk.takes_rows());
        drop(go);
        assert!(silent.await.unwrap());
        while disk.unanswered() >= SILENT_AFTER {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(disk.takes_rows());
    }
}
