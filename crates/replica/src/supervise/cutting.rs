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
        let Some(last) = self.last_in_checkpoint() else { return };
        let status = self.status();
        let mut upto = last.saturating_sub(keep);
        if keep > 0 && status.role == Role::Leader {
            let slowest = status.matched.values().min().copied().unwrap_or(upto);
            let keep_away = self.claim.disk.options().upkeep.keep_entries_away;
            upto = upto.min(slowest.max(last.saturating_sub(keep_away)));
        }
        self.cut(upto, &status).await;
    }

    /// Cuts all of the log below the newest checkpoint, since so many bytes of the journal do not come free
    /// because of it; but for what those need that are sent a checkpoint. Who answers and lacks little is
    /// waited for, unless it got no further since it was waited for: with its entries gone, one request that
    /// fails would cost it another checkpoint.
    pub(super) async fn purge_for_room(&self, pinned_bytes: u64) {
        let Some(last) = self.last_in_checkpoint() else { return };
        let (care, status) = (&self.care, self.status());
        let beyond = care.waited_at.load(Ordering::Relaxed) + 1;
        let slowest = status.slowest_within(beyond.max(last.saturating_sub(FED_LAG))..last);
        self.cut(slowest.unwrap_or(last), &status).await;
        care.waited_at.store(slowest.unwrap_or(0), Ordering::Relaxed);
        // Why not while a checkpoint is sent: much more stays for that than for who lacks little.
        let is_tried_again = slowest.is_some() && !self.applying.checkpoints.feeds().is_any();
        let left = if is_tried_again { 0 } else { pinned_bytes };
        care.pinned_bytes.store(left, Ordering::Relaxed);
    }

    /// The last entry in the newest checkpoint.
    fn last_in_checkpoint(&self) -> Option<u64> {
        Some(self.applying.checkpoints.current()?.applied().log_id?.index)
    }

    /// Cuts the log up to an entry, but for what those need that are sent a checkpoint.
    ///
    /// Invariant: only below a checkpoint that was read back; `Checkpoints` gives no other.
    async fn cut(&self, upto: u64, status: &Status) {
        let needed = self.needed_by_fed(status).map_or(upto, |needed| needed.saturating_sub(1));
        let upto = upto.min(needed);
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
        let Some(last) = self.last_in_checkpoint() else { return };
        let status = self.status();
        let voters = status.voters.keys().filter(|id| Some(**id) != except);
        let slowest = voters.filter(|id| **id != self.claim.replica);
        let slowest = slowest.map(|id| status.matched.get(id).copied().unwrap_or(0)).min();
        let upto = last.min(slowest.unwrap_or(last).saturating_sub(KEEP_FOR_VOTERS));
        self.cut(upto, &status).await;
    }
}
