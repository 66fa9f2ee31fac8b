//! What comes from peers whose connection breaks in the middle.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::peer::{BoxFuture, PeerTransport};
use mailbox::{ChunkRef, Digest, Rows, ShardId, Source, StoredChunk};

use super::*;
use crate::disk::{Disk, DiskOptions};
use crate::error::ProposeError;
use crate::local::Mark;
use crate::machine::{Machine, MachineApplied};
use crate::raft::Member;
use crate::replica::ReplicaConfig;
use crate::status::Role;
use crate::timing::Timing;
use crate::upkeep::Upkeep;

/// Keeps a row for every body.
struct Bodies;

impl Machine for Bodies {
    fn apply(&self, rows: &mut Rows<'_>, _: &[u8], inline: &[ChunkRef]) -> MachineApplied {
        for chunk in inline {
            rows.put(chunk.digest.0.to_vec(), vec![1]);
        }
        MachineApplied::default()
    }

    fn is_chunk_live(&self, rows: &dyn Source, digest: &Digest) -> bool {
        rows.row(&digest.0).is_some()
    }
}

/// Two replicas. The end of a snapshot is kept instead of sent, and bodies get lost.
#[derive(Default)]
struct Line {
    replicas: Mutex<BTreeMap<String, Replica>>,
    is_cut: AtomicBool,
    ends: Mutex<Vec<PeerRequest>>,
    /// What of whom gets lost.
    lost: Mutex<Vec<(u64, u8)>>,
    n_lost: AtomicU64,
    /// Entries that were refused.
    n_refused: AtomicU64,
    /// How often somebody asked for bodies.
    n_asked: AtomicU64,
    /// What is asked so slowly that it counts as given up in less time than this.
    slow: Mutex<Option<(u8, Duration)>>,
}

struct Wire(Arc<Line>);

impl PeerTransport for Wire {
    fn call(&self, request: PeerRequest) -> BoxFuture<'static, Result<PeerResponse, PeerError>> {
        let Self(line) = self;
        let lost = || Err(PeerError::Unreachable("lost".into()));
        let asks = request.kind == kind::CHUNKS;
        line.n_asked.fetch_add(u64::from(asks), Ordering::Relaxed);
        let is_lost = line.lost.lock().unwrap().contains(&(request.from_replica, request.kind));
        line.n_lost.fetch_add(u64::from(is_lost), Ordering::Relaxed);
        if is_lost || line.is_cut.load(Ordering::Relaxed) || asks {
            return Box::pin(async move { lost() });
        }
        let slow = line.slow.lock().unwrap().filter(|(kind, _)| *kind == request.kind);
        if slow.is_some_and(|(_, takes)| takes > request.deadline) {
            return Box::pin(async move { Err(PeerError::Deadline) });
        }
        if request.kind == kind::SNAPSHOT_END {
            line.ends.lock().unwrap().push(request);
            return Box::pin(async move { lost() });
        }
        let target = line.replicas.lock().unwrap().get(&request.node).cloned();
        let (line, is_append) = (line.clone(), request.kind == kind::APPEND);
        Box::pin(async move {
            let target = target.ok_or(PeerError::Unreachable("nobody".into()))?;
            let answer = tokio::spawn(async move { target.handle(request).await }).await.unwrap();
            let is_refused = is_append && matches!(answer, Err(PeerError::Refused(_)));
            line.n_refused.fetch_add(u64::from(is_refused), Ordering::Relaxed);
            answer
        })
    }
}

async fn start(line: &Arc<Line>, dir: &Path, id: u64) -> (Replica, Member) {
    let node = format!("n{id}");
    let home = dir.join(&node);
    Disk::format(&home).unwrap();
    let journal = journal::Options {
        segment_bytes: 1 << 20,
        reserve_segments: 0,
        soft_free_bytes: 0,
        hard_free_bytes: 0,
        ..journal::Options::default()
    };
    let upkeep = Upkeep { look_every: Duration::from_millis(10), ..Upkeep::default() };
    let disk =
        Disk::open(&home, DiskOptions { journal, upkeep, ..DiskOptions::default() }).unwrap();
    let member = Member { node: node.clone(), disk_id: disk.disk_id() };
    let config = ReplicaConfig {
        shard: ShardId(1),
        replica_id: id,
        node: node.clone(),
        disk,
        machine: Arc::new(Bodies),
        transport: Arc::new(Wire(line.clone())),
        timing: Timing::default(),
    };
    let replica = Replica::start(config).await.unwrap();
    line.replicas.lock().unwrap().insert(node, replica.clone());
    (replica, member)
}

async fn until(mut condition: impl FnMut() -> bool, what: &str) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(15);
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A leader and a learner that it does not reach any more.
async fn cut_off(line: &Arc<Line>, dir: &Path) -> (Replica, Replica) {
    let (leader, member) = start(line, dir, 1).await;
    leader.initialize(BTreeMap::from([(1, member)])).await.unwrap();
    until(|| leader.status().role == Role::Leader, "a leader").await;
    let (learner, member) = start(line, dir, 2).await;
    leader.add_learner(2, member).await.unwrap();
    until(|| learner.status().learners.contains_key(&2), "it knows its peer").await;
    line.is_cut.store(true, Ordering::Relaxed);
    (leader, learner)
}

/// A leader that has bodies, a learner that gets a snapshot of their rows, and the end of it.
async fn snapshot(line: &Arc<Line>, dir: &Path) -> (Replica, Replica, PeerRequest) {
    let (leader, learner) = cut_off(line, dir).await;
    for seed in 0..10 {
        let body = StoredChunk::raw(Bytes::from(vec![seed; 1_000]));
        leader.propose(b"body".to_vec(), vec![body]).await.unwrap();
    }
    leader.checkpoint(0).await.unwrap();
    let request = sent(line, &leader).await;
    (leader, learner, request)
}

/// The end of a snapshot, which is sent when the line is not cut any more and the log is.
async fn sent(line: &Line, leader: &Replica) -> PeerRequest {
    let end = leader.status().applied;
    until(|| leader.status().purged == end, "the log is cut").await;
    line.is_cut.store(false, Ordering::Relaxed);
    until(|| !line.ends.lock().unwrap().is_empty(), "a snapshot came").await;
    line.ends.lock().unwrap().remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_lacks_rows_is_written_anew_before_it_is_sent() {
    let (line, dir) = (Arc::<Line>::default(), tempfile::tempdir().unwrap());
    let (leader, learner) = cut_off(&line, dir.path()).await;
    let body = StoredChunk::raw(Bytes::from_static(b"some octets"));
    leader.propose(b"body".to_vec(), vec![body]).await.unwrap();
    let checkpoints = leader.core().unwrap().applying.checkpoints.clone();
    // Nobody knows any more that the row of the body changed.
    checkpoints.set_dirty_keys(Vec::new());
    leader.checkpoint(0).await.unwrap();
    checkpoints.current().unwrap().verify().unwrap_err();
    let request = sent(&line, &leader).await;
    checkpoints.current().unwrap().verify().unwrap();
    learner.handle(request).await.unwrap();
    until(|| learner.status().applied == leader.status().applied, "the rows came").await;
    assert_eq!(learner.status().digest, leader.status().digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_lacks_rows_is_found_by_scrub_and_written_anew() {
    let (line, dir) = (Arc::<Line>::default(), tempfile::tempdir().unwrap());
    let (leader, member) = start(&line, dir.path(), 1).await;
    leader.initialize(BTreeMap::from([(1, member)])).await.unwrap();
    until(|| leader.status().role == Role::Leader, "a leader").await;
    let body = StoredChunk::raw(Bytes::from_static(b"some octets"));
    leader.propose(b"body".to_vec(), vec![body]).await.unwrap();
    let core = leader.core().unwrap();
    let (checkpoints, disk) = (core.applying.checkpoints.clone(), core.claim.disk.clone());
    drop(core);
    // Nobody knows any more that the row of the body changed.
    checkpoints.set_dirty_keys(Vec::new());
    leader.checkpoint(0).await.unwrap();
    checkpoints.current().unwrap().verify().unwrap_err();
    disk.scrub_once().await;
    checkpoints.current().unwrap().verify().unwrap();
    let status = disk.scrub_status();
    assert_eq!((status.n_damaged, status.n_repaired), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_room_for_bodies_that_are_missing_asks_nobody_for_them() {
    let (line, dir) = (Arc::<Line>::default(), tempfile::tempdir().unwrap());
    let (leader, learner, request) = snapshot(&line, dir.path()).await;
    learner.handle(request).await.unwrap();
    until(|| learner.status().applied == leader.status().applied, "the rows came").await;
    let n_asked = || line.n_asked.load(Ordering::Relaxed);
    until(|| n_asked() > 0, "bodies are missing").await;

    let core = learner.core().unwrap();
    let rounds = async |n: u64| {
        let end = core.care.n_filled() + n;
        until(|| core.care.n_filled() >= end, "it looks again").await;
    };
    core.claim.disk.pretend_full(true);
    // One may have begun before.
    rounds(2).await;
    let n_before = n_asked();
    rounds(3).await;
    assert_eq!(n_asked(), n_before);
    core.claim.disk.pretend_full(false);
    until(|| n_asked() > n_before, "there is room again").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_installs_a_snapshot_whose_sender_is_gone_lacks_its_bodies() {
    let (line, dir) = (Arc::<Line>::default(), tempfile::tempdir().unwrap());
    let (leader, learner, request) = snapshot(&line, dir.path()).await;
    let end = leader.status().applied;
    let core = learner.core().unwrap();
    let turn = core.applying.checkpoints.writing().await;
    {
        let mut handling = Box::pin(learner.handle(request));
        tokio::select! {
            answer = &mut handling => panic!("it was not held: {answer:?}"),
            () = until(|| core.care.is_incomplete(), "the snapshot is installed") => {}
        }
    }
    let has_looked =
        |n_rounds: u64| core.care.n_filled() >= n_rounds + 3 || !core.care.is_incomplete();
    let n_rounds = core.care.n_filled();
    until(|| has_looked(n_rounds), "it looked what is missing").await;
    assert!(core.care.is_incomplete(), "the rows that go say nothing about those that come");
    drop(turn);
    until(|| learner.status().applied == end, "the rows came").await;
    let n_rounds = core.care.n_filled();
    until(|| has_looked(n_rounds), "it looked what is missing").await;
    assert!(learner.status().is_incomplete && core.applying.local.is_marked(Mark::Incomplete));
}

/// Has replica 1 begin anew, which waits in the middle as long as the file lives.
async fn begin_anew(replica: &Replica, dir: &Path) -> std::fs::File {
    // In the place of the note beside the index is a pipe: who reads it waits for who writes.
    let note = dir.join("n1/index/1/1.clean");
    assert!(std::process::Command::new("mkfifo").arg(&note).status().unwrap().success());
    replica.core().unwrap().applying.store().give_up();
    // It can be opened like this only while somebody reads.
    let mut writer = std::fs::OpenOptions::new();
    writer.write(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    let mut written = None;
    until(|| writer.open(&note).is_ok_and(|file| written.replace(file).is_none()), "it reads")
        .await;
    written.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_stopped_while_it_begins_anew_stays_stopped() {
    let (line, dir) = (Arc::<Line>::default(), tempfile::tempdir().unwrap());
    let (alone, member) = start(&line, dir.path(), 1).await;
    alone.initialize(BTreeMap::from([(1, member)])).await.unwrap();
    until(|| alone.status().role == Role::Leader, "a leader").await;
    let held = begin_anew(&alone, dir.path()).await;
    alone.shutdown().await.unwrap();
    drop(held);
    start_again(&alone.inner.config).await;
    assert!(alone.core().is_err());
}

/// Starts a replica as soon as its place is free.
async fn start_again(config: &ReplicaConfig) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(15);
    while let Err(error) = Replica::start(config.clone()).await {
        assert!(tokio::time::Instant::now() < deadline, "its place is not free: {error}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stops_while_its_neighbour_is_healed_can_be_started_again() {
    let (line, dir) = (Arc::<Line>::default(), tempfile::tempdir().unwrap());
    let (first, _) = start(&line, dir.path(), 1).await;
    let config = ReplicaConfig { shard: ShardId(2), replica_id: 2, ..first.inner.config.clone() };
    let second = Replica::start(config.clone()).await.unwrap();
    let core = first.core().unwrap();
    let turn = core.applying.checkpoints.writing().await;
    core.applying.checkpoints.doubt();
    let disk = config.disk.clone();
    disk.ledger().indexes.insert(1);
    let scrub = tokio::spawn(async move { disk.scrub_once().await });
    let is_begun = || !config.disk.ledger().indexes.contains(&1);
    until(is_begun, "the first one is healed").await;
    second.shutdown().await.unwrap();
    start_again(&config).await;
    drop(turn);
    scrub.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_builds_its_index_anew_starts_and_has_failed_only_when_that_did() {
    let (line, dir) = (Arc::<Line>::default(), tempfile::tempdir().unwrap());
    let (alone, member) = start(&line, dir.path(), 1).await;
    alone.initialize(BTreeMap::from([(1, member)])).await.unwrap();
    until(|| alone.status().role == Role::Leader, "a leader").await;
    let how = || {
        let status = alone.status();
        (status.role, status.is_starting)
    };
    let held = begin_anew(&alone, dir.path()).await;
    assert_eq!(how(), (Role::Stopped, true), "it takes as long as it takes");
    drop(held);
    until(|| how() == (Role::Leader, false), "it runs").await;

    let files = dir.path().join("n1/checkpoints/1");
    std::fs::remove_dir_all(&files).unwrap();
    std::fs::write(&files, "in the way").unwrap();
    alone.core().unwrap().applying.store().give_up();
    until(|| how() == (Role::Stopped, false), "it could not be started").await;
    std::fs::remove_file(&files).unwrap();
    until(|| how() == (Role::Leader, false), "it runs again").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_on_a_full_disk_refuses_bodies_and_goes_on_when_there_is_space() {
    let (line, dir) = (Arc::<Line>::default(), tempfile::tempdir().unwrap());
    let (leader, member) = start(&line, dir.path(), 1).await;
    leader.initialize(BTreeMap::from([(1, member)])).await.unwrap();
    until(|| leader.status().role == Role::Leader, "a leader").await;
    let (learner, member) = start(&line, dir.path(), 2).await;
    leader.add_learner(2, member).await.unwrap();
    let has_all = || learner.status().applied == leader.status().applied;
    until(has_all, "it follows").await;

    let core = Arc::downgrade(&learner.core().unwrap());
    let disk = learner.inner.config.disk.clone();
    disk.pretend_full(true);
    leader.propose(b"none".to_vec(), Vec::new()).await.unwrap();
    until(has_all, "an entry without a body").await;
    let n_refused = || line.n_refused.load(Ordering::Relaxed);
    let n_before = n_refused();
    let body = StoredChunk::raw(Bytes::from_static(b"some octets"));
    leader.propose(b"body".to_vec(), vec![body]).await.unwrap();
    until(|| n_refused() >= n_before + 2, "it is asked again").await;
    assert!(!has_all());
    disk.pretend_full(false);
    until(has_all, "it follows again").await;
    assert!(std::ptr::eq(core.as_ptr(), Arc::as_ptr(&learner.core().unwrap())), "it ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_is_on_its_way_stops_when_others_took_the_room() {
    let (line, dir) = (Arc::<Line>::default(), tempfile::tempdir().unwrap());
    let (replica, _) = start(&line, dir.path(), 1).await;
    let core = replica.core().unwrap();
    let take = async || {
        let (first, octets) = (Bytes::from_static(&[0; 12]), Bytes::from_static(b"octets"));
        receive::piece(&core, first, vec![octets]).await.unwrap_err().to_string()
    };
    let told = take().await;
    assert!(told.contains("no such file"), "{told}");
    core.claim.disk.pretend_full(true);
    let told = take().await;
    assert!(told.contains("no room"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_were_given_up_do_not_tell_which_bodies_are_dead() {
    let (line, dir) = (Arc::<Line>::default(), tempfile::tempdir().unwrap());
    let (alone, _) = start(&line, dir.path(), 1).await;
    let core = alone.core().unwrap();
    let (digest, at) =
        (Digest([1; 32]), journal::Pointer { segment: journal::SegmentId(1), offset: 1, len: 9 });
    assert!(!core.applying.is_body_live(&digest, at), "no row refers to it");
    core.applying.store().give_up();
    assert!(core.applying.is_body_live(&digest, at));
}

/// Two voters: who leads, and the other one.
async fn two(line: &Arc<Line>, dir: &Path) -> (Replica, Replica) {
    let (first, member) = start(line, dir, 1).await;
    let (second, other) = start(line, dir, 2).await;
    first.initialize(BTreeMap::from([(1, member), (2, other)])).await.unwrap();
    let leads = |replica: &Replica| replica.status().role == Role::Leader;
    until(|| leads(&first) || leads(&second), "a leader").await;
    if leads(&first) { (first, second) } else { (second, first) }
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_rows_were_wrong_is_incomplete_until_all_bodies_are_looked_for() {
    let (line, dir) = (Arc::<Line>::default(), tempfile::tempdir().unwrap());
    let (_leader, other) = two(&line, dir.path()).await;
    let core = other.core().unwrap();
    let is_told = || core.status().voters.len() == 2 && core.status().applied > 0;
    until(is_told, "it knows its peer").await;
    let local = core.applying.local.clone();
    assert!(!local.is_marked(Mark::Incomplete));
    doubt(&core);
    assert!(local.is_marked(Mark::Incomplete), "what was collected is not known");
    drop(core);
    until(|| !local.is_marked(Mark::Incomplete), "it is whole again").await;
}

/// A majority holds other rows.
fn doubt(core: &Core) {
    let applied = core.applying.store().applied();
    core.applying.samples.note(applied.log_id, applied.digest);
    let digest = mailbox::codec::encode(&applied.digest);
    let mut told = applied.log_id.unwrap().index.to_be_bytes().to_vec();
    told.push(digest.len() as u8);
    told.extend(digest);
    core.serve_rebuild(told.into()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_votes_alone_waits_for_no_bodies() {
    let (line, dir) = (Arc::<Line>::default(), tempfile::tempdir().unwrap());
    let (alone, member) = start(&line, dir.path(), 1).await;
    alone.initialize(BTreeMap::from([(1, member)])).await.unwrap();
    until(|| alone.status().role == Role::Leader, "a leader").await;
    let core = alone.core().unwrap();
    let local = core.applying.local.clone();
    local.mark(Mark::Incomplete).unwrap();
    core.applying.store().give_up();
    let before = Arc::downgrade(&core);
    drop(core);
    let leads = || before.strong_count() == 0 && alone.status().role == Role::Leader;
    until(leads, "it leads again").await;
    assert!(!local.is_marked(Mark::Incomplete));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_learner_whose_rows_were_wrong_is_incomplete_too() {
    let (line, dir) = (Arc::<Line>::default(), tempfile::tempdir().unwrap());
    let (leader, member) = start(&line, dir.path(), 1).await;
    leader.initialize(BTreeMap::from([(1, member)])).await.unwrap();
    until(|| leader.status().role == Role::Leader, "a leader").await;
    let (learner, member) = start(&line, dir.path(), 2).await;
    leader.add_learner(2, member).await.unwrap();
    let core = learner.core().unwrap();
    let is_told = || core.status().learners.len() == 1 && core.status().applied > 0;
    until(is_told, "it knows its leader").await;
    let local = core.applying.local.clone();
    doubt(&core);
    assert!(local.is_marked(Mark::Incomplete), "it may be about to vote");
    drop(core);
    until(|| !local.is_marked(Mark::Incomplete), "it is whole again").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leads_on_wrong_rows_waits_for_bodies_only_if_somebody_has_all() {
    let (line, dir) = (Arc::<Line>::default(), tempfile::tempdir().unwrap());
    let (leader, other) = two(&line, dir.path()).await;
    let core = leader.core().unwrap();
    until(|| core.status().voters.len() == 2, "it knows its peer").await;
    assert!(core.has_whole_peer().await);
    let installing = other.core().unwrap().installing();
    assert!(!core.has_whole_peer().await);
    let local = core.applying.local.clone();
    core.doubt_own_rows().await;
    assert!(!local.is_marked(Mark::Incomplete), "each would wait for the other one");
    let before = Arc::downgrade(&core);
    drop(core);
    let leads = || before.strong_count() == 0 && leader.status().role == Role::Leader;
    until(leads, "it leads again").await;
    drop(installing);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lacks_bodies_is_not_handed_leadership() {
    let (line, dir) = (Arc::<Line>::default(), tempfile::tempdir().unwrap());
    let (leader, other) = two(&line, dir.path()).await;
    let installing = other.core().unwrap().installing();
    let handed = leader.transfer_leader(Some(other.replica_id())).await;
    assert!(matches!(handed, Err(ProposeError::Unavailable)), "{handed:?}");
    leader.propose(b"on".to_vec(), Vec::new()).await.unwrap();
    drop(installing);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_would_not_be_heard_in_time_is_not_preferred() {
    let (line, dir) = (Arc::<Line>::default(), tempfile::tempdir().unwrap());
    let (leader, other) = two(&line, dir.path()).await;
    let (to, timing) = (other.replica_id(), Timing::default());
    *line.slow.lock().unwrap() = Some((kind::WOULD_LEAD, timing.heartbeat * 2));
    let handed = leader.prefer_leader(to).await;
    assert!(matches!(handed, Err(ProposeError::Unavailable)), "{handed:?}");
    leader.propose(b"on".to_vec(), Vec::new()).await.unwrap();
    // Who must go hands over all the same.
    leader.transfer_leader(Some(to)).await.unwrap();
    until(|| other.status().role == Role::Leader, "it leads").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_that_nobody_took_over_is_taken_up_again() {
    let (line, dir) = (Arc::<Line>::default(), tempfile::tempdir().unwrap());
    let (leader, other) = two(&line, dir.path()).await;
    let (me, to) = (leader.replica_id(), other.replica_id());
    *line.lost.lock().unwrap() = vec![(me, kind::TRANSFER), (to, kind::PRE_VOTE)];
    leader.transfer_leader(Some(to)).await.unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(15);
    while leader.propose(b"on".to_vec(), Vec::new()).await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "it never leads again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_would_not_lead_is_passed_over() {
    let (line, dir) = (Arc::<Line>::default(), tempfile::tempdir().unwrap());
    let (mut members, mut replicas) = (BTreeMap::new(), Vec::new());
    for id in 1..=3 {
        let (replica, member) = start(&line, dir.path(), id).await;
        members.insert(id, member);
        replicas.push(replica);
    }
    replicas[0].initialize(members).await.unwrap();
    let leads = |replica: &&Replica| replica.status().role == Role::Leader;
    until(|| replicas.iter().any(|replica| leads(&replica)), "a leader").await;
    let leader = replicas.iter().find(leads).unwrap();
    leader.propose(b"on".to_vec(), Vec::new()).await.unwrap();
    let others = || {
        let status = leader.status();
        let have_all = |at: &u64| *at == status.last_log_index;
        let is_ready = status.matched.values().filter(|at| have_all(at)).count() == 3;
        is_ready.then(|| leader.successors(&leader.core().unwrap(), &status))
    };
    until(|| others().is_some_and(|others| others.len() == 2), "both could lead").await;
    let best = others().unwrap()[0];
    let best = replicas.iter().find(|replica| replica.replica_id() == best).unwrap();
    let installing = best.core().unwrap().installing();
    leader.transfer_leader(None).await.unwrap();
    let is_led = |replica: &Replica| {
        ![best.replica_id(), leader.replica_id()].contains(&replica.replica_id()) && leads(&replica)
    };
    until(|| replicas.iter().any(is_led), "the other one leads").await;
    drop(installing);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_vote_yet_asks_again_and_does_nothing_else() {
    let (line, dir) = (Arc::<Line>::default(), tempfile::tempdir().unwrap());
    let (_leader, other) = two(&line, dir.path()).await;
    *line.lost.lock().unwrap() = vec![(other.replica_id(), kind::SEEN)];
    let before = Arc::downgrade(&other.core().unwrap());
    other.core().unwrap().applying.store().give_up();
    let is_new = |core: &Arc<Core>| !std::ptr::eq(Arc::as_ptr(core), before.as_ptr());
    let begun = || other.core().ok().filter(is_new);
    until(|| begun().is_some(), "it is begun anew").await;
    let core = begun().unwrap();
    assert!(!core.care.may_vote());
    let turn = core.applying.checkpoints.writing().await;
    core.applying.checkpoints.doubt();
    let n_lost = || line.n_lost.load(Ordering::Relaxed);
    let n_asked = n_lost();
    until(|| n_lost() >= n_asked + 3, "it asks again and again").await;
    line.lost.lock().unwrap().clear();
    until(|| core.care.may_vote(), "it may vote").await;
    drop(turn);
    until(|| !core.applying.checkpoints.is_doubted(), "a checkpoint is written then").await;
}
