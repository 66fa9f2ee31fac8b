//! The replicas that run here: those found on the disks, and those that the placement puts there.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use api::placement::{DiskId, META_SHARD, Placement, Replica as Placed, ReplicaRole};
use futures_util::{StreamExt, stream};
use mailbox::{FirstTold, ShardId};
use replica::{Disk, Machine, MailMachine, Member, Replica, ReplicaConfig, Role, Timing};
use tokio::task::JoinHandle;

use crate::leases::Leases;
use crate::machine::MetaMachine;
use crate::recover;
use crate::shared::{Shared, lock};

/// Limit: how many more replicas than cores are started at once when the node starts. After a kill each
/// reads all its rows, or makes an index of some hundred MiB, which keeps one core busy for seconds;
/// while one waits for the disk, another one computes.
const STARTS_WAITING: usize = 1;
/// Pause between the starts of two groups, so that their elections do not fall together.
const STAGGER: Duration = Duration::from_millis(5);
/// How often placement and replicas are compared when neither changed.
const COMPARE_EVERY: Duration = Duration::from_millis(500);

/// How long one replica may take to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// A disk that has not answered for so long is not waited for.
const HANGS_AFTER: Duration = Duration::from_secs(2);
/// Whether it answers is looked at this often while it is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long a disk may take to note that a replica is gone; it is asked again later.
const FORGET_PATIENCE: Duration = Duration::from_secs(10);
/// First pause before a replica that failed is started again.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Longest such pause.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// One replica that runs.
pub(crate) struct Running {
    pub replica: Replica,
    pub disk_id: DiskId,
    pub leases: Mutex<Leases>,
    /// Who was told of arrivals first, while this one leads.
    pub first_told: Mutex<FirstTold>,
    /// One change of its members at a time.
    pub changing: tokio::sync::Mutex<()>,
    /// It was forced to stand alone, and every mailbox has a new UIDVALIDITY since.
    pub is_recovered: AtomicBool,
}

/// All of them, by shard and replica id.
#[derive(Default)]
pub(crate) struct Replicas {
    running: RwLock<BTreeMap<(ShardId, u64), Arc<Running>>>,
    /// Those found on the disks that were not started yet, with their disks and how large they are. One whose
    /// disk hangs stays here until that answers.
    to_start: Mutex<BTreeMap<(ShardId, u64), (DiskId, u64)>>,
    /// Those that somebody starts just now.
    begun: Mutex<BTreeMap<(ShardId, u64), DiskId>>,
    /// Those that did not start, with the time and pause of the next attempt.
    failed: Mutex<BTreeMap<(ShardId, u64), (Instant, Duration)>>,
    /// Those that live here and that the cluster does not know of.
    unknown: Mutex<BTreeSet<(ShardId, u64)>>,
    /// Held by whoever starts replicas, so that none starts twice.
    starting: tokio::sync::Mutex<()>,
}

impl Replicas {
    /// A replica of the shard: the one that leads, if several are here.
    pub fn of_shard(&self, shard: ShardId) -> Option<Arc<Running>> {
        let running = self.read();
        let mut here = running.range((shard, 0)..=(shard, u64::MAX)).map(|(_, running)| running);
        let first = here.next()?;
        let leads = |running: &&Arc<Running>| running.replica.status().role == Role::Leader;
        Some(Arc::clone(here.find(leads).unwrap_or(first)))
    }

    /// Exactly this replica.
    pub fn exactly(&self, shard: ShardId, replica_id: u64) -> Option<Arc<Running>> {
        self.read().get(&(shard, replica_id)).cloned()
    }

    pub fn all(&self) -> Vec<Arc<Running>> {
        self.read().values().cloned().collect()
    }

    /// Those that live here and were not started yet, with their disks.
    pub fn to_start(&self) -> Vec<(ShardId, u64, DiskId)> {
        let to_start = lock(&self.to_start);
        to_start.iter().map(|((shard, id), (disk, _))| (*shard, *id, *disk)).collect()
    }

    /// Those that live here and do not run yet, but are to, with their disks.
    pub fn starting(&self) -> Vec<(ShardId, u64, DiskId)> {
        let mut starting = self.to_start();
        let begun = lock(&self.begun);
        starting.extend(begun.iter().map(|((shard, id), disk)| (*shard, *id, *disk)));
        starting
    }

    pub fn insert(&self, running: Arc<Running>) {
        let key = (running.replica.shard(), running.replica.replica_id());
        self.write().insert(key, running);
    }

    pub fn remove(&self, shard: ShardId, replica_id: u64) -> Option<Arc<Running>> {
        self.write().remove(&(shard, replica_id))
    }

    /// Whether it lives here and was not started yet.
    fn is_to_start(&self, key: (ShardId, u64)) -> bool {
        lock(&self.to_start).contains_key(&key)
    }

    /// Whether somebody starts it just now.
    fn is_begun(&self, key: (ShardId, u64)) -> bool {
        lock(&self.begun).contains_key(&key)
    }

    /// Whether a replica that failed before may be tried again.
    fn may_start(&self, key: (ShardId, u64)) -> bool {
        lock(&self.failed).get(&key).is_none_or(|(at, _)| *at <= Instant::now())
    }

    /// Whether a replica failed to start before.
    pub fn did_not_start(&self, key: (ShardId, u64)) -> bool {
        lock(&self.failed).contains_key(&key)
    }

    /// The next attempt is later each time.
    pub fn put_off(&self, key: (ShardId, u64)) {
        let mut failed = lock(&self.failed);
        let (at, pause) = failed.entry(key).or_insert((Instant::now(), RETRY_FIRST));
        *at = Instant::now() + *pause;
        *pause = (*pause * 2).min(RETRY_MAX);
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<(ShardId, u64), Arc<Running>>> {
        self.running.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<(ShardId, u64), Arc<Running>>> {
        self.running.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A replica is being started as long as this lives.
struct Begun<'r> {
    replicas: &'r Replicas,
    key: (ShardId, u64),
}

impl<'r> Begun<'r> {
    fn new(replicas: &'r Replicas, key: (ShardId, u64), disk_id: DiskId) -> Self {
        lock(&replicas.begun).insert(key, disk_id);
        Self { replicas, key }
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        lock(&self.replicas.begun).remove(&self.key);
    }
}

/// A replica that lives here, and how large it is.
pub(crate) struct Found<D> {
    shard: ShardId,
    replica_id: u64,
    bytes: u64,
    disk: D,
}

/// The replicas that live on the disks of this node. Until each was started, or failed to, it is reported as
/// one that starts.
pub(crate) fn residents(shared: &Shared) -> Vec<Found<Arc<Disk>>> {
    let mut found = Vec::new();
    for dir in &shared.disks.dirs {
        if let Some(disk) = &dir.disk {
            found.extend(disk.replicas().into_iter().map(|(replica_id, shard)| {
                let bytes = disk.checkpoint_bytes(replica_id);
                Found { shard, replica_id, bytes, disk: disk.clone() }
            }));
        }
    }
    let all = found
        .iter()
        .map(|one| ((one.shard, one.replica_id), (DiskId(one.disk.disk_id()), one.bytes)));
    lock(&shared.replicas.to_start).extend(all);
    found
}

/// Starts the replicas of the meta group, since everybody else asks it where things are; gives the others.
pub(crate) async fn start_meta(
    shared: &Arc<Shared>,
    residents: Vec<Found<Arc<Disk>>>,
) -> Vec<Found<Arc<Disk>>> {
    let (meta, others) = residents.into_iter().partition(|found| found.shard == META_SHARD);
    start_all(shared, meta).await;
    others
}

/// Starts the other replicas that live here; needs nobody else.
pub(crate) async fn start_others(shared: &Arc<Shared>, mut others: Vec<Found<Arc<Disk>>>) {
    sort(&mut others);
    start_all(shared, others).await;
}

/// The largest first, so that none of them is left alone with one core at the end.
fn sort<D>(found: &mut [Found<D>]) {
    found.sort_by_key(|found| (Reverse(found.bytes), found.shard, found.replica_id));
}

async fn start_all(shared: &Arc<Shared>, found: Vec<Found<Arc<Disk>>>) {
    let _nobody_else = shared.replicas.starting.lock().await;
    let n_cores = std::thread::available_parallelism().map_or(1, usize::from);
    at_once(found, n_cores + STARTS_WAITING, |found| async move {
        let key = (found.shard, found.replica_id);
        // Why: between the meta group and the others somebody may have asked for one.
        if shared.stop.is_cancelled() || shared.replicas.exactly(key.0, key.1).is_some() {
            lock(&shared.replicas.to_start).remove(&key);
        } else {
            start_unless_it_hangs(shared, key, &found.disk).await;
        }
        tokio::time::sleep(STAGGER).await;
    })
    .await;
}

/// Starts those that were passed over because their disks hung, where these answer by now.
async fn start_passed_over(shared: &Arc<Shared>) {
    let to_start = lock(&shared.replicas.to_start).clone();
    let found = to_start.into_iter().filter_map(|((shard, replica_id), (disk_id, bytes))| {
        let disk = shared.disks.disk(disk_id).filter(|disk| !is_waited_for(disk))?;
        Some(Found { shard, replica_id, bytes, disk: disk.clone() })
    });
    let mut found: Vec<_> = found.collect();
    if !found.is_empty() {
        sort(&mut found);
        start_all(shared, found).await;
    }
}

async fn at_once<D, F: Future<Output = ()>>(
    found: Vec<Found<D>>,
    n_at_once: usize,
    start: impl Fn(Found<D>) -> F,
) {
    stream::iter(found).for_each_concurrent(n_at_once, &start).await;
}

/// Stops every replica, so that the next start is a quick one.
pub(crate) async fn stop_all(shared: &Shared) {
    let all = shared.replicas.all();
    futures_util::future::join_all(all.iter().map(|running| stop_one(shared, running))).await;
}

/// Stops one replica; its state stays on its disk.
pub(crate) async fn stop_one(shared: &Shared, running: &Running) {
    let (shard, replica_id) = (running.replica.shard(), running.replica.replica_id());
    shared.replicas.remove(shard, replica_id);
    match tokio::time::timeout(STOP_PATIENCE, running.replica.shutdown()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%shard, replica_id, %error, "replica not stopped cleanly"),
        Err(_) => tracing::warn!(%shard, replica_id, "replica does not stop"),
    }
}

/// Starts one replica; one that does not start is reported and tried again by [`follow_placement`].
pub(crate) async fn start_one(
    shared: &Arc<Shared>,
    shard: ShardId,
    replica_id: u64,
    disk: &Arc<Disk>,
) -> Option<Arc<Running>> {
    let _one = shared.replicas.starting.lock().await;
    if let Some(running) = shared.replicas.exactly(shard, replica_id) {
        return Some(running);
    }
    start_unless_it_hangs(shared, (shard, replica_id), disk).await
}

/// The same, for who made sure that nobody else begins to start one. Those on other disks do not wait for a
/// disk that hangs: its replicas are started when it answers.
async fn start_unless_it_hangs(
    shared: &Arc<Shared>,
    key: (ShardId, u64),
    disk: &Arc<Disk>,
) -> Option<Arc<Running>> {
    if is_waited_for(disk) || shared.replicas.is_begun(key) {
        return None;
    }
    let starting = start(Arc::clone(shared), key, Arc::clone(disk));
    let started = unless_it_hangs(starting, || hangs(disk)).await.flatten();
    // Order: it runs, or is begun and goes on by itself, or did not start.
    lock(&shared.replicas.to_start).remove(&key);
    started
}

/// Whether replicas that live here are still to be started. Those whose disks hang are not counted: if they
/// are wanted here, the placement has them.
pub(crate) fn are_to_start(shared: &Shared) -> bool {
    shared.replicas.to_start().iter().any(|(_, _, disk_id)| {
        let disk = shared.disks.disk(*disk_id);
        disk.is_some_and(|disk| !is_waited_for(disk))
    })
}

/// It hangs, and may answer again.
fn is_waited_for(disk: &Disk) -> bool {
    hangs(disk) && !disk.is_poisoned()
}

fn hangs(disk: &Disk) -> bool {
    disk.unanswered() > HANGS_AFTER
}

/// Waits for work, and gives it up if nobody waits for this any more. `None`: the disk it needs hangs, and it
/// goes on by itself.
async fn unless_it_hangs<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
    hangs: impl Fn() -> bool,
) -> Option<T> {
    let mut working = Working(Some(tokio::spawn(work)));
    loop {
        let task = working.0.as_mut()?;
        tokio::select! {
            done = task => return done.ok(),
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        if hangs() {
            working.0 = None;
        }
    }
}

/// It ends with this, unless it is taken out.
struct Working<T>(Option<JoinHandle<T>>);

impl<T> Drop for Working<T> {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

async fn start(
    shared: Arc<Shared>,
    (shard, replica_id): (ShardId, u64),
    disk: Arc<Disk>,
) -> Option<Arc<Running>> {
    let (shared, disk) = (&shared, &disk);
    if disk.is_poisoned() || !shared.replicas.may_start((shard, replica_id)) {
        return None;
    }
    let machine: Arc<dyn Machine> =
        if shard == META_SHARD { Arc::new(MetaMachine) } else { Arc::new(MailMachine) };
    let begun = Begun::new(&shared.replicas, (shard, replica_id), DiskId(disk.disk_id()));
    let started = Replica::start(ReplicaConfig {
        shard,
        replica_id,
        node: shared.config.name.clone(),
        disk: Arc::clone(disk),
        machine,
        transport: Arc::clone(&shared.transport),
        timing: timing(shared),
    });
    match started.await {
        Ok(replica) => {
            tracing::info!(%shard, replica_id, "replica runs");
            let disk_id = DiskId(disk.disk_id());
            let running = Arc::new(Running {
                replica,
                disk_id,
                leases: Default::default(),
                first_told: Default::default(),
                changing: Default::default(),
                is_recovered: AtomicBool::new(false),
            });
            shared.replicas.insert(Arc::clone(&running));
            // Order: it is reported as one of both all the time.
            drop(begun);
            Some(running)
        }
        Err(error) => {
            tracing::error!(%shard, replica_id, %error, "replica does not start");
            shared.replicas.put_off((shard, replica_id));
            None
        }
    }
}

fn timing(shared: &Shared) -> Timing {
    let (config, usual) = (&shared.config, Timing::default());
    let election_max = Duration::from_millis(config.election_max_ms);
    Timing {
        heartbeat: Duration::from_millis(config.heartbeat_ms),
        election_min: Duration::from_millis(config.election_min_ms),
        election_max,
        peer: usual.peer.max(election_max * 4),
        ..usual
    }
}

/// Keeps the replicas as the placement has them, until the node stops.
pub(crate) async fn follow_placement(shared: Arc<Shared>) {
    let mut placements = shared.known.watch();
    loop {
        shared.stop.run_until_cancelled(start_passed_over(&shared)).await;
        // Invariant: whoever is admitted knows the placement as it was when the cluster took this node,
        // so a replica that a placement read after this does not have was removed, for good.
        let is_admitted = shared.is_admitted();
        let placement = Arc::clone(&placements.borrow_and_update());
        if is_admitted {
            start_placed(&shared, &placement).await;
        }
        if is_admitted && placement.version > 0 {
            destroy_removed(&shared, &placement).await;
            recover::follow(&shared, &placement).await;
        }
        tokio::select! {
            () = shared.stop.cancelled() => return,
            changed = placements.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(COMPARE_EVERY) => {}
        }
    }
}

/// Starts what is placed here and does not run, and begins groups that were never begun.
async fn start_placed(shared: &Arc<Shared>, placement: &Placement) {
    for shard in &placement.shards {
        for placed in shard.replicas.iter().filter(|placed| placed.node == shared.config.name) {
            let Some(disk) = shared.disks.disk(placed.disk_id) else { continue };
            let running = match shared.replicas.exactly(shard.shard, placed.replica_id) {
                Some(running) => Some(running),
                // Why not here: one would be started after the other.
                None if shared.replicas.is_to_start((shard.shard, placed.replica_id)) => None,
                None => start_one(shared, shard.shard, placed.replica_id, disk).await,
            };
            if let Some(running) = running
                && shard.leader.is_none()
                && shard.shard != META_SHARD
                && is_founder(placed, &shard.replicas)
            {
                begin_group(&running, &shard.replicas).await;
            }
        }
    }
}

/// Destroys what is on the disks here and not placed there any more: its place was taken by another
/// replica, after the group's own log said so. Its id never comes back.
async fn destroy_removed(shared: &Shared, placement: &Placement) {
    for dir in &shared.disks.dirs {
        let is_well = |disk: &&Arc<Disk>| !disk.is_poisoned() && !hangs(disk);
        let Some(disk) = dir.disk.as_ref().filter(is_well) else { continue };
        for (replica_id, shard) in disk.replicas() {
            match fate(placement, (shard, replica_id), dir.disk_id) {
                Fate::Stays => continue,
                Fate::Unknown => {
                    // Once, since it is looked at all the time.
                    if lock(&shared.replicas.unknown).insert((shard, replica_id)) {
                        tracing::warn!(%shard, replica_id, "replica kept: the cluster does not know it");
                    }
                    continue;
                }
                Fate::Removed => {}
            }
            if let Some(running) = shared.replicas.exactly(shard, replica_id) {
                stop_one(shared, &running).await;
            }
            match tokio::time::timeout(FORGET_PATIENCE, disk.forget(replica_id)).await {
                Ok(Ok(())) => {
                    lock(&shared.replicas.to_start).remove(&(shard, replica_id));
                    tracing::info!(%shard, replica_id, "replica removed, as it is replaced");
                }
                Ok(Err(error)) => {
                    tracing::warn!(%shard, replica_id, %error, "replica not removed yet");
                }
                Err(_) => tracing::warn!(%shard, replica_id, "replica not removed yet: no answer"),
            }
        }
    }
}

/// What becomes of a replica that lives on a disk.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// It is placed there.
    Stays,
    /// Nobody knows: it may have been placed by a majority of the meta group that was lost, and be one of the
    /// last copies there are.
    Unknown,
    /// It was placed there, and is not any more.
    Removed,
}

fn fate(placement: &Placement, (shard, replica_id): (ShardId, u64), disk_id: DiskId) -> Fate {
    // Why unknown: no shard is ever taken out of a placement.
    let Some(shard) = placement.shard(shard) else { return Fate::Unknown };
    let is_this = |one: &Placed| one.replica_id == replica_id && one.disk_id == disk_id;
    match shard.replicas.iter().any(is_this) {
        true => Fate::Stays,
        false if placement.may_be_lost(replica_id) => Fate::Unknown,
        false => Fate::Removed,
    }
}

/// One replica begins its group: the first voter, as long as the cluster knows of no leader.
fn is_founder(placed: &Placed, replicas: &[Placed]) -> bool {
    let mut voters = replicas.iter().filter(|replica| replica.role == ReplicaRole::Voter);
    voters.next().is_some_and(|first| first.replica_id == placed.replica_id)
}

/// Gives a group its members, if this replica has none yet.
pub(crate) async fn begin_group(running: &Running, replicas: &[Placed]) {
    let status = running.replica.status();
    if status.last_log_index > 0 || !status.voters.is_empty() || status.term > 0 {
        return;
    }
    let member = |placed: &Placed| Member { node: placed.node.clone(), disk_id: placed.disk_id.0 };
    let members = replicas.iter().map(|placed| (placed.replica_id, member(placed))).collect();
    if let Err(error) = running.replica.initialize(members).await {
        tracing::debug!(shard = %running.replica.shard(), %error, "group not begun again");
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_disk_that_hangs_goes_on_and_so_does_what_was_begun() {
        let (answer, answered) = oneshot::channel::<u8>();
        let (tell, told) = oneshot::channel();
        let work = async move { tell.send(answered.await.unwrap()).unwrap() };
        assert_eq!(unless_it_hangs(work, || true).await, None);
        answer.send(7).unwrap();
        assert_eq!(told.await, Ok(7));

        let slow = async { tokio::time::sleep(Duration::from_secs(600)).await };
        assert_eq!(unless_it_hangs(slow, || false).await, Some(()));
        let (kept, is_given_up) = oneshot::channel::<()>();
        let never = async move {
            let _kept = kept;
            std::future::pending::<()>().await;
        };
        let waiting = unless_it_hangs(never, || false);
        drop(tokio::time::timeout(Duration::from_secs(1), waiting).await);
        assert!(is_given_up.await.is_err(), "nobody waits for it");
    }

    #[tokio::test(start_paused = true)]
    async fn some_replicas_start_at_once_the_largest_first() {
        let found = |n| Found { shard: ShardId(n), replica_id: 1, bytes: u64::from(n), disk: () };
        let mut found = [3, 1, 5, 2, 4, 6, 7].map(found);
        sort(&mut found);
        let (under_way, most) = (Mutex::new(0), Mutex::new(0));
        let (begun, done) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
        let (under_way, most, begun, done) = (&under_way, &most, &begun, &done);
        at_once(found.into(), 3, |found| async move {
            *lock(under_way) += 1;
            let n_under_way = *lock(under_way);
            let n_most = n_under_way.max(*lock(most));
            *lock(most) = n_most;
            lock(begun).push(found.shard.0);
            tokio::time::sleep(Duration::from_secs(found.bytes + 1)).await;
            *lock(under_way) -= 1;
            lock(done).push(found.shard.0);
        })
        .await;
        assert_eq!(*lock(most), 3);
        assert_eq!(*lock(begun), [7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(lock(done).len(), 7);
    }

    #[test]
    fn what_a_lost_majority_may_have_placed_is_not_destroyed() {
        use api::placement::{LOST_IDS, Shard};

        let disk_id = DiskId([1; 16]);
        let replica = Placed {
            replica_id: 12,
            node: "n1".into(),
            disk_id,
            role: ReplicaRole::Voter,
            replaces: None,
        };
        let shard = Shard {
            shard: ShardId(5),
            replicas: vec![replica],
            leader: None,
            n_wanted: 3,
            forced: None,
            outcasts: Vec::new(),
        };
        let shards = vec![shard];
        let mut placement = Placement { version: 1, shards, ..Placement::default() };
        let of = |placement: &Placement, shard: u32, id: u64| {
            fate(placement, (ShardId(shard), id), disk_id)
        };
        assert_eq!(of(&placement, 5, 12), Fate::Stays);
        assert_eq!(fate(&placement, (ShardId(5), 12), DiskId([2; 16])), Fate::Removed);
        assert_eq!(of(&placement, 5, 40), Fate::Removed);
        assert_eq!(of(&placement, 9, 41), Fate::Unknown);
        placement.lost_ids = vec![40];
        assert_eq!(of(&placement, 5, 40), Fate::Unknown);
        assert_eq!(of(&placement, 5, 39), Fate::Removed, "it was known");
        assert_eq!(of(&placement, 5, 40 + LOST_IDS), Fate::Removed, "it was given out since");
    }
}
