//! Takes what apply changed, all at once for whoever reads.

use std::sync::{Arc, MutexGuard, PoisonError, TryLockError};

use journal::Pointer;
use mailbox::{Digest, RowChanges};

use super::undo::{self, Before, Left};
use super::{Applied, Changed, Store, lock};
use crate::index::IndexError;
use crate::pending::Lag;

impl Store {
    /// Takes what some entries changed, with the place of their bodies, all or nothing. Gives how far the
    /// index is behind now.
    pub fn commit(
        self: &Arc<Self>,
        changed: impl Into<Changed>,
        places: &[(Digest, Pointer)],
        applied: Applied,
    ) -> Result<Lag, IndexError> {
        let turn = self.turn();
        self.commit_in(&turn, changed, places, applied)
    }

    /// The turn to commit.
    pub fn turn(&self) -> MutexGuard<'_, ()> {
        lock(&self.turn)
    }

    /// The same, if nobody has it.
    pub fn free_turn(&self) -> Option<MutexGuard<'_, ()>> {
        match self.turn.try_lock() {
            Ok(turn) => Some(turn),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// The same for who has the turn.
    pub fn commit_in(
        self: &Arc<Self>,
        _turn: &MutexGuard<'_, ()>,
        changed: impl Into<Changed>,
        places: &[(Digest, Pointer)],
        applied: Applied,
    ) -> Result<Lag, IndexError> {
        let Changed { rows: changes, new_keys, before } = changed.into();
        let mut at = lock(&self.commit);
        let (version, left) = self.keep_before(&changes, before)?;
        undo::let_go(self, left);
        lock(&self.recent).change(&changes);
        // Invariant: after what was before is kept, so that whoever made briefs of it sees that it changed.
        self.briefs.change(&changes);
        let lag = {
            let mut pending = self.pending.write().unwrap_or_else(PoisonError::into_inner);
            pending.commit((changes, new_keys), places, &applied);
            pending.lag()
        };
        *at = applied;
        lock(&self.undo).version = version;
        Ok(lag)
    }

    /// Keeps the old values of rows that views may still want. Gives the version to be, and what views that
    /// expired left.
    fn keep_before(
        &self,
        changes: &RowChanges,
        mut before: RowChanges,
    ) -> Result<(u64, Left), IndexError> {
        let mut undo = lock(&self.undo);
        let version = undo.version + 1;
        if !undo.has_views() {
            return Ok((version, Left::Little));
        }
        for key in changes.keys() {
            if !undo.is_wanted(key) {
                continue;
            }
            let value = match before.remove(key) {
                Some(value) => value,
                // Why: a view that came meanwhile.
                None => self.known(key)?,
            };
            undo.keep(key, Before { version, value });
        }
        let left = undo.expire(version);
        Ok((version, left))
    }
}
