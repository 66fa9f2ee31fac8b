//! What happens by itself as time goes by: checkpoints, deltas that become a new base, a log that is
//! cut, segments that are freed. Disks stay small however much is written and overwritten.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use api::peer::{BoxFuture, PeerError, PeerRequest, PeerResponse, PeerTransport};
use bytes::Bytes;
use mailbox::{ChunkRef, Digest, Rows, Source, StoredChunk};
use replica::{Disk, DiskOptions, Machine, MachineApplied, Role, Upkeep};
use support::{Net, Node, converged, leader, options, put, start_by, start_with, try_start, until};
use tokio::sync::watch;

/// Keys written over and over: so many bodies live at once.
const N_KEYS: u64 = 8;
const BODY_BYTES: usize = 16 << 10;
const SEGMENT_BYTES: u64 = 1 << 20;
/// Bodies written in all: some twenty segments of them.
const N_WRITES: u64 = 1300;
/// Limit: what may be left of them. The living, a segment that is written, one that is emptied, and
/// those a checkpoint still holds.
const SEGMENTS_MAX: usize = 8;

/// For what has to come, on a busy machine.
const COMES: Duration = Duration::from_secs(30);
/// Long enough for the first attempt at a checkpoint, and the second a second later.
const SOME_ATTEMPTS: Duration = Duration::from_millis(1500);
/// Long enough for many rounds of upkeep: what is not written by then was not due.
const SOME_ROUNDS: Duration = Duration::from_millis(500);

/// Commands: a key. The body that came with the last one before dies.
struct Places;

fn body_key(digest: &[u8]) -> Vec<u8> {
    [b"#", digest].concat()
}

impl Machine for Places {
    fn apply(&self, rows: &mut Rows<'_>, command: &[u8], inline: &[ChunkRef]) -> MachineApplied {
        // Before what was proposed comes the leader's time.
        let key = command[10..].to_vec();
        if let Some(before) = rows.row(&key) {
            rows.remove(&body_key(&before));
        }
        for chunk in inline {
            rows.put(key.clone(), chunk.digest.0.to_vec());
            rows.put(body_key(&chunk.digest.0), vec![1]);
        }
        MachineApplied::default()
    }

    fn is_chunk_live(&self, rows: &dyn Source, digest: &Digest) -> bool {
        rows.row(&body_key(&digest.0)).is_some()
    }
}

fn body(i: u64) -> StoredChunk {
    let word = Digest::of(&i.to_be_bytes()).0;
    StoredChunk::raw(Bytes::from(word.repeat(BODY_BYTES / word.len())))
}

fn settings(upkeep: Upkeep) -> DiskOptions {
    let mut options = options();
    options.journal.segment_bytes = SEGMENT_BYTES;
    DiskOptions { upkeep, ..options }
}

fn eager() -> Upkeep {
    Upkeep {
        delta_entries: 50,
        n_deltas: 3,
        keep_entries: 30,
        keep_entries_away: 60,
        look_every: Duration::from_millis(20),
        collect_every: Duration::from_millis(100),
        ..Upkeep::default()
    }
}

async fn alone(dir: &Path, upkeep: Upkeep) -> (Net, Vec<Node>) {
    let net = Net::default();
    let node = start_with(&net, dir, 1, (settings(upkeep), Arc::new(Places))).await;
    (net, vec![node])
}

/// Makes it a group of one.
async fn found(nodes: &[Node]) {
    nodes[0].replica.initialize(BTreeMap::from([(1, nodes[0].member())])).await.unwrap();
    leader(nodes).await;
}

async fn write(nodes: &[Node], numbers: std::ops::Range<u64>) {
    for i in numbers {
        put(nodes, &format!("k{}", i % N_KEYS), vec![body(i)]).await;
    }
}

/// The last body of each key is there.
async fn check(nodes: &[Node], end: u64) {
    let view = nodes[0].replica.read().await.unwrap();
    for i in end - N_KEYS..end {
        let row = view.read(|rows, _| rows.row(format!("k{}", i % N_KEYS).as_bytes())).unwrap();
        assert_eq!(row.unwrap(), body(i).chunk.digest.0, "the row of {i}");
        let found = view.read(|_, bodies| bodies.chunk(&body(i).chunk)).unwrap();
        assert_eq!(found, Some(body(i).bytes), "body {i}");
    }
}

fn n_checkpoint_files(dir: &Path) -> usize {
    std::fs::read_dir(dir.join("n1/checkpoints/1")).map_or(0, Iterator::count)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_stays_small_however_much_is_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let (net, nodes) = alone(dir.path(), eager()).await;
    found(&nodes).await;
    let mut files_max = 0;
    for begin in (0..N_WRITES).step_by(50) {
        write(&nodes, begin..begin + 50).await;
        files_max = files_max.max(n_checkpoint_files(dir.path()));
    }
    let status = || nodes[0].replica.status();
    until(|| status().purged + 200 > N_WRITES, "the log is cut").await;
    let n_segments = || nodes[0].disk.journal().segments().len();
    until(|| n_segments() <= SEGMENTS_MAX, "dead segments are freed").await;
    // Base, deltas, and for a moment the base that replaces them.
    assert!(files_max <= 3 + 3, "{files_max} files of checkpoints");
    check(&nodes, N_WRITES).await;
    for node in nodes {
        node.stop(&net).await;
    }
    // Without the index the places of bodies are found again, and what is dead is known again.
    std::fs::remove_dir_all(dir.path().join("n1/index")).unwrap();
    let (net, nodes) = alone(dir.path(), eager()).await;
    leader(&nodes).await;
    check(&nodes, N_WRITES).await;
    write(&nodes, N_WRITES..2 * N_WRITES).await;
    let n_segments = || nodes[0].disk.journal().segments().len();
    until(|| n_segments() <= SEGMENTS_MAX, "dead segments are freed after a rebuild").await;
    check(&nodes, 2 * N_WRITES).await;
    for node in nodes {
        node.stop(&net).await;
    }
}

/// Starts a replica with these settings, writes so many bodies, and gives the checkpoint it has
/// then, if it has one.
async fn checkpoint_after(upkeep: Upkeep, n_writes: u64, patience: Duration) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let (net, nodes) = alone(dir.path(), upkeep).await;
    found(&nodes).await;
    write(&nodes, 0..n_writes).await;
    let mut status = nodes[0].replica.watch_status();
    let is_written = status.wait_for(|status| status.checkpoint > 0);
    let at = match tokio::time::timeout(patience, is_written).await {
        Ok(Ok(status)) => status.checkpoint,
        _ => 0,
    };
    for node in nodes {
        node.stop(&net).await;
    }
    at
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_is_due_by_entries_by_row_bytes_or_by_what_it_pins() {
    let never = Upkeep { look_every: Duration::from_millis(20), ..Upkeep::default() };
    assert_eq!(checkpoint_after(never.clone(), 120, SOME_ROUNDS).await, 0, "by nothing");
    let by_entries = Upkeep { delta_entries: 100, ..never.clone() };
    assert_eq!(checkpoint_after(by_entries.clone(), 60, SOME_ROUNDS).await, 0, "below the entries");
    let at = checkpoint_after(by_entries, 120, COMES).await;
    // The hundredth entry has the index 99.
    assert!(at >= 99, "by entries, at {at}");
    let by_bytes = Upkeep { delta_bytes: 4 << 10, ..never.clone() };
    assert!(checkpoint_after(by_bytes, 120, COMES).await > 0, "by bytes of rows");
    let by_pinned = Upkeep { pinned_bytes: SEGMENT_BYTES, ..never };
    assert!(checkpoint_after(by_pinned, 200, COMES).await > 0, "by what it pins");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_cannot_be_written_stops_nothing_and_is_written_once_it_can() {
    let dir = tempfile::tempdir().unwrap();
    let upkeep = Upkeep { delta_entries: 20, look_every: Duration::from_millis(20), ..eager() };
    let (net, nodes) = alone(dir.path(), upkeep).await;
    found(&nodes).await;
    write(&nodes, 0..30).await;
    let status = || nodes[0].replica.status();
    until(|| status().checkpoint > 0, "the first checkpoint").await;
    // Why not by permissions: nothing is forbidden to root.
    let (place, away) = (dir.path().join("n1/checkpoints/1"), dir.path().join("away"));
    std::fs::rename(&place, &away).unwrap();
    let before = status();
    let mut watched = nodes[0].replica.watch_status();
    let stopped = tokio::spawn(async move {
        watched
            .wait_for(|status| status.role != Role::Leader || status.failed.is_some())
            .await
            .is_ok()
    });
    let mut written = 30;
    until_some_rounds(&mut written, &nodes).await;
    assert_eq!(status().term, before.term);
    assert_eq!(status().checkpoint, before.checkpoint, "it was written to nowhere");
    std::fs::rename(&away, &place).unwrap();
    until(|| status().checkpoint > before.checkpoint + 30, "a checkpoint, once it can").await;
    assert!(!stopped.is_finished(), "the core died of it");
    stopped.abort();
    check(&nodes, written).await;
    for node in nodes {
        node.stop(&net).await;
    }
    assert!(n_checkpoint_files(dir.path()) <= 1 + 3);
}

/// Says nothing of what lives as long as it is held.
#[derive(Default)]
struct Silent {
    is_held: Mutex<bool>,
    told: Condvar,
    n_asked: AtomicU64,
}

impl Silent {
    fn hold(&self, is_held: bool) {
        *self.is_held.lock().unwrap() = is_held;
        self.told.notify_all();
    }
}

impl Machine for Silent {
    fn apply(&self, rows: &mut Rows<'_>, command: &[u8], inline: &[ChunkRef]) -> MachineApplied {
        Places.apply(rows, command, inline)
    }

    fn is_chunk_live(&self, rows: &dyn Source, digest: &Digest) -> bool {
        self.n_asked.fetch_add(1, Ordering::Relaxed);
        drop(self.told.wait_while(self.is_held.lock().unwrap(), |is_held| *is_held).unwrap());
        Places.is_chunk_live(rows, digest)
    }
}

/// Holds it no more, also when a test fails: its threads would not end.
struct Held(Arc<Silent>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.hold(false);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_cut_while_the_journal_is_collected_however_long_that_takes() {
    let dir = tempfile::tempdir().unwrap();
    let (net, machine) = (Net::default(), Arc::<Silent>::default());
    let nodes = vec![start_with(&net, dir.path(), 1, (settings(eager()), machine.clone())).await];
    found(&nodes).await;
    let held = Held(machine.clone());
    held.0.hold(true);
    let n_asked = || machine.n_asked.load(Ordering::Relaxed);
    let mut written = 0;
    while n_asked() == 0 {
        write(&nodes, written..written + 10).await;
        written += 10;
        assert!(written < N_WRITES * 4, "nothing is collected");
    }
    write(&nodes, written..written + 200).await;
    let status = || nodes[0].replica.status();
    until(|| status().purged > written + 100, "the log is cut").await;
    drop(held);
    let n_segments = || nodes[0].disk.journal().segments().len();
    until(|| n_segments() <= SEGMENTS_MAX, "dead segments are freed").await;
    for node in nodes {
        node.stop(&net).await;
    }
}

/// On the wire: all of a checkpoint was sent.
const SNAPSHOT_END: u8 = 7;

/// How many checkpoints were sent, and whether their ends arrive now.
#[derive(Default)]
struct Ends {
    n_sent: watch::Sender<u64>,
    is_held: watch::Sender<bool>,
}

/// A network over which a checkpoint takes as long as is wanted.
struct Holding(Arc<dyn PeerTransport>, Arc<Ends>);

impl PeerTransport for Holding {
    fn call(&self, request: PeerRequest) -> BoxFuture<'static, Result<PeerResponse, PeerError>> {
        if request.kind != SNAPSHOT_END {
            return self.0.call(request);
        }
        let (net, ends) = (self.0.clone(), self.1.clone());
        Box::pin(async move {
            ends.n_sent.send_modify(|n_sent| *n_sent += 1);
            drop(ends.is_held.subscribe().wait_for(|is_held| !is_held).await);
            net.call(request).await
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_sent_a_checkpoint_finds_the_log_behind_it_however_long_that_takes() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let ends = Arc::<Ends>::default();
    let start = async |id: u64| {
        let (name, home) = (format!("n{id}"), dir.path().join(format!("n{id}")));
        if !home.exists() {
            Disk::format(&home).unwrap();
        }
        let disk = Disk::open(&home, settings(eager())).unwrap();
        start_by(&net, disk, id, Arc::new(Holding(net.of(&name), ends.clone()))).await
    };
    let mut nodes = vec![start(1).await, start(2).await, start(3).await];
    let members = nodes.iter().map(|node| (node.id, node.member())).collect();
    nodes[0].replica.initialize(members).await.unwrap();
    put(&nodes, "first=1", vec![]).await;
    let away = nodes.remove((leader(&nodes).await + 1) % 3);
    let id = away.id;
    away.stop(&net).await;
    let write = async |numbers: std::ops::Range<u64>| {
        for i in numbers {
            put(&nodes, &format!("k{}=v{i}", i % N_KEYS), vec![]).await;
        }
    };
    write(0..300).await;
    until(|| nodes.iter().all(|node| node.replica.status().purged > 100), "logs are cut").await;
    ends.is_held.send_replace(true);
    let late = start(id).await;
    until(|| *ends.n_sent.borrow() == 1, "a checkpoint is sent").await;
    let at = leader(&nodes).await;
    let status = || nodes[at].replica.status();
    let (fed, term) = (status().checkpoint, status().term);
    write(300..700).await;
    until(|| status().checkpoint > fed + 300, "later checkpoints are written").await;
    ends.is_held.send_replace(false);
    nodes.push(late);
    converged(&nodes).await;
    let at = leader(&nodes).await;
    // Another leader, on a machine that is too slow for this, knows nothing of the first one.
    let is_same = nodes[at].replica.term() == term;
    assert!(*ends.n_sent.borrow() == 1 || !is_same, "the first checkpoint was of no use");
    // It goes on like any other.
    for i in 700..900 {
        put(&nodes, &format!("k{}=v{i}", i % N_KEYS), vec![]).await;
    }
    until(|| nodes[at].replica.status().purged > fed + 300, "the log is cut again").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_copied_while_its_replica_does_not_run_is_found_when_it_does() {
    let dir = tempfile::tempdir().unwrap();
    let net = Net::default();
    let mut nodes = vec![support::start(&net, dir.path(), 1).await];
    found(&nodes).await;
    let wanted = body(1);
    put(&nodes, "1=body", vec![wanted.clone()]).await;
    let first = nodes[0].disk.journal().segments();
    nodes[0].disk.journal().roll().unwrap();
    for i in 0..10 {
        put(&nodes, &format!("{i}=none"), Vec::new()).await;
    }
    nodes[0].replica.checkpoint(0).await.unwrap();
    let least = 8;
    until(|| nodes[0].replica.status().purged >= least, "the log is cut").await;
    let Node { disk, replica, name, id } = nodes.pop().unwrap();
    net.disconnect(&name);
    replica.shutdown().await.unwrap();
    drop(replica);
    until(|| Arc::strong_count(&disk) == 1, "the disk is let go").await;
    let collected = disk.collect().unwrap();
    assert!(first.iter().all(|segment| collected.deleted.contains(segment)), "{collected:?}");
    assert!(collected.moved_bytes > 0, "{collected:?}");
    let replica = try_start(&net, disk.clone(), &name, id).await.unwrap();
    let at_hand = || replica.stored_chunk(&wanted.chunk.digest).map(|stored| stored.bytes);
    until(|| at_hand().as_ref() == Some(&wanted.bytes), "the body is at hand").await;
    replica.shutdown().await.unwrap();
}

/// Writes as long as some attempts at a checkpoint take.
async fn until_some_rounds(written: &mut u64, nodes: &[Node]) {
    let begun = std::time::Instant::now();
    while begun.elapsed() < SOME_ATTEMPTS {
        write(nodes, *written..*written + 10).await;
        *written += 10;
    }
}
