//! Bodies that nobody needs any more, for whoever frees the journal.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use journal::Pointer;
use mailbox::{Digest, Source};

use super::aside::Aside;
use super::{Store, lock};
use crate::blocking::BETWEEN_TURNS;
use crate::index::IndexError;
use crate::pending::Lag;

/// Bodies that are forgotten before whoever commits gets a turn: some tenths of a millisecond.
const FORGOTTEN_PER_TURN: u32 = 16;

impl Store {
    /// Whether no row refers to a body; then it is forgotten that it lies at this place, so that it
    /// can never become needed there again.
    pub fn forget_dead(
        &self,
        digest: &Digest,
        pointer: Pointer,
        is_live: impl Fn(&dyn Source) -> bool,
    ) -> Result<bool, IndexError> {
        if is_live(&Aside(self)) {
            return Ok(false);
        }
        self.give_way();
        // Why this one first: whoever writes a layer has it for long, and no commit shall wait for that.
        let writing = lock(&self.writing);
        // Invariant: what the index says stays so as long as nobody else writes to it. Why before nobody can
        // commit: it may come from the disk.
        let settled = self.locate(digest)?;
        // Why locked: an entry that brings the body again must come wholly before or wholly after,
        // else the place it brought would be forgotten too.
        let _nobody_commits = self.turn();
        if is_live(&Aside(self)) {
            return Ok(false);
        }
        let is_little = {
            let mut pending = self.pending.write().unwrap_or_else(PoisonError::into_inner);
            if pending.place(digest).unwrap_or(settled) != Some(pointer) {
                return Ok(true);
            }
            let is_little = pending.lag() == Lag::Little;
            if is_little {
                // Why no matter that a crash takes it away: a place of a body that no row refers to says
                // nothing, and the next entry that brings the body replaces it.
                pending.forget(digest);
            }
            is_little
        };
        if !is_little {
            // Why here and now: who applies would wait until there is room for more.
            self.write_places(&writing, std::iter::once((*digest, None)))?;
        }
        Ok(true)
    }

    /// Lets those go first who wait for what [`Self::forget_dead`] locks, now and then.
    fn give_way(&self) {
        let n_forgotten = self.n_forgotten.fetch_add(1, Ordering::Relaxed);
        if n_forgotten.is_multiple_of(FORGOTTEN_PER_TURN) {
            // Why sleep: who yields has the lock again before who waits for it is awake.
            std::thread::sleep(BETWEEN_TURNS);
        }
    }
}
