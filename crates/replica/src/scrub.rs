//! Scrub: everything that lies still on a disk is read and verified, again and again, at a bounded
//! rate, and what does not verify is healed.
//!
//! A pass goes over the journal (every record's checksum and the digest of every body), and then for
//! each replica over its checkpoints (their hash, and that base and deltas add up to the digest they
//! should have), its index (every row's checksum, and that the rows add up) and its bodies (those that
//! rows refer to have a place). Enter at [`Disk::scrub`].

mod heal;
mod ledger;

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use journal::{Blob, Pointer, SegmentId};
use mailbox::{ChunkRef, Digest, LogTime, RowDigest, StoredChunk};
use tokio::time::Instant;

use self::ledger::Found;
pub(crate) use self::ledger::Ledger;
pub use self::ledger::ScrubStatus;
use crate::checkpoint::{Checkpoint, Sum, is_damage};
use crate::codec;
use crate::core::Core;
use crate::disk::Disk;
use crate::store::{Lost, RowView, Store};
use crate::view;

/// Bytes verified between two pauses.
const STEP_BYTES: u64 = 1 << 20;
/// Rows of an index verified between two pauses, so that apply and readers are not held up.
const STEP_ROWS: usize = 512;
/// Bodies whose places are looked at between two pauses.
const STEP_BODIES: usize = 2048;
/// A pass begins no sooner after the one before it. Why: what is small is not worth being read all
/// the time.
const PASS_EVERY: Duration = Duration::from_secs(30);
/// A disk is busy when its journal syncs more often: everything a client waits for is such a sync.
const BUSY_SYNCS_PER_S: u64 = 20;
/// On a busy disk the rate is so much less. Why not zero: a disk may be busy for months; at the default rate
/// this reads 3 TB in two weeks.
const BUSY_SHARE: u32 = 8;
/// After work on an index it rests so many times as long as that took: it gets a twentieth of a core, and
/// less of one that others want.
const REST: u32 = 19;
/// Limit: how long it rests at once. Why: what it took is the time of a clock, which a disk that hangs, or
/// threads that are all busy, make long; and a view may be open meanwhile.
const REST_MAX: Duration = Duration::from_secs(1);
/// Limit: overwritten rows kept for views, in bytes, while scrub rests with one open. Why so little: a
/// checkpoint's view frees nothing as long as there is another one.
const KEPT_BYTES_MAX: usize = 8 << 20;
/// What a replica has is compared with what its peers have no sooner again, unless scrub is in a hurry.
const LISTS_EVERY: Duration = Duration::from_secs(600);
/// What is damaged is looked after when it is found, and this often.
const HEAL_EVERY: Duration = Duration::from_secs(2);

/// Keeps the rate.
struct Pace {
    /// `None`: as fast as it goes.
    bytes_per_s: Option<u64>,
}

impl Pace {
    async fn spend(&self, disk: &Disk, n_bytes: u64) {
        match self.due(disk, n_bytes) {
            None => tokio::task::yield_now().await,
            Some(pause) => disk.wait(pause).await,
        }
    }

    /// How long so much takes at the rate; `None` in a hurry.
    fn due(&self, disk: &Disk, n_bytes: u64) -> Option<Duration> {
        let rate = self.bytes_per_s.filter(|_| !disk.ledger().is_hurried())?;
        Some(Duration::from_micros(n_bytes * 1_000_000 / rate.max(1)))
    }

    /// The same, and longer as long as the disk is busy: what it reads is decompressed and hashed, on the
    /// cores that clients wait for.
    async fn give_way(&self, disk: &Disk, n_bytes: u64) {
        for _ in 0..BUSY_SHARE {
            let (n_synced, began) = (disk.journal().synced_sequence(), Instant::now());
            self.spend(disk, n_bytes).await;
            if self.due(disk, n_bytes).is_none() || disk.is_closing() {
                return;
            }
            let n_syncs = disk.journal().synced_sequence() - n_synced;
            let is_busy = n_syncs * 1000 > BUSY_SYNCS_PER_S * began.elapsed().as_millis() as u64;
            if !is_busy {
                return;
            }
        }
    }
}

impl Disk {
    /// Verifies and heals, at most so many bytes a second each, until [`Self::stop_scrub`]. Bodies are
    /// verified at an eighth of that while clients write.
    pub async fn scrub(self: Arc<Self>, bytes_per_s: u64) {
        let pace = Pace { bytes_per_s: Some(bytes_per_s) };
        let dir = self.dir().to_path_buf();
        // Why the result is dropped: without the note the times are only told as unknown.
        let left = self.blocking().run(move || ledger::left(&dir)).await.unwrap_or_default();
        self.ledger().recall(left);
        // Why beside it: a pass over a large disk takes days, and reads find damage as well.
        let healing = self.heal_what_is_found(&pace);
        futures_util::future::join(self.pass_by_pass(&pace), healing).await;
    }

    async fn pass_by_pass(self: &Arc<Self>, pace: &Pace) {
        while !self.is_closing() {
            let began = Instant::now();
            self.pass(pace).await;
            let is_early = || began.elapsed() < PASS_EVERY && !self.ledger().is_hurried();
            while is_early() && !self.is_closing() {
                self.wait(PASS_EVERY.saturating_sub(began.elapsed())).await;
            }
        }
    }

    /// Heals what anybody found, soon after it was found.
    async fn heal_what_is_found(self: &Arc<Self>, pace: &Pace) {
        while self.wait_for_damage(HEAL_EVERY).await {
            if self.ledger().is_anything_to_heal() {
                self.heal(pace).await;
            }
        }
    }

    /// One pass over everything, as fast as it goes. For those in a hurry, and for tests.
    pub async fn scrub_once(self: &Arc<Self>) {
        self.ledger().hurry();
        self.pass(&Pace { bytes_per_s: None }).await;
    }

    /// Asks [`Self::scrub`] for a whole pass that begins from now on, as fast as it goes, and soon. It is
    /// done when [`ScrubStatus::n_passes`] has come to the number given here.
    pub fn hurry_scrub(&self) -> u64 {
        let goal = self.ledger().hurry_passes();
        self.wake_scrub();
        goal
    }

    /// Lets others have the core after work that took so long.
    pub(crate) async fn rest(&self, took: Duration) {
        let is_hurried = self.ledger().is_hurried();
        if is_hurried {
            tokio::task::yield_now().await;
        } else {
            self.wait((took * REST).min(REST_MAX)).await;
        }
    }

    /// What scrub did and found.
    pub fn scrub_status(&self) -> ScrubStatus {
        let now = self.now();
        let segments = self.journal().segments();
        self.ledger().status(&segments, now)
    }

    /// When the bytes of a place were last verified by scrub.
    pub(crate) fn verified_at(&self, place: Pointer) -> Option<LogTime> {
        self.ledger().verified_at(place)
    }

    /// Something in the journal does not verify: its segment is emptied and deleted.
    pub(crate) fn found_damage(&self, segment: SegmentId, offset: u64) {
        let found = self.ledger().condemn(segment, offset);
        let disk = self.journal().disk_id();
        match found {
            Found::Known => return,
            Found::First => tracing::warn!(%disk, %segment, offset, "damage in the journal"),
            // Why not warned of: on a disk that reads nothing any more there are as many as bodies.
            Found::More => tracing::debug!(%disk, %segment, offset, "more damage in the journal"),
        }
        self.wake_healing();
    }

    /// A replica's index does not verify; it is built anew when the replica starts again.
    pub(crate) fn found_bad_index(&self, replica: u64) {
        // Order: the ledger first. Who leaves is dead before what is noted of it there is forgotten, so that
        // whoever finds it alive here notes what will be.
        let mut ledger = self.ledger();
        if !self.is_dead(replica) && ledger.indexes.insert(replica) {
            ledger.n_damaged += 1;
            tracing::warn!(replica, "damage in the index");
        }
    }

    /// A replica's checkpoint does not verify; it is written anew.
    pub(crate) fn found_bad_checkpoint(&self, replica: u64) {
        // Order: as above.
        let mut ledger = self.ledger();
        if !self.is_dead(replica) && ledger.checkpoints.insert(replica) {
            ledger.n_damaged += 1;
            tracing::warn!(replica, "damage in a checkpoint");
        }
    }

    async fn pass(self: &Arc<Self>, pace: &Pace) {
        self.ledger().begin_pass();
        let is_read = self.verify_journal(pace).await;
        let cores = self.cores();
        for core in cores.iter().take_while(|_| !self.is_closing()) {
            self.verify_checkpoints(core, pace).await;
            self.verify_rows(core, pace).await;
            // Why not without room: what is pending goes to the index first.
            if self.has_room_for_index() {
                self.verify_places(core).await;
            }
        }
        self.heal(pace).await;
        if self.is_closing() {
            return;
        }
        if !is_read {
            return self.ledger().give_up_pass();
        }
        let now = self.now();
        let dir = self.dir().to_path_buf();
        let note = self.ledger().end_pass(now);
        // Why the result is dropped: without the note the times are only told as unknown.
        drop(self.blocking().run(move || ledger::keep(&dir, &note)).await);
    }

    /// Records, bodies, manifests and footers of all segments. False when not all of them were read: the
    /// disk failed, or cannot be read.
    async fn verify_journal(self: &Arc<Self>, pace: &Pace) -> bool {
        let mut known = None;
        loop {
            let this = self.clone();
            let step = move || this.journal().scrub_step(STEP_BYTES, &is_right);
            let step = match self.blocking().run(step).await {
                Ok(Ok(step)) => step,
                Ok(Err(error)) => {
                    let disk = self.journal().disk_id();
                    tracing::warn!(%disk, %error, "journal cannot be scrubbed");
                    return false;
                }
                Err(error) => {
                    let disk = self.journal().disk_id();
                    tracing::error!(%disk, %error, "scrub of the journal panicked");
                    return false;
                }
            };
            let now = self.now();
            // Why only then: a large disk has ten thousands of them, and a step is read in a moment.
            let extent = Some(self.journal().extent());
            let segments = (extent != known).then(|| self.journal().segments());
            known = extent;
            self.ledger().learn(&step, segments.as_deref(), now);
            for damage in &step.damaged {
                self.found_damage(damage.segment, damage.offset);
            }
            if !step.damaged.is_empty() {
                self.heal(pace).await;
            }
            pace.give_way(self, step.n_bytes).await;
            let is_over = step.oldest_unverified.is_none();
            if self.is_poisoned() || self.is_closing() {
                return false;
            }
            if is_over {
                return true;
            }
        }
    }

    async fn verify_checkpoints(self: &Arc<Self>, weak: &Weak<Core>, pace: &Pace) {
        let Some(core) = weak.upgrade() else { return };
        let current = core.applying.checkpoints.current();
        drop(core);
        for part in current.iter().flat_map(|current| current.parts()) {
            // Why some other hash: what cannot be read is healed like what reads wrong.
            let this = part.clone();
            let hashed = self.blocking().run(move || this.hashed()).await.and_then(|read| read);
            let (end, stored) = hashed.unwrap_or_else(|_| (part.len, [0; 32].into()));
            let (mut hasher, mut at) = (blake3::Hasher::new(), 0);
            while at < end {
                let (part, len) = (part.clone(), (end - at).min(STEP_BYTES));
                let read = self.blocking().run(move || part.bytes_at(at, len as usize)).await;
                // Why empty: a sector that cannot be read is healed like one that reads wrong.
                let bytes: Bytes = read.and_then(|read| read).unwrap_or_default();
                hasher.update(&bytes);
                at += len;
                self.ledger().verified_bytes += len;
                pace.spend(self, len).await;
                if self.is_closing() {
                    return;
                }
            }
            if hasher.finalize() != stored
                && let Some(core) = weak.upgrade()
                && core.applying.checkpoints.holds(part)
            {
                core.applying.checkpoints.doubt();
                self.found_bad_checkpoint(core.claim.replica);
            }
        }
        if let Some(checkpoint) = current {
            self.verify_sum(weak, checkpoint, pace).await;
        }
    }

    /// Base and deltas add up to what they should.
    async fn verify_sum(self: &Arc<Self>, weak: &Weak<Core>, checkpoint: Checkpoint, pace: &Pace) {
        let base = checkpoint.parts()[0].clone();
        let owner = || weak.upgrade().filter(|core| core.applying.checkpoints.holds(&base));
        let begin = move || Sum::begin(&checkpoint);
        let begun = self.blocking().run(begin).await.and_then(|begun| begun);
        let Ok(mut sum) = begun else { return };
        let is_wrong = loop {
            // Why: who writes a base anew adds its rows up, and the files of before take space as long as
            // they are read.
            if self.is_closing() || owner().is_none() {
                return;
            }
            let step = move || {
                let stepped = sum.step(STEP_ROWS);
                (sum, stepped)
            };
            let began = Instant::now();
            let Ok((after, stepped)) = self.blocking().run(step).await else { return };
            let took = began.elapsed();
            sum = after;
            match stepped {
                Ok(0) => break !sum.is_right(),
                Ok(n_bytes) => {
                    pace.spend(self, n_bytes).await;
                    self.rest(took).await;
                }
                Err(error) => break is_damage(&error),
            }
        };
        if is_wrong && let Some(core) = owner() {
            core.applying.checkpoints.doubt();
            self.found_bad_checkpoint(core.claim.replica);
        }
    }

    async fn verify_rows(self: &Arc<Self>, weak: &Weak<Core>, pace: &Pace) {
        let Some(core) = weak.upgrade() else { return };
        let (replica, store) = (core.claim.replica, core.applying.store());
        let mut check = RowCheck::begin(&store);
        drop((core, store));
        let is_wrong = loop {
            // Why: while the view lives, the index of a replica that stopped stays open.
            let store = weak.upgrade().map(|core| core.applying.store());
            let Some(store) = store.filter(|store| check.is_of(store)) else { return };
            if self.is_closing() {
                return;
            }
            let step = move || {
                let stepped = check.step(&store);
                (check, stepped)
            };
            let began = Instant::now();
            let Ok((after, stepped)) = self.blocking().run(step).await else { return };
            let took = began.elapsed();
            check = after;
            match stepped {
                Ok(0) => break check.misses_digest(),
                Ok(n_bytes) => {
                    self.ledger().verified_bytes += n_bytes;
                    check.let_go_of_much(KEPT_BYTES_MAX);
                    pace.spend(self, n_bytes).await;
                    self.rest(took).await;
                }
                // Too much changed meanwhile: the rest is verified row by row.
                Err(Lost::Expired) => check.view = None,
                Err(Lost::Index(_)) => break true,
            }
        };
        if is_wrong {
            self.found_bad_index(replica);
            if let Some(store) = check.store.upgrade() {
                store.give_up();
            }
        }
    }

    /// Every body that rows refer to has a place in a segment that is there.
    async fn verify_places(self: &Arc<Self>, weak: &Weak<Core>) {
        let mut after: Option<Digest> = None;
        loop {
            let Some(core) = weak.upgrade() else { return };
            let store = core.applying.store();
            let began = Instant::now();
            let page = self.blocking().run(move || store.bodies(after, STEP_BODIES)).await;
            let took = began.elapsed();
            let Ok(Ok(page)) = page else { return };
            let Some((last, _)) = page.last() else { break };
            after = Some(*last);
            let segments = self.journal().segments();
            let is_lost = |(digest, at): &&(Digest, Pointer)| {
                segments.binary_search(&at.segment).is_err()
                    // Why again: it may have been moved since.
                    && core.applying.store().locate(digest).ok().flatten() == Some(*at)
                    && core.is_live(digest)
            };
            let lost: Vec<Digest> =
                page.iter().filter(is_lost).map(|(digest, _)| *digest).collect();
            let n_lost = lost.len() as u64;
            if n_lost > 0 && self.restore(&core, lost).await {
                let mut ledger = self.ledger();
                ledger.n_damaged += n_lost;
                ledger.n_repaired += n_lost;
            }
            drop(core);
            self.rest(took).await;
            if self.is_closing() {
                return;
            }
        }
        let Some(core) = weak.upgrade() else { return };
        if core.care.is_incomplete()
            || !core.care.is_listing_due(LISTS_EVERY) && !self.ledger().is_hurried()
        {
            return;
        }
        let peers = core.peers();
        drop(core);
        for peer in peers {
            // Why all of them: what is lost without a trace here may be so there too.
            if let Ok(n_fetched) = Core::mend_from(weak, &peer).await {
                self.ledger().n_damaged += n_fetched;
                self.ledger().n_repaired += n_fetched;
            }
        }
    }
}

/// An index being read.
struct RowCheck {
    store: Weak<Store>,
    /// Of all that was read so far, so that it has to add up. `None` when that is not known any more: then
    /// each step has one of its own, and nothing is kept for scrub while it rests.
    view: Option<RowView>,
    from: Vec<u8>,
    digest: RowDigest,
}

impl RowCheck {
    fn begin(store: &Arc<Store>) -> Self {
        let (from, digest) = Default::default();
        Self { store: Arc::downgrade(store), view: Some(store.view()), from, digest }
    }

    /// Whether these are the rows it began with.
    fn is_of(&self, store: &Arc<Store>) -> bool {
        std::ptr::eq(self.store.as_ptr(), Arc::as_ptr(store))
    }

    /// Some rows more, and their bytes; 0 at the end.
    fn step(&mut self, store: &Arc<Store>) -> Result<u64, Lost> {
        let page = match &self.view {
            Some(view) => view.page(&self.from, STEP_ROWS)?,
            None => store.view().page(&self.from, STEP_ROWS)?,
        };
        let mut n_bytes = 0;
        for (key, value) in &page {
            self.digest.add(key, value);
            n_bytes += (key.len() + value.len()) as u64;
        }
        if let Some((last, _)) = page.into_iter().next_back() {
            self.from = last;
            self.from.push(0);
        }
        Ok(n_bytes)
    }

    /// Whether rows are missing, or there that should not be.
    fn misses_digest(&self) -> bool {
        self.view.as_ref().is_some_and(|view| self.digest != view.applied().digest)
    }

    /// Does without its view if so much is kept for views.
    fn let_go_of_much(&mut self, bytes_max: usize) {
        if self.view.as_ref().is_some_and(|view| view.store().kept_bytes() > bytes_max) {
            self.view = None;
        }
    }
}

/// Whether a body is what its digest says. Its checksum was right already.
fn is_right(blob: &Blob) -> bool {
    if blob.key_id != 0 {
        // Why: scrub has no keys, and the checksum covers what is encrypted.
        return true;
    }
    let Ok(codec) = codec::read_codec(blob.codec) else { return false };
    let chunk = ChunkRef { digest: Digest(blob.digest), raw_len: blob.raw_len };
    view::raw(&StoredChunk { chunk, codec, bytes: blob.bytes.clone() }).is_some()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test that cannot go on says where.

    use mailbox::RowChanges;

    use super::*;
    use crate::index;
    use crate::store::Applied;

    #[test]
    fn nothing_is_kept_for_who_rests_once_much_was() {
        let dir = tempfile::tempdir().unwrap();
        let store =
            Store::open(index::open(dir.path(), 1 << 20).unwrap(), 1, Arc::default()).unwrap();
        let n_rows = STEP_ROWS as u32 * 3;
        let mut applied = Applied::default();
        let mut rows = RowChanges::new();
        for n in 0..n_rows {
            applied.digest.add(&n.to_be_bytes(), &[1]);
            rows.insert(n.to_be_bytes().to_vec(), Some(vec![1]));
        }
        store.commit((rows.clone(), Vec::new()), &[], applied.clone()).unwrap();
        let to_the_end = |check: &mut RowCheck| {
            (0..).take_while(|_| check.step(&store).unwrap() > 0).count();
            check.misses_digest()
        };
        assert!(!to_the_end(&mut RowCheck::begin(&store)));

        let mut check = RowCheck::begin(&store);
        check.step(&store).unwrap();
        store.commit((rows, Vec::new()), &[], applied.clone()).unwrap();
        let kept_bytes = store.kept_bytes();
        check.let_go_of_much(kept_bytes);
        assert!(check.view.is_some(), "that much may be kept");
        check.let_go_of_much(kept_bytes - 1);
        assert_eq!((store.has_views(), store.kept_bytes()), (false, 0));
        let last = RowChanges::from([((n_rows - 1).to_be_bytes().to_vec(), None)]);
        store.commit((last, Vec::new()), &[], applied.clone()).unwrap();
        assert!(!to_the_end(&mut check), "whether that adds up is not known");
        assert!(to_the_end(&mut RowCheck::begin(&store)), "a row is missing");
    }
}
