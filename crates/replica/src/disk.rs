//! One disk of a node: its journal, and beside it the indexes and checkpoints of its replicas.

mod collecting;
mod doubts;
mod space;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use journal::{
    DiskId, Journal, RealStorage, Record, RecoveredReplica, ReplicaId, SegmentId, Storage,
};
use mailbox::{LogTime, ShardId};
use tokio::sync::{Notify, watch};

use self::space::Lately;
use crate::apart::Apart;
use crate::appender::Appender;
use crate::blocking::Blocking;
use crate::briefs::Briefs;
use crate::chunks::Throttle;
use crate::codec::{self, Reader};
use crate::core::Core;
use crate::error::Error;
use crate::log::{Log, RecoveredLog};
use crate::raft::LogId;
use crate::scrub::Ledger;
use crate::state::Applying;
use crate::upkeep::Upkeep;

/// What time it is.
pub type Clock = Arc<dyn Fn() -> LogTime + Send + Sync>;

/// Settings of a disk.
#[derive(Clone)]
pub struct DiskOptions {
    /// Of its journal. Without `threaded` nothing here starts a thread, and who opened the disk
    /// pumps its journal: for simulations.
    pub journal: journal::Options,
    /// Cache of each replica's index, as sled counts it: it takes some four times as much memory. Raise
    /// this when reads of rows wait for the disk.
    pub index_cache_bytes: u64,
    /// When checkpoints are written and segments freed.
    pub upkeep: Upkeep,
    /// Bytes a second that all replicas here together take of bodies they lack; `None`: as fast as it
    /// goes.
    pub fill_bytes_per_s: Option<u64>,
    /// Where the journal lies, if not in the disk's directory: a simulated disk.
    pub storage: Option<Arc<dyn Storage>>,
    /// Tells the time, if the system's clock shall not: a simulated clock.
    pub clock: Option<Clock>,
    /// Other disks are in use here as well: whoever waits for this one keeps no thread that serves them.
    pub has_others: bool,
}

impl Default for DiskOptions {
    fn default() -> Self {
        Self {
            journal: journal::Options::default(),
            index_cache_bytes: 16 << 20,
            upkeep: Upkeep::default(),
            fill_bytes_per_s: None,
            storage: None,
            clock: None,
            has_others: false,
        }
    }
}

/// One disk: the unit of failure.
pub struct Disk {
    dir: PathBuf,
    options: DiskOptions,
    appender: Arc<Appender>,
    /// Batches its journal held when it was opened.
    n_recovered: u64,
    /// Where this start put what may not have been synced before.
    resynced: Option<SegmentId>,
    state: Mutex<State>,
    ledger: Mutex<Ledger>,
    briefs: Arc<Briefs>,
    /// Of bodies that replicas here lack.
    filling: Throttle,
    /// Scrub is to end.
    closing: watch::Sender<bool>,
    /// Scrub is to go on without a pause.
    hurried: Notify,
    /// Damage was found.
    damaged: Notify,
    /// Held by who heals.
    healing: tokio::sync::Mutex<()>,
    /// A drill rehearses a full disk.
    pretends_full: AtomicBool,
    /// How full it was.
    lately: Arc<Mutex<Lately>>,
}

#[derive(Default)]
struct State {
    /// Not started yet since the disk was opened.
    recovered: BTreeMap<u64, RecoveredReplica>,
    /// Damage may have taken records of them, whoever starts them and however often.
    suspects: BTreeSet<u64>,
    known: BTreeMap<u64, ShardId>,
    dead: BTreeSet<u64>,
    logs: BTreeMap<u64, Log>,
    running: BTreeMap<u64, Weak<Applying>>,
    cores: BTreeMap<u64, Weak<Core>>,
    /// Snapshots are taken over for them, whether their cores still run or not. Why not a set: one that
    /// comes too late is there for a moment beside the next core's.
    installing: Vec<u64>,
    /// How often that began or ended, or rows were found to be wrong.
    n_rows_changed: u64,
    /// How often a replica's rows were found to be other than those of its peers.
    doubted: BTreeMap<u64, u32>,
    /// Replicas whose indexes could not be read, or written to.
    failed_indexes: BTreeSet<u64>,
    /// Nobody votes but the replicas of this group.
    held_but: Option<ShardId>,
    /// The journal is being collected,
    is_collecting: bool,
    /// or it is not before this; `None`: at once.
    collect_at: Option<tokio::time::Instant>,
    /// The replica of which was told last that its log keeps much of the journal, if it still does.
    pinning: Option<u64>,
    /// Where bodies of replicas that are not attached were copied to: their indexes do not know it.
    /// Limit: one for each segment that is written until they are.
    copied: BTreeMap<u64, BTreeSet<SegmentId>>,
}

/// A replica's place on its disk; while it lives, nobody else gets it.
pub(crate) struct Claim {
    pub disk: Arc<Disk>,
    pub replica: u64,
    pub log: Log,
    /// Damage may have taken records of it.
    pub is_suspect: bool,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut state = self.disk.lock();
        state.running.remove(&self.replica);
        state.cores.remove(&self.replica);
    }
}

/// A snapshot is taken over for a replica; while this lives, nobody gets its place.
pub(crate) struct Installation {
    disk: Arc<Disk>,
    replica: u64,
}

impl Drop for Installation {
    fn drop(&mut self) {
        let mut state = self.disk.lock();
        let at = state.installing.iter().position(|replica| *replica == self.replica);
        if let Some(at) = at {
            state.installing.swap_remove(at);
            state.n_rows_changed += 1;
        }
    }
}

/// A replica is being taken off its disk; while this lives, nobody starts it.
struct Leaving<'d> {
    disk: &'d Disk,
    replica: u64,
}

impl<'d> Leaving<'d> {
    fn begin(disk: &'d Disk, replica: u64) -> Result<Self, Error> {
        let mut state = disk.lock();
        if state.running.contains_key(&replica) || state.installing.contains(&replica) {
            return Err(Error::Running { replica });
        }
        state.running.insert(replica, Weak::new());
        drop(state);
        Ok(Self { disk, replica })
    }
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.disk.lock().running.remove(&self.replica);
    }
}

impl Disk {
    /// Gives an empty directory a new disk identity, once in a disk's life.
    pub fn format(dir: &Path) -> Result<[u8; 16], Error> {
        let storage = RealStorage::open(&dir.join("journal")).map_err(Error::io("open disk"))?;
        Self::format_storage(&storage)
    }

    /// The same for a simulated disk.
    pub fn format_storage(storage: &dyn Storage) -> Result<[u8; 16], Error> {
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(Error::io("draw a disk id"))?;
        Journal::format(storage, DiskId(id))?;
        Ok(id)
    }

    /// Opens a formatted disk and recovers its journal.
    pub fn open(dir: &Path, options: DiskOptions) -> Result<Arc<Self>, Error> {
        let storage = match options.storage.clone() {
            Some(storage) => storage,
            None => Arc::new(RealStorage::open(&dir.join("journal")).map_err(not_opened)?),
        };
        let (journal, recovered) = Journal::open(storage, options.journal.clone())?;
        for damage in &recovered.damaged {
            tracing::error!(disk = %journal.disk_id(), ?damage, "journal damaged");
        }
        let resynced = journal.segments().pop().filter(|_| recovered.n_resynced > 0);
        let mut ledger = Ledger::default();
        for damage in &recovered.damaged {
            ledger.condemn(damage.segment, damage.offset);
        }
        let blocking = Blocking { is_threaded: options.journal.threaded };
        let apart = Apart::new(blocking, options.has_others);
        let lately = if apart.has_others() { Lately::of(&journal) } else { Lately::default() };
        let appender = Appender { journal, apart };
        let mut state = State::default();
        for (ReplicaId(id), replica) in recovered.replicas {
            if replica.is_dead {
                state.dead.insert(id);
                continue;
            }
            if let Some(born) = &replica.born
                && let Ok(shard) = Reader(born.clone()).u32()
            {
                state.known.insert(id, ShardId(shard));
            }
            if replica.is_suspect {
                state.suspects.insert(id);
            }
            state.recovered.insert(id, replica);
        }
        let dead = state.dead.clone();
        let this = Self {
            dir: dir.to_path_buf(),
            briefs: Arc::default(),
            filling: Throttle::new(options.fill_bytes_per_s),
            options,
            appender: Arc::new(appender),
            n_recovered: recovered.sequence,
            resynced,
            state: Mutex::new(state),
            ledger: Mutex::new(ledger),
            closing: watch::Sender::new(false),
            hurried: Notify::new(),
            damaged: Notify::new(),
            healing: tokio::sync::Mutex::default(),
            pretends_full: AtomicBool::new(false),
            lately: Arc::new(Mutex::new(lately)),
        };
        for replica in dead {
            // What a crash left after it died.
            if let Err(error) = remove_dirs(&this.dirs_of(replica)) {
                tracing::warn!(replica, %error, "files of a dead replica cannot be removed");
            }
        }
        Ok(Arc::new(this))
    }

    /// What queries keep for each other.
    pub(crate) fn briefs(&self) -> Arc<Briefs> {
        self.briefs.clone()
    }

    /// Who this disk is.
    pub fn disk_id(&self) -> [u8; 16] {
        self.journal().disk_id().0
    }

    /// How often it was started, this time included.
    pub fn start_count(&self) -> u64 {
        self.journal().start_count()
    }

    /// Batches its journal held when it was opened. Fewer than [`Disk::n_synced`] once told: what is
    /// here is an older copy of the disk.
    pub fn n_recovered(&self) -> u64 {
        self.n_recovered
    }

    /// Batches in its journal that are synced, those of all earlier starts included.
    pub fn n_synced(&self) -> u64 {
        self.journal().synced_sequence()
    }

    /// The replicas that live on it, with their shards.
    pub fn replicas(&self) -> BTreeMap<u64, ShardId> {
        self.lock().known.clone()
    }

    /// Bytes of the checkpoints of a replica: about as large as it is. 0 if they cannot be read, for
    /// then it will say so itself when it starts.
    pub fn checkpoint_bytes(&self, replica: u64) -> u64 {
        let entries = std::fs::read_dir(self.checkpoint_dir(replica)).into_iter().flatten();
        entries.flatten().filter_map(|entry| entry.metadata().ok()).map(|file| file.len()).sum()
    }

    /// True after a write or sync error, for ever.
    pub fn is_poisoned(&self) -> bool {
        self.journal().is_poisoned()
    }

    /// For how long something has waited for a sync that did not complete.
    pub fn sync_pending(&self) -> Duration {
        self.journal().last_sync().pending_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// For how long it has not answered: to a sync, or to a read that one of its replicas waits for.
    pub fn unanswered(&self) -> Duration {
        self.sync_pending().max(self.apart().pending())
    }

    /// The journal, for scrubbing and figures.
    pub fn journal(&self) -> &Journal {
        &self.appender.journal
    }

    /// A replica leaves this disk for good: its id never comes back, its files go. What fails can be asked
    /// for again.
    pub async fn forget(&self, replica: u64) -> Result<(), Error> {
        let leaving = Leaving::begin(self, replica)?;
        if !self.is_dead(replica) {
            // Durability: it is dead on the disk before anybody counts on that, and its files go after it.
            self.appender
                .append_patiently(vec![Record::Dead { replica: ReplicaId(replica) }])
                .await?;
            let mut state = self.lock();
            state.recovered.remove(&replica);
            state.suspects.remove(&replica);
            state.logs.remove(&replica);
            state.copied.remove(&replica);
            state.dead.insert(replica);
        }
        let dirs = self.dirs_of(replica);
        let removed = self.blocking().run(move || remove_dirs(&dirs)).await.and_then(|done| done);
        removed.map_err(Error::io("remove a replica's files"))?;
        self.ledger().forget(replica);
        self.lock().known.remove(&replica);
        drop(leaving);
        Ok(())
    }

    /// Whether a replica left this disk, or is leaving it.
    pub(crate) fn is_dead(&self, replica: u64) -> bool {
        self.lock().dead.contains(&replica)
    }

    fn dirs_of(&self, replica: u64) -> [PathBuf; 2] {
        [self.checkpoint_dir(replica), self.index_dir(replica)]
    }

    /// Until [`Disk::release`], replicas here do not vote, except those of one group: whoever opened the
    /// disk has yet to find out whether it is the one that was closed.
    pub fn hold(&self, except: ShardId) {
        self.lock().held_but = Some(except);
    }

    /// The disk is what it should be.
    pub fn release(&self) {
        self.lock().held_but = None;
    }

    /// Whether replicas of this group may not vote yet.
    pub(crate) fn is_held(&self, shard: ShardId) -> bool {
        self.lock().held_but.is_some_and(|except| except != shard)
    }

    /// Appends and waits for the sync.
    pub(crate) async fn write(
        &self,
        records: Vec<Record>,
    ) -> Result<Vec<journal::Written>, journal::Error> {
        self.appender.append_synced(records).await
    }

    pub(crate) fn options(&self) -> &DiskOptions {
        &self.options
    }

    pub(crate) fn blocking(&self) -> Blocking {
        Blocking { is_threaded: self.options.journal.threaded }
    }

    /// How it is asked while somebody waits.
    pub(crate) fn apart(&self) -> &Apart {
        &self.appender.apart
    }

    /// The segment with bodies that lie elsewhere than before this start.
    pub(crate) fn resynced(&self) -> Option<SegmentId> {
        self.resynced
    }

    /// What time it is here.
    pub(crate) fn now(&self) -> LogTime {
        match &self.options.clock {
            Some(clock) => clock(),
            None => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                LogTime(u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
            }
        }
    }

    pub(crate) fn checkpoint_dir(&self, replica: u64) -> PathBuf {
        self.dir.join("checkpoints").join(replica.to_string())
    }

    pub(crate) fn index_dir(&self, replica: u64) -> PathBuf {
        self.dir.join("index").join(replica.to_string())
    }

    /// Takes a replica's place, making it if the replica is new here.
    pub(crate) async fn claim(
        self: &Arc<Self>,
        replica: u64,
        shard: ShardId,
    ) -> Result<Claim, Error> {
        let (log, is_new, is_suspect) = {
            let mut state = self.lock();
            if state.dead.contains(&replica) {
                return Err(Error::Dead { replica });
            }
            if state.running.contains_key(&replica) || state.installing.contains(&replica) {
                return Err(Error::Running { replica });
            }
            if let Some(other) = state.known.get(&replica).filter(|known| **known != shard) {
                // Why: an id given out twice would get another shard's votes and entries.
                let reason = format!("on this disk it is of shard {other}, not of shard {shard}");
                return Err(Error::Lost { replica, reason });
            }
            let recovered = state.recovered.remove(&replica);
            let is_suspect = state.suspects.contains(&replica);
            let log = match state.logs.get(&replica) {
                Some(log) => log.clone(),
                None => {
                    let recovered = recovered_log(recovered.unwrap_or_default());
                    Log::new(self.appender.clone(), ReplicaId(replica), recovered)
                }
            };
            state.running.insert(replica, Weak::new());
            state.logs.insert(replica, log.clone());
            (log, !state.known.contains_key(&replica), is_suspect)
        };
        let claim = Claim { disk: self.clone(), replica, log, is_suspect };
        if is_new {
            let meta = shard.0.to_be_bytes().to_vec().into();
            let born = Record::Born { replica: ReplicaId(replica), meta };
            // Durability: a replica is born before it can vote or take an entry.
            self.appender.append_synced(vec![born]).await?;
            self.lock().known.insert(replica, shard);
        } else {
            claim.log.reopen().await.map_err(Error::io("reopen the log"))?;
        }
        Ok(claim)
    }

    /// A snapshot is about to be taken over, for a core that may end meanwhile.
    pub(crate) fn begin_install(self: &Arc<Self>, replica: u64) -> Installation {
        {
            let mut state = self.lock();
            state.installing.push(replica);
            state.n_rows_changed += 1;
        }
        Installation { disk: self.clone(), replica }
    }

    /// Whether one is taken over.
    pub(crate) fn is_installing(&self, replica: u64) -> bool {
        self.lock().installing.contains(&replica)
    }

    /// Damage took records of a replica: it counts as suspect whenever it is started.
    pub(crate) fn suspect(&self, replica: u64) {
        self.lock().suspects.insert(replica);
    }

    /// An operator takes a replica as it is.
    pub(crate) async fn trust(self: &Arc<Self>, replica: u64) {
        self.lock().suspects.remove(&replica);
        let this = self.clone();
        let noted = self.blocking().run(move || this.journal().trust(ReplicaId(replica))).await;
        // Why no failure: it goes on all the same. After a restart the operator may be needed once more.
        if let Err(error) = noted.and_then(|noted| noted.map_err(std::io::Error::other)) {
            tracing::warn!(replica, %error, "not noted yet that it is trusted");
        }
    }

    /// What scrub repairs with.
    pub(crate) fn attach_core(&self, core: &Arc<Core>) {
        self.lock().cores.insert(core.claim.replica, Arc::downgrade(core));
    }

    /// The replicas that run here now. Why weak: who stopped cannot be begun anew as long as it is held.
    pub(crate) fn cores(&self) -> Vec<Weak<Core>> {
        self.lock().cores.values().cloned().collect()
    }

    /// The rate at which bodies may come from peers.
    pub(crate) fn filling(&self) -> &Throttle {
        &self.filling
    }

    /// What scrub knows.
    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends scrub, which lets go of the disk soon after.
    pub fn stop_scrub(&self) {
        self.closing.send_replace(true);
    }

    pub(crate) fn is_closing(&self) -> bool {
        *self.closing.borrow()
    }

    /// Who heals looks for what was found.
    pub(crate) fn wake_healing(&self) {
        self.damaged.notify_one();
    }

    /// Waits until damage was found, or for some time. False if scrub is to end.
    pub(crate) async fn wait_for_damage(&self, pause: Duration) -> bool {
        let mut closing = self.closing.subscribe();
        tokio::select! {
            () = tokio::time::sleep(pause) => true,
            () = self.damaged.notified() => true,
            _ = closing.wait_for(|closing| *closing) => false,
        }
    }

    /// Nobody else heals while what is given lives.
    pub(crate) async fn healing(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.healing.lock().await
    }

    /// Whoever waits here goes on now.
    pub(crate) fn wake_scrub(&self) {
        self.hurried.notify_waiters();
    }

    /// Waits for some time, or until scrub is to end or to hurry.
    pub(crate) async fn wait(&self, pause: Duration) {
        let mut closing = self.closing.subscribe();
        // Order: before it is asked, so that who hurries scrub in between wakes it.
        let hurried = self.hurried.notified();
        if self.ledger().is_hurried() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = hurried => {}
            _ = closing.wait_for(|closing| *closing) => {}
        }
    }

    /// Where small files about the disk are.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn remove_dirs(dirs: &[PathBuf]) -> std::io::Result<()> {
    for dir in dirs.iter().filter(|dir| dir.exists()) {
        std::fs::remove_dir_all(dir)?;
    }
    Ok(())
}

fn not_opened(error: std::io::Error) -> Error {
    if error.kind() == std::io::ErrorKind::WouldBlock {
        return Error::io("open disk")("another process has it open");
    }
    journal::Error::io("open disk")(error).into()
}

fn recovered_log(recovered: RecoveredReplica) -> RecoveredLog {
    let purged = recovered.purge_floor.and_then(|(_, meta)| Reader(meta).log_id().ok());
    let lost_upto = recovered.lost_upto;
    let floor = purged.map(|purged| purged.index).max(lost_upto);
    let mut entries: Vec<(LogId, journal::Pointer)> = Vec::new();
    let behind = |(index, _): &(u64, _)| lost_upto.is_none_or(|lost| *index > lost);
    for (index, entry) in recovered.entries.into_iter().filter(behind) {
        let next = match (entries.last(), floor) {
            (Some((last, _)), _) => last.index + 1,
            (None, Some(floor)) => floor + 1,
            (None, None) => index,
        };
        // Why: what follows a gap was never acknowledged, or is damage and comes from peers again.
        let (true, Ok(leader_id)) = (index == next, Reader(entry.head).leader()) else { break };
        entries.push((LogId { leader_id, index }, entry.pointer));
    }
    RecoveredLog {
        vote: recovered.vote.and_then(|vote| Reader(vote).vote().ok()),
        purged,
        lost_upto,
        committed: recovered.committed.and_then(|meta| Reader(meta).log_id().ok()),
        entries,
    }
}

const _: () = assert!(codec::ENTRY_HEAD_BYTES <= journal::ENTRY_HEAD_BYTES);

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use futures_util::FutureExt as _;
    use journal::sim::{Operation, SimStorage};

    use super::*;

    #[tokio::test]
    async fn a_replica_whose_birth_did_not_get_to_the_disk_is_not_known() {
        let dir = tempfile::tempdir().unwrap();
        let storage = SimStorage::new(1 << 20);
        Disk::format_storage(&storage).unwrap();
        let journal = journal::Options {
            segment_bytes: 64 << 10,
            hard_free_bytes: 0,
            soft_free_bytes: 0,
            ..journal::Options::default()
        };
        let storage_of_disk: Arc<dyn Storage> = Arc::new(storage.clone());
        let options =
            DiskOptions { journal, storage: Some(storage_of_disk), ..DiskOptions::default() };
        let disk = Disk::open(dir.path(), options).unwrap();
        let born = disk.claim(1, ShardId(1)).await.unwrap();
        storage.fail(Operation::Sync, 1, ErrorKind::Other);
        assert!(disk.claim(2, ShardId(1)).await.is_err());
        assert_eq!(disk.replicas(), BTreeMap::from([(1, ShardId(1))]));
        drop(born);
    }

    /// A disk without a thread, whose journal has no reserve and a queue of 4 KiB, with replica 1.
    async fn small(dir: &Path, storage: &SimStorage) -> Arc<Disk> {
        Disk::format_storage(storage).unwrap();
        let disk = reopened(dir, storage);
        let mut birth = Box::pin(disk.claim(1, ShardId(1)));
        assert!(birth.as_mut().now_or_never().is_none());
        disk.journal().pump();
        drop(birth.await.unwrap());
        disk
    }

    fn reopened(dir: &Path, storage: &SimStorage) -> Arc<Disk> {
        let journal = journal::Options {
            segment_bytes: 64 << 10,
            queue_bytes: 4 << 10,
            reserve_segments: 0,
            hard_free_bytes: 0,
            soft_free_bytes: 0,
            threaded: false,
            ..journal::Options::default()
        };
        let storage: Arc<dyn Storage> = Arc::new(storage.clone());
        let options = DiskOptions { journal, storage: Some(storage), ..DiskOptions::default() };
        Disk::open(dir, options).unwrap()
    }

    /// Writes votes, smaller and smaller ones, until there is no room even for the least record.
    fn fill(write: impl Fn(Vec<Record>) -> bool) {
        for len in [1000, 100, 0] {
            let vote = || Record::Vote { replica: ReplicaId(1), vote: vec![7; len].into() };
            while write(vec![vote()]) {}
        }
    }

    #[tokio::test]
    async fn a_replica_that_could_not_be_forgotten_is_forgotten_later() {
        let (dir, storage) = (tempfile::tempdir().unwrap(), SimStorage::new(1 << 20));
        let disk = small(dir.path(), &storage).await;
        storage.set_total_bytes(0);
        fill(|records| disk.journal().append_wait(records).is_ok());
        let forget = async || {
            let mut forgetting = Box::pin(disk.forget(1));
            assert!(forgetting.as_mut().now_or_never().is_none());
            disk.journal().pump();
            forgetting.await
        };
        let refused = forget().await;
        assert!(matches!(refused, Err(Error::Disk(journal::Error::Full))), "{refused:?}");
        assert_eq!(disk.replicas().len(), 1, "it is asked for again");
        storage.set_total_bytes(1 << 20);
        forget().await.unwrap();
        assert!(disk.replicas().is_empty());
        drop(disk);
        assert!(reopened(dir.path(), &storage).replicas().is_empty());
    }

    /// Whoever waits until all damage is healed would wait for ever.
    #[tokio::test]
    async fn what_was_damaged_of_a_replica_that_left_is_not_left_to_heal() {
        let (dir, storage) = (tempfile::tempdir().unwrap(), SimStorage::new(1 << 20));
        let disk = small(dir.path(), &storage).await;
        disk.found_bad_index(1);
        disk.found_bad_index(2);
        disk.found_bad_checkpoint(1);
        disk.ledger().unrepairable.insert((1, mailbox::Digest([7; 32])));
        let mut forgetting = Box::pin(disk.forget(1));
        assert!(forgetting.as_mut().now_or_never().is_none());
        disk.journal().pump();
        forgetting.await.unwrap();
        let figures = || {
            let told = disk.scrub_status();
            (told.n_damaged, told.n_repaired, told.n_unrepairable)
        };
        assert_eq!(figures(), (3, 2, 0));
        // Who verified it finds that only now.
        disk.found_bad_index(1);
        disk.found_bad_checkpoint(1);
        assert_eq!(figures(), (3, 2, 0));
    }

    #[tokio::test]
    async fn an_id_of_one_shard_is_not_taken_for_one_of_another() {
        let (dir, storage) = (tempfile::tempdir().unwrap(), SimStorage::new(1 << 20));
        let disk = small(dir.path(), &storage).await;
        assert!(matches!(disk.claim(1, ShardId(2)).await, Err(Error::Lost { replica: 1, .. })));
        drop(disk.claim(1, ShardId(1)).await.unwrap());
    }

    #[tokio::test]
    async fn who_is_forgotten_waits_for_room_in_the_queue() {
        let (dir, storage) = (tempfile::tempdir().unwrap(), SimStorage::new(1 << 20));
        let disk = small(dir.path(), &storage).await;
        fill(|records| disk.journal().append(records, Box::new(drop)).is_ok());
        let mut forgetting = Box::pin(disk.forget(1));
        assert!(forgetting.as_mut().now_or_never().is_none());
        assert!(matches!(disk.claim(1, ShardId(1)).await, Err(Error::Running { .. })));
        disk.journal().pump();
        assert!(forgetting.as_mut().now_or_never().is_none(), "there is room now");
        disk.journal().pump();
        forgetting.await.unwrap();
        assert!(matches!(disk.claim(1, ShardId(1)).await, Err(Error::Dead { .. })));
    }

    #[tokio::test]
    async fn files_of_a_replica_that_died_before_they_went_go_at_the_next_start() {
        let (dir, storage) = (tempfile::tempdir().unwrap(), SimStorage::new(1 << 20));
        let disk = small(dir.path(), &storage).await;
        let of = |replica| [disk.index_dir(replica), disk.checkpoint_dir(replica)];
        let files = |replica| of(replica).map(|dir| dir.join("file"));
        for file in files(1).iter().chain(&files(2)) {
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, "rows").unwrap();
        }
        let (gone, others) = (of(1), files(2));
        disk.journal().append_wait(vec![Record::Dead { replica: ReplicaId(1) }]).unwrap();
        drop(disk);
        reopened(dir.path(), &storage);
        assert!(gone.iter().all(|dir| !dir.exists()) && others.iter().all(|file| file.exists()));
    }

    #[tokio::test(start_paused = true)]
    async fn scrub_rests_for_some_time_and_not_at_all_once_it_is_hurried() {
        let (dir, storage) = (tempfile::tempdir().unwrap(), SimStorage::new(1 << 20));
        let disk = small(dir.path(), &storage).await;
        let began = tokio::time::Instant::now();
        disk.rest(Duration::from_secs(60)).await;
        assert_eq!(began.elapsed(), Duration::from_secs(1));
        // Nobody waits yet whom that would wake.
        disk.hurry_scrub();
        disk.wait(Duration::from_secs(60)).await;
        assert_eq!(began.elapsed(), Duration::from_secs(1));
    }
}
