//! Who looks after a running replica: tells its status, restarts a core that died, takes leadership
//! from a disk that hangs, fetches missing bodies, writes checkpoints and cuts the log.

mod cutting;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::Instant;

use crate::briefs;
use crate::checkpoint::Checkpoint;
use crate::confirm::Verdict;
use crate::core::Core;
use crate::disk::Disk;
use crate::error::Error;
use crate::local::{Local, Mark};
use crate::network::INSTALL;
use crate::replica::Inner;
use crate::status::{Role, Status};
use crate::store::Store;

/// Figures of the status are at most this old.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A leader compares the rows of its followers with its own this often.
const COMPARE_EVERY: Duration = Duration::from_secs(10);
/// A replica is confirmed this often until it may vote.
const CONFIRM_EVERY: Duration = Duration::from_millis(100);
/// The first and the longest wait before a core that died is started again.
const RESTART_AFTER: Duration = Duration::from_millis(100);
const RESTART_AFTER_MAX: Duration = Duration::from_secs(10);
/// A core that ended and is held for longer is not let go of any more.
const HELD_MAX: Duration = Duration::from_secs(30);
/// The first and the longest wait before a checkpoint that could not be written is tried again.
const CHECKPOINT_AFTER: Duration = Duration::from_secs(1);
const CHECKPOINT_AFTER_MAX: Duration = Duration::from_secs(60);
/// Whoever hands leadership over waits for so many of the longest elections until it is begun anew. Why not
/// two: an ordinary election takes that long, for a lease and the time that is drawn, if the one that was to
/// lead died meanwhile.
const HAND_OVER_ELECTIONS: u32 = 4;
/// How long a checkpoint may take before somebody looks again.
const CHECKPOINT_MAX: Duration = Duration::from_secs(600);

/// What openraft was last told, and what is under way.
pub(crate) struct Care {
    /// It may vote: its state is confirmed.
    may_vote: AtomicBool,
    campaigns: AtomicBool,
    beats: AtomicBool,
    /// For how long no majority answered it, in milliseconds.
    alone_ms: AtomicU64,
    /// It hands leadership over: since when, and the term it leads in.
    handing: Mutex<Option<(Instant, u64)>>,
    is_busy: AtomicBool,
    is_filling: AtomicBool,
    rolled_back: AtomicBool,
    /// Keeps `is_incomplete` from asking the file system.
    is_incomplete: AtomicBool,
    snapshots: Mutex<Snapshots>,
    filled: AtomicU64,
    /// Members whose rows were found to differ.
    n_differing: AtomicU64,
    /// Its own rows differ even after they were built anew.
    diverged: AtomicBool,
    compared_at: Mutex<Option<Instant>>,
    listed_at: Mutex<Option<Instant>>,
    /// A checkpoint could not be written: when it is tried again, and after which wait.
    checkpoint_again: Mutex<Option<(Instant, Duration)>>,
    /// What was left of the journal because of this replica when its log was cut last.
    pinned_bytes: AtomicU64,
    /// What the slowest follower had that was waited for then; 0 if none was.
    waited_at: AtomicU64,
    missing_chunks: AtomicU64,
    missing_bytes: AtomicU64,
    received_bytes: AtomicU64,
}

/// Snapshots that came, or rows that are to be built anew, and snapshots being installed: what was filled up
/// before one is there says nothing about its bodies.
#[derive(Default)]
struct Snapshots {
    n_begun: u64,
    n_under_way: usize,
}

/// A snapshot is being installed as long as this lives.
pub(crate) struct Installing(Arc<Core>);

impl std::ops::Deref for Installing {
    type Target = Core;

    fn deref(&self) -> &Core {
        &self.0
    }
}

impl Drop for Installing {
    fn drop(&mut self) {
        self.0.care.snapshots().n_under_way -= 1;
    }
}

impl Care {
    /// For a core that begins on these files.
    pub fn new(may_vote: bool, local: &Local) -> Self {
        let is_incomplete = local.is_marked(Mark::Incomplete);
        Self {
            may_vote: AtomicBool::new(may_vote),
            campaigns: AtomicBool::new(false),
            beats: AtomicBool::new(true),
            alone_ms: AtomicU64::new(0),
            handing: Mutex::default(),
            is_busy: AtomicBool::new(false),
            is_filling: AtomicBool::new(false),
            rolled_back: AtomicBool::new(local.is_marked(Mark::RolledBack)),
            is_incomplete: AtomicBool::new(is_incomplete),
            snapshots: Mutex::default(),
            filled: AtomicU64::new(0),
            n_differing: AtomicU64::new(0),
            diverged: AtomicBool::new(false),
            compared_at: Mutex::default(),
            listed_at: Mutex::default(),
            checkpoint_again: Mutex::default(),
            pinned_bytes: AtomicU64::new(0),
            waited_at: AtomicU64::new(0),
            missing_chunks: AtomicU64::new(0),
            missing_bytes: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
        }
    }

    /// Members whose rows were found to differ from the leader's, if this is the leader.
    pub fn n_differing(&self) -> u64 {
        self.n_differing.load(Ordering::Relaxed)
    }

    /// The last comparison found so many.
    pub fn found_differing(&self, n: u64) {
        self.n_differing.store(n, Ordering::Relaxed);
    }

    /// Its rows cannot be put right from what is on this disk.
    pub fn has_diverged(&self) {
        self.diverged.store(true, Ordering::Relaxed);
    }

    /// Whether rows are to be compared again.
    fn is_comparison_due(&self) -> bool {
        is_due(&self.compared_at, COMPARE_EVERY)
    }

    /// Whether the lists of bodies are to be compared again.
    pub fn is_listing_due(&self, every: Duration) -> bool {
        is_due(&self.listed_at, every)
    }

    /// How much of so many bytes of the journal, that cannot be given up because of this replica, came since
    /// its log was cut last. Why not all: what is kept for a follower that is far behind does not come free
    /// with another checkpoint, and they would be written one after the other.
    fn pinned_since(&self, pinned_bytes: u64) -> u64 {
        let left = self.pinned_bytes.fetch_min(pinned_bytes, Ordering::Relaxed);
        pinned_bytes.saturating_sub(left)
    }

    fn checkpoint_again(&self) -> MutexGuard<'_, Option<(Instant, Duration)>> {
        self.checkpoint_again.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it may vote.
    pub fn may_vote(&self) -> bool {
        self.may_vote.load(Ordering::Relaxed) && !self.is_rolled_back()
    }

    /// For how long no majority answered this leader.
    pub fn alone(&self) -> Duration {
        Duration::from_millis(self.alone_ms.load(Ordering::Relaxed))
    }

    /// The leader of this term hands leadership over from now on.
    pub fn hands_over(&self, term: u64) {
        *self.handing.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), term));
    }

    /// Whether the one that leadership was handed to did not take it in this time.
    fn was_left_with_it(&self, status: &Status, patience: Duration) -> bool {
        let mut handing = self.handing.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((since, term)) = *handing else { return false };
        if status.role != Role::Leader || status.term != term {
            *handing = None;
            return false;
        }
        since.elapsed() > patience
    }

    /// Whether bodies are missing.
    pub fn is_incomplete(&self) -> bool {
        self.is_incomplete.load(Ordering::Relaxed)
    }

    /// Its peers saw more of it than is here.
    pub fn was_rolled_back(&self) {
        self.rolled_back.store(true, Ordering::Relaxed);
    }

    /// How often it was looked for bodies that are missing.
    #[cfg(test)]
    pub fn n_filled(&self) -> u64 {
        self.filled.load(Ordering::Relaxed)
    }

    fn snapshots(&self) -> MutexGuard<'_, Snapshots> {
        self.snapshots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_rolled_back(&self) -> bool {
        self.rolled_back.load(Ordering::Relaxed)
    }

    /// Bodies known to be missing, and their bytes.
    pub fn missing(&self) -> (u64, u64) {
        let load = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        (load(&self.missing_chunks), load(&self.missing_bytes))
    }

    /// So many are missing.
    pub fn set_missing(&self, (chunks, bytes): (u64, u64)) {
        self.missing_chunks.store(chunks, Ordering::Relaxed);
        self.missing_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Bytes of rows and bodies that came from peers.
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes.load(Ordering::Relaxed)
    }

    /// So many more came.
    pub fn received(&self, bytes: usize) {
        self.received_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// Whether it was so long ago, and from now on no more.
fn is_due(last: &Mutex<Option<Instant>>, every: Duration) -> bool {
    let mut at = last.lock().unwrap_or_else(PoisonError::into_inner);
    let is_due = at.is_none_or(|at| at.elapsed() >= every);
    if is_due {
        *at = Some(Instant::now());
    }
    is_due
}

/// Looks after one core until it ends.
pub(crate) async fn watch(inner: Weak<Inner>, core: Weak<Core>) {
    let Some(mut changes) = core.upgrade().map(|core| core.raft.server_metrics()) else { return };
    let mut upkeep_at = Instant::now();
    let mut leads_since = None;
    loop {
        // Why both: roles change at once, figures only need to be fresh.
        let told = tokio::time::timeout(LOOK_EVERY, changes.changed()).await;
        let (Some(inner), Some(core)) = (inner.upgrade(), core.upgrade()) else { return };
        let is_gone = matches!(told, Ok(Err(_)));
        if is_gone && inner.is_stopping.load(Ordering::Relaxed) {
            return;
        }
        let status = core.status();
        // Why both: a core that panicked says nothing any more, and nobody can wait for its news.
        let panicked = || is_gone.then(|| "raft ended without a word".to_owned());
        // Why begun anew: whoever hands leadership over takes nothing more until another one leads, and
        // openraft knows no way back.
        let patience = inner.config.timing.election_max * HAND_OVER_ELECTIONS;
        let is_left = core.care.was_left_with_it(&status, patience);
        let left = || is_left.then(|| "nobody took leadership over".to_owned());
        let failed = status.failed.clone().or_else(panicked).or_else(left);
        let alone = alone_for(&status, &mut leads_since);
        tell(&inner, status);
        if inner.config.disk.is_poisoned() {
            stop_for_good(&inner, core, "disk poisoned").await;
            return;
        }
        if core.care.is_rolled_back() {
            // Why the result is dropped: without the mark the peers tell again.
            drop(core.applying.local.mark(Mark::RolledBack));
            stop_for_good(&inner, core, "state is older than its peers saw it").await;
            return;
        }
        if core.care.diverged.load(Ordering::Relaxed) {
            stop_for_good(&inner, core, "its rows differ from its peers' even when built anew")
                .await;
            return;
        }
        if core.claim.is_suspect {
            stop_for_good(&inner, core, "damage may have taken records of its log").await;
            return;
        }
        if let Some(why) = failed {
            let weak = Arc::downgrade(&inner);
            drop(inner);
            restart(weak, core, why).await;
            return;
        }
        if core.applying.store().is_damaged() {
            let weak = Arc::downgrade(&inner);
            drop(inner);
            restart(weak, core, "index damaged".into()).await;
            return;
        }
        steer(&inner, &core, alone);
        if upkeep_at <= Instant::now() {
            let look_every = inner.config.disk.options().upkeep.look_every;
            let every = if core.care.may_vote() { look_every } else { CONFIRM_EVERY };
            upkeep_at = Instant::now() + every;
            begin_upkeep(&core);
        }
    }
}

fn tell(inner: &Inner, status: Status) {
    inner.status.send_if_modified(|before| {
        let is_new = *before != status;
        *before = status;
        is_new
    });
}

/// For how long a leader was answered by no majority.
fn alone_for(status: &Status, leads_since: &mut Option<Instant>) -> Duration {
    if status.role != Role::Leader || status.voters.len() < 2 {
        *leads_since = None;
        return Duration::ZERO;
    }
    let since = *leads_since.get_or_insert_with(Instant::now);
    status.quorum_age_ms.map_or_else(|| since.elapsed(), Duration::from_millis)
}

/// Tells openraft whether to campaign and to send heartbeats.
fn steer(inner: &Inner, core: &Core, alone: Duration) {
    let is_hung = inner.config.disk.unanswered() > inner.config.timing.disk_hung;
    let care = &core.care;
    care.alone_ms.store(alone.as_millis() as u64, Ordering::Relaxed);
    let campaigns = !is_hung && care.may_vote() && !care.is_incomplete();
    if care.campaigns.swap(campaigns, Ordering::Relaxed) != campaigns {
        core.raft.runtime_config().elect(campaigns);
    }
    let beats = !is_hung && !inner.config.timing.is_silent(alone);
    if care.beats.swap(beats, Ordering::Relaxed) != beats {
        if is_hung {
            tracing::warn!(shard = %inner.config.shard, "disk hangs, leadership is given up");
        }
        core.raft.runtime_config().heartbeat(beats);
    }
}

/// Does what may take long beside the watch, one run at a time.
fn begin_upkeep(core: &Arc<Core>) {
    // Why beside the rest: at a low rate it takes hours, and the log has to be cut meanwhile.
    if core.care.is_incomplete() && !core.care.is_filling.swap(true, Ordering::Relaxed) {
        let core = core.clone();
        drop(tokio::spawn(async move {
            core.fill_up().await;
            core.care.is_filling.store(false, Ordering::Relaxed);
        }));
    }
    if core.care.is_busy.swap(true, Ordering::Relaxed) {
        return;
    }
    let core = core.clone();
    drop(tokio::spawn(async move {
        core.upkeep().await;
        core.care.is_busy.store(false, Ordering::Relaxed);
    }));
}

impl Core {
    /// A snapshot comes: bodies are missing from now on, and who misses some does not campaign.
    pub fn installing(self: &Arc<Self>) -> Installing {
        let mut snapshots = self.care.snapshots();
        snapshots.n_begun += 1;
        snapshots.n_under_way += 1;
        self.care.is_incomplete.store(true, Ordering::Relaxed);
        self.care.campaigns.store(false, Ordering::Relaxed);
        self.raft.runtime_config().elect(false);
        drop(snapshots);
        Installing(self.clone())
    }

    /// The rows there are go: what was found out about their bodies says nothing about those that come.
    pub fn rows_go(&self) {
        self.care.snapshots().n_begun += 1;
    }

    /// Whether a snapshot is being installed.
    pub fn is_installing(&self) -> bool {
        self.care.snapshots().n_under_way > 0
    }

    /// Fetches bodies that are missing.
    async fn fill_up(self: &Arc<Self>) {
        let round = self.care.filled.fetch_add(1, Ordering::Relaxed);
        let n_begun = {
            let snapshots = self.care.snapshots();
            if snapshots.n_under_way > 0 {
                // Why: its rows may come in the middle of the look at those that go.
                return;
            }
            snapshots.n_begun
        };
        if !self.fill().await {
            return;
        }
        let snapshots = self.care.snapshots();
        if snapshots.n_begun == n_begun
            && snapshots.n_under_way == 0
            && self.applying.local.unmark(Mark::Incomplete).is_ok()
        {
            tracing::info!(replica = self.claim.replica, round, "all bodies are here");
            self.care.is_incomplete.store(false, Ordering::Relaxed);
        }
    }

    async fn upkeep(&self) {
        let care = &self.care;
        if !care.may_vote() {
            match self.confirm().await {
                Verdict::Confirmed => care.may_vote.store(true, Ordering::Relaxed),
                Verdict::RolledBack => care.was_rolled_back(),
                Verdict::Open => {}
            }
            if !care.may_vote() {
                // Why nothing else: its group may have no leader as long as it is not confirmed, and a
                // checkpoint, or to collect the journal, takes minutes.
                return;
            }
        }
        if self.applying.checkpoints.is_doubted() {
            // Why the result is dropped: it is tried again.
            drop(self.write_checkpoint().await);
        }
        if care.is_comparison_due() {
            self.compare().await;
        }
        if self.applying.checkpoints.feeds().is_any() {
            // Why here too: what was kept for who needs it no more is to be cut now.
            self.needed_by_fed(&self.status());
        }
        let upkeep = &self.claim.disk.options().upkeep;
        let pinned_bytes = self.claim.disk.pinned_bytes(self.claim.replica);
        let is_pinning = care.pinned_since(pinned_bytes) > upkeep.pinned_bytes;
        let is_due = self.applying.checkpoints.dirty().is_due(upkeep, self.claim.replica);
        let store = self.applying.store();
        // Why: without room the rows are better off in memory, and come from the log after a kill.
        if store.is_stale() && self.claim.disk.takes_rows() {
            self.settle(store).await;
        }
        if (is_due || is_pinning) && self.checkpoint().await {
            if is_pinning {
                self.purge_for_room(pinned_bytes).await;
            } else {
                self.purge(upkeep.keep_entries).await;
            }
        }
        self.make_briefs().await;
        self.claim.disk.collect_in_turn();
    }

    /// Makes briefs that were put off, if nothing is committed.
    async fn make_briefs(&self) {
        let store = self.applying.store();
        if briefs::is_time(&store) {
            let made = self.claim.disk.blocking().run_aside(move || briefs::make_some(&store));
            // Why the result is dropped: what is not made here is made by whoever asks for it.
            drop(made.await);
        }
    }

    /// Writes a checkpoint of what is applied now. `None` if it cannot, or could not a moment ago: a full
    /// disk is no reason to stop, and not asked all the time.
    pub async fn write_checkpoint(&self) -> Option<Checkpoint> {
        let care = &self.care;
        if care.checkpoint_again().is_some_and(|(at, _)| Instant::now() < at) {
            return None;
        }
        // Durability: what was cut is so on the disk before there is a checkpoint of what came in its place:
        // openraft does not begin with a log whose last entry contradicts what is applied.
        let built = match self.applying.log.stays_cut().await {
            Ok(()) => self.applying.checkpoints.build(|| self.applying.store()).await,
            Err(error) => Err(error),
        };
        let mut again = care.checkpoint_again();
        let replica = self.claim.replica;
        match built {
            Ok(checkpoint) => {
                if again.take().is_some() {
                    tracing::info!(replica, "checkpoint is written again");
                }
                Some(checkpoint)
            }
            Err(error) => {
                if again.is_none() {
                    tracing::warn!(replica, %error, "checkpoint cannot be written yet");
                }
                let wait =
                    again.map_or(CHECKPOINT_AFTER, |(_, wait)| wait * 2).min(CHECKPOINT_AFTER_MAX);
                *again = Some((Instant::now() + wait, wait));
                None
            }
        }
    }

    /// Writes a checkpoint of what is applied now. False if it is not there in the end.
    pub async fn checkpoint(&self) -> bool {
        if self.applying.store().applied().log_id.is_none() {
            return false;
        }
        let Some(checkpoint) = self.write_checkpoint().await else { return false };
        let target = checkpoint.applied().log_id;
        // Why so: openraft hears of what is there, and of nothing that may fail.
        if self.raft.trigger().snapshot().await.is_err() {
            return false;
        }
        let wait = self.raft.wait(Some(CHECKPOINT_MAX));
        let is_done =
            wait.metrics(|metrics| metrics.snapshot >= target, "checkpoint").await.is_ok();
        // Why: an index behind the checkpoint would not be trusted after a kill.
        self.settle(self.applying.store()).await;
        is_done
    }

    /// Writes to the index what was committed so far.
    async fn settle(&self, store: Arc<Store>) {
        let settled = self.claim.disk.blocking().run(move || store.settle()).await;
        // Why the result is dropped: a failure marks the index damaged, and it is rebuilt.
        drop(settled);
    }
}

async fn stop_for_good(inner: &Inner, core: Arc<Core>, why: &str) {
    tracing::error!(shard = %inner.config.shard, replica = inner.config.replica_id, why,
        "replica stopped for good");
    take(inner);
    drop(core.raft.shutdown().await);
    let failed = Some(why.to_owned());
    tell(inner, Status { role: Role::Stopped, failed, ..Status::default() });
}

/// Begins another core in the place of one that died.
async fn restart(inner: Weak<Inner>, core: Arc<Core>, why: String) {
    let Some(strong) = inner.upgrade() else { return };
    if strong.is_stopping.load(Ordering::Relaxed) {
        return;
    }
    tracing::warn!(shard = %strong.config.shard, replica = strong.config.replica_id, why,
        "replica is restarted");
    if core.applying.store().is_damaged() {
        // Order: before it is opened again.
        core.claim.disk.index_failed(core.claim.replica);
    }
    take(&strong);
    let before = strong.status.borrow().clone();
    tell(&strong, Status { role: Role::Stopped, is_starting: true, failed: Some(why), ..before });
    drop(strong);
    drop(core.raft.shutdown().await);
    drop(core);
    let (mut wait, began) = (RESTART_AFTER, Instant::now());
    loop {
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(RESTART_AFTER_MAX);
        let Some(strong) = inner.upgrade() else { return };
        if strong.is_stopping.load(Ordering::Relaxed) {
            return;
        }
        match strong.begin().await {
            Ok(()) => {
                if strong.is_stopping.load(Ordering::Relaxed) {
                    // Why here: whoever stopped it meanwhile found nothing that ran. Why the result is
                    // dropped: after a stop that is not clean the next start counts the rows.
                    drop(strong.end().await);
                }
                return;
            }
            // Why again: somebody still holds the old core, for a moment, or installs a snapshot for it.
            Err(Error::Running { replica })
                if began.elapsed() < held_max(&strong.config.disk, replica) =>
            {
                wait = RESTART_AFTER;
            }
            Err(error) => {
                let (shard, replica) = (strong.config.shard, strong.config.replica_id);
                let failed = Some(error.to_string());
                tell(&strong, Status { role: Role::Stopped, failed, ..Status::default() });
                if matches!(error, Error::Lost { .. } | Error::Dead { .. }) {
                    tracing::error!(%shard, replica, %error, "replica cannot be started");
                    return;
                }
                tracing::warn!(%shard, replica, %error, "replica cannot be started yet");
            }
        }
    }
}

/// For how long the place of a replica whose core ended may be taken.
fn held_max(disk: &Disk, replica: u64) -> Duration {
    if disk.is_installing(replica) { INSTALL } else { HELD_MAX }
}

fn take(inner: &Inner) {
    inner.core.write().unwrap_or_else(PoisonError::into_inner).take();
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use api::peer::{BoxFuture, PeerError, PeerRequest, PeerResponse, PeerTransport};
    use futures_util::FutureExt as _;
    use journal::Storage;
    use journal::sim::SimStorage;
    use mailbox::{ChunkRef, Digest, RowChanges, Rows, ShardId, Source};
    use openraft::storage::RaftLogStorage as _;
    use tokio::sync::broadcast;

    use super::*;
    use crate::disk::DiskOptions;
    use crate::machine::{Machine, MachineApplied};
    use crate::raft::{LeaderId, LogId};
    use crate::replica::ReplicaConfig;
    use crate::store::Applied;
    use crate::timing::Timing;

    struct Nothing;

    impl Machine for Nothing {
        fn apply(&self, _: &mut Rows<'_>, _: &[u8], _: &[ChunkRef]) -> MachineApplied {
            MachineApplied::default()
        }

        fn is_chunk_live(&self, _: &dyn Source, _: &Digest) -> bool {
            false
        }
    }

    struct Nobody;

    impl PeerTransport for Nobody {
        fn call(&self, _: PeerRequest) -> BoxFuture<'static, Result<PeerResponse, PeerError>> {
            Box::pin(async { Err(PeerError::Unreachable("nobody".into())) })
        }
    }

    /// A replica on a disk that writes when it is told to.
    async fn core(dir: &Path) -> Core {
        let storage = SimStorage::new(1 << 20);
        Disk::format_storage(&storage).unwrap();
        let journal = journal::Options {
            segment_bytes: 64 << 10,
            reserve_segments: 0,
            hard_free_bytes: 0,
            soft_free_bytes: 0,
            threaded: false,
            ..journal::Options::default()
        };
        let storage: Arc<dyn Storage> = Arc::new(storage);
        let options = DiskOptions { journal, storage: Some(storage), ..DiskOptions::default() };
        let disk = Disk::open(dir, options).unwrap();
        let config = ReplicaConfig {
            shard: ShardId(1),
            replica_id: 1,
            node: "n1".into(),
            disk: disk.clone(),
            machine: Arc::new(Nothing),
            transport: Arc::new(Nobody),
            timing: Timing::default(),
        };
        let mut starting = Box::pin(Core::start(&config, broadcast::Sender::new(1)));
        assert!(starting.as_mut().now_or_never().is_none());
        disk.journal().pump();
        starting.await.unwrap()
    }

    #[tokio::test]
    async fn no_checkpoint_is_written_before_what_was_cut_is_synced() {
        let dir = tempfile::tempdir().unwrap();
        let core = core(dir.path()).await;
        core.applying.log.clone().truncate_after(None).await.unwrap();
        let mut writing = Box::pin(core.write_checkpoint());
        assert!(writing.as_mut().now_or_never().is_none(), "it is there already");
        assert!(core.applying.checkpoints.current().is_none());
        core.claim.disk.journal().pump();
        assert!(writing.await.is_some());
    }

    #[tokio::test]
    async fn what_stays_pinned_when_the_log_is_cut_makes_no_other_checkpoint_due() {
        let dir = tempfile::tempdir().unwrap();
        let core = core(dir.path()).await;
        let care = &core.care;
        assert_eq!(care.pinned_since(10), 10);
        care.pinned_bytes.store(10, Ordering::Relaxed);
        assert_eq!((care.pinned_since(10), care.pinned_since(14)), (0, 4));
        assert_eq!(care.pinned_since(3), 0, "more came free later");
        assert_eq!(care.pinned_since(14), 11);
    }

    #[tokio::test]
    async fn what_was_kept_for_who_was_sent_a_checkpoint_counts_whoever_ends_that() {
        let dir = tempfile::tempdir().unwrap();
        let core = core(dir.path()).await;
        let (store, checkpoints) = (core.applying.store(), core.applying.checkpoints.clone());
        let leader_id = LeaderId { term: 1, node_id: 1 };
        let log_id = Some(LogId { leader_id, index: 5 });
        let applied = Applied { log_id, ..Applied::default() };
        store.commit((RowChanges::new(), vec![]), &[], applied).unwrap();
        checkpoints.build(|| store.clone()).await.unwrap();
        drop(checkpoints.feeds().begin(2, 6));
        core.care.pinned_bytes.store(10, Ordering::Relaxed);
        // It does not lead.
        core.purge(10).await;
        assert!(!checkpoints.feeds().is_any());
        assert_eq!(core.care.pinned_since(14), 14);
    }
}
