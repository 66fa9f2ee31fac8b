//! How the log is cut below the newest checkpoint, and for whom it is kept.

use std::sync::atomic::Ordering;

use crate::core::Core;
use crate::status::{Role, Status};

/// Entries kept below what the slowest voter has, when a new member comes.
const KEEP_FOR_VOTERS: u64 = 64;
/// Who got a checkpoint, and lacks no more entries than come in a second under load, goes on like any other.
const FED_LAG: u64 = 2_000;
/// The log is kept for who is sent a checkpoint as long as so much is free besides what mail may take: more
/// than comes to a disk in the second after which the log is looked at again.
const FED_ROOM_BYTES: u64 = 1 << 30;

impl Core {
    /// Cuts the log below the newest checkpoint, except for so many entries, for what members that are behind
    /// still need, and for what those need that are sent a checkpoint, whatever else is said.
    pub async fn purge(&self, keep: u64) {
        // Invariant: only below a checkpoint that was read back; `Checkpoints` gives no other.
        let Some(checkpoint) = self.applying.checkpoints.current() else { return };
        let Some(last) = checkpoint.applied().log_id else { return };
        let status = self.status();
        let mut upto = last.index.saturating_sub(keep);
        if keep > 0 && status.role == Role::Leader {
            let slowest = status.matched.values().min().copied().unwrap_or(upto);
            let keep_away = self.claim.disk.options().upkeep.keep_entries_away;
            upto = upto.min(slowest.max(last.index.saturating_sub(keep_away)));
        }
        if let Some(needed) = self.needed_by_fed(&status) {
            upto = upto.min(needed.saturating_sub(1));
        }
        if upto > status.purged {
            // Why the result is dropped: a core that stopped is noticed by its watch.
            drop(self.raft.trigger().purge_log(upto).await);
        }
    }

    /// The first entry that a follower needs that is sent a checkpoint, as long as the log may be kept for
    /// it.
    pub(super) fn needed_by_fed(&self, status: &Status) -> Option<u64> {
        let feeds = self.applying.checkpoints.feeds();
        if !feeds.is_any() {
            return None;
        }
        let near = status.last_log_index.saturating_sub(FED_LAG);
        let mut needed = feeds.first_needed(&status.matched, near);
        if status.role != Role::Leader || (needed.is_some() && !self.may_keep_for_fed()) {
            feeds.give_up();
            needed = None;
        }
        if needed.is_none() {
            // Why, whoever found it: what was kept for them counts from now on as if it had just come, or no
            // checkpoint would be due because of it, and it would stay.
            self.care.pinned_bytes.store(0, Ordering::Relaxed);
        }
        needed
    }

    /// Whether there is room for what is kept for who is sent a checkpoint.
    fn may_keep_for_fed(&self) -> bool {
        let (disk, replica) = (&self.claim.disk, self.claim.replica);
        let n_bytes = disk.pinned_bytes(replica);
        let is_too_much = n_bytes > disk.options().upkeep.fed_pinned_bytes;
        if is_too_much {
            tracing::info!(replica, n_bytes, "log is not kept for who is sent a checkpoint");
        }
        !is_too_much && disk.has_room_to_spare(FED_ROOM_BYTES)
    }

    /// Cuts the log below the newest checkpoint as far as every voter but `except` has it.
    pub async fn purge_for_newcomer(&self, except: Option<u64>) {
        // Invariant: only below a checkpoint that was read back, as in `purge`.
        let Some(checkpoint) = self.applying.checkpoints.current() else { return };
        let Some(last) = checkpoint.applied().log_id else { return };
        let status = self.status();
        let voters = status.voters.keys().filter(|id| Some(**id) != except);
        let slowest = voters.filter(|id| **id != self.claim.replica);
        let slowest = slowest.map(|id| status.matched.get(id).copied().unwrap_or(0)).min();
        let upto = last.index.min(slowest.unwrap_or(last.index).saturating_sub(KEEP_FOR_VOTERS));
        let needed = self.needed_by_fed(&status).map_or(upto, |needed| needed.saturating_sub(1));
        let upto = upto.min(needed);
        if upto > status.purged {
            // Why the result is dropped: a core that stopped is noticed by its watch.
            drop(self.raft.trigger().purge_log(upto).await);
        }
    }
}
