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
