//! What rots on a disk is found by scrub and healed, wherever it rots, and what is rotten goes to
//! nobody.

#![allow(clippy::unwrap_used)]

mod support;

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mailbox::{ChunkRef, Digest, Rows, Source, StoredChunk};
use replica::{Machine, MachineApplied};
use support::{
    Net, Node, Notes, converged, files_below, flip, leader, put, start, start_with, three,
    try_start, until,
};

/// With so many writes a disk is busy for certain: twice as many as make it so.
const BUSY_WRITES_PER_S: f64 = 40.0;

/// A body that zstd would not shrink, and that is found in a file.
fn body(seed: u64, len: usize) -> StoredChunk {
    let mut state = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    StoredChunk::raw(std::iter::repeat_with(next).take(len).collect::<Vec<u8>>().into())
}

/// Where some bytes lie below a directory.
fn find(dir: &Path, needle: &[u8]) -> Vec<(PathBuf, u64)> {
    let mut files = Vec::new();
    files_below(dir, &mut files);
    let mut found = Vec::new();
    for path in files {
        let bytes = std::fs::read(&path).unwrap();
        let at = bytes.windows(needle.len()).position(|window| window == needle);
        found.extend(at.map(|at| (path, at as u64)));
    }
    found
}

/// Three nodes that are level, and so many bodies they have.
async fn three_with(net: &Net, dir: &Path, n_bodies: u64) -> (Vec<Node>, Vec<StoredChunk>) {
    let nodes = three(net, dir).await;
    let bodies: Vec<_> = (0..n_bodies).map(|i| body(i, 200_000)).collect();
    for (i, body) in bodies.iter().enumerate() {
        put(&nodes, &format!("k{i}=v"), vec![body.clone()]).await;
    }
    converged(&nodes).await;
    (nodes, bodies)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrub_that_is_hurried_finds_what_rotted_before_it_was_asked() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let (nodes, bodies) = three_with(&net, dir.path(), 30).await;
    let disk = &nodes[0].disk;
    // A pass over 6 MB takes more than 20 s at this rate.
    let scrubbing = tokio::spawn(disk.clone().scrub(256 << 10));
    until(|| disk.scrub_status().verified_bytes > 0, "a pass has begun").await;
    let places = find(&dir.path().join("n1/journal"), &bodies[0].bytes[1_000..1_050]);
    let [(path, at)] = &places[..] else { panic!("{places:?}") };
    flip(path, at * 8 + 3);
    let goal = disk.hurry_scrub();
    until(|| disk.scrub_status().n_passes >= goal, "a whole pass").await;
    assert_eq!(disk.scrub_status().n_damaged, 1);
    until(|| disk.scrub_status().n_repaired == 1, "the damage is healed").await;
    check_bodies(&nodes[0], &bodies);
    disk.stop_scrub();
    scrubbing.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_read_finds_is_healed_while_a_pass_goes_on() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let (nodes, bodies) = three_with(&net, dir.path(), 45).await;
    let disk = &nodes[0].disk;
    // A pass over 9 MB takes some 18 s at this rate, and to copy what is good in the third segment, which has
    // just begun, some two.
    let scrubbing = tokio::spawn(disk.clone().scrub(512 << 10));
    until(|| disk.scrub_status().verified_bytes > 0, "a pass has begun").await;
    let rotten = &bodies[43];
    let places = find(&dir.path().join("n1/journal"), &rotten.bytes[1_000..1_050]);
    let [(path, at)] = &places[..] else { panic!("{places:?}") };
    flip(path, at * 8 + 3);
    let read = nodes[0].replica.chunk(&rotten.chunk).await.unwrap();
    assert_eq!(read.bytes, rotten.bytes, "it came from a peer");
    assert_eq!(disk.scrub_status().n_damaged, 1);
    until(|| disk.scrub_status().n_repaired == 1, "the damage is healed").await;
    assert_eq!(disk.scrub_status().n_passes, 0);
    assert!(!path.exists(), "the damaged segment is gone");
    check_bodies(&nodes[0], &bodies);
    disk.stop_scrub();
    scrubbing.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_begun_anew_while_its_bodies_wait_to_be_copied() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let (mut nodes, bodies) = three_with(&net, dir.path(), 30).await;
    let Node { name, id, disk, replica } = nodes.remove(0);
    // Who has copied sixteen bodies waits for 49 s.
    let scrubbing = tokio::spawn(disk.clone().scrub(64 << 10));
    let rotten = &bodies[10];
    let digests: Vec<_> = bodies[..10].iter().map(|body| body.chunk.digest).collect();
    let places = || {
        let copies = replica.copies(&digests).unwrap();
        copies.into_iter().map(|copy| copy.place).collect::<Vec<_>>()
    };
    let before = places();
    let found = find(&dir.path().join("n1/journal"), &rotten.bytes[1_000..1_050]);
    let [(path, at)] = &found[..] else { panic!("{found:?}") };
    flip(path, at * 8 + 3);
    replica.chunk(&rotten.chunk).await.unwrap();
    until(|| places() != before, "good bodies are copied").await;
    net.disconnect(&name);
    replica.shutdown().await.unwrap();
    drop(replica);
    let deadline = Instant::now() + Duration::from_secs(15);
    let again = loop {
        match try_start(&net, disk.clone(), &name, id).await {
            Ok(again) => break again,
            // Why again: somebody holds it for a moment.
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    again.shutdown().await.unwrap();
    disk.stop_scrub();
    scrubbing.await.unwrap();
}

/// How long a pass over all there is takes.
async fn one_pass(node: &Node) -> Duration {
    let disk = &node.disk;
    let scrubbing = tokio::spawn(disk.clone().scrub(16 << 20));
    until(|| disk.scrub_status().verified_bytes > 0, "a pass has begun").await;
    let began = Instant::now();
    until(|| disk.scrub_status().n_passes >= 1, "a whole pass").await;
    disk.stop_scrub();
    scrubbing.await.unwrap();
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn scrub_gives_way_to_who_writes() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    // 6 MB: some 0.4 s at the rate, and eight times that while somebody writes.
    let (nodes, _) = three_with(&net, dir.path(), 30).await;
    let stop = AtomicBool::new(false);
    let write = async {
        let mut n_writes = 0_u32;
        while !stop.load(Ordering::Relaxed) {
            put(&nodes, "k=v", Vec::new()).await;
            n_writes += 1;
        }
        n_writes
    };
    let scrub = async {
        let took = one_pass(&nodes[1]).await;
        stop.store(true, Ordering::Relaxed);
        took
    };
    let (n_writes, took) = futures_util::future::join(write, scrub).await;
    // A machine too slow for a disk to become busy shows nothing. Why no comparison with a pass alone:
    // that takes longer, too, when others want the machine.
    let is_busy = f64::from(n_writes) > BUSY_WRITES_PER_S * took.as_secs_f64();
    assert!(took > Duration::from_secs(1) || !is_busy, "{took:?} beside {n_writes} writes");
}

/// Scrubs until all that was found is healed.
async fn heal(node: &Node) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(15);
    loop {
        node.disk.scrub_once().await;
        let status = node.disk.scrub_status();
        if status.n_damaged == status.n_repaired {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "not healed: {status:?}");
    }
}

fn check_bodies(node: &Node, bodies: &[StoredChunk]) {
    let view = node.replica.local_view().unwrap();
    for (i, body) in bodies.iter().enumerate() {
        let found = view.read(|_, bodies| bodies.chunk(&body.chunk)).unwrap();
        assert_eq!(found.as_ref(), Some(&body.bytes), "body {i} on {}", node.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_rots_is_found_and_its_segment_goes() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let (nodes, bodies) = three_with(&net, dir.path(), 30).await;
    let journal = dir.path().join("n1/journal");
    // In a sealed segment, and in the one that is still written to.
    for rotten in [&bodies[1], &bodies[29]] {
        let places = find(&journal, &rotten.bytes[1_000..1_050]);
        let [(path, at)] = &places[..] else { panic!("{places:?}") };
        flip(path, at * 8 + 3);
        let before = nodes[0].disk.scrub_status();
        heal(&nodes[0]).await;
        let after = nodes[0].disk.scrub_status();
        assert_eq!(after.n_damaged - before.n_damaged, 1, "{after:?}");
        assert!(!path.exists(), "the damaged segment is gone");
        check_bodies(&nodes[0], &bodies);
    }
    nodes[0].disk.scrub_once().await;
    assert_eq!(nodes[0].disk.scrub_status().n_damaged, 2, "nothing rotten is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_peer_has_is_said_and_does_not_go() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let nodes = three(&net, dir.path()).await;
    let lost = body(1, 50_000);
    put(&nodes, "a=1", vec![lost.clone(), body(2, 50_000)]).await;
    converged(&nodes).await;
    for node in &nodes {
        let journal = dir.path().join(&node.name).join("journal");
        let places = find(&journal, &lost.bytes[500..550]);
        flip(&places[0].0, places[0].1 * 8);
    }
    // Twice, since what is good is copied away from what is damaged, and verified there.
    for node in nodes.iter().chain(&nodes) {
        node.disk.scrub_once().await;
    }
    for node in &nodes {
        let status = node.disk.scrub_status();
        assert_eq!((status.n_damaged, status.n_repaired), (1, 0), "{status:?}");
        assert_eq!(status.n_unrepairable, 1, "{status:?}");
        let copies = node.replica.copies(&[lost.chunk.digest, body(2, 50_000).chunk.digest]);
        let copies = copies.unwrap();
        assert!(!copies[0].is_good && copies[1].is_good, "{copies:?}");
        assert!(copies[0].verified_at.is_none() && copies[1].verified_at.is_some(), "{copies:?}");
        assert_eq!(node.replica.local_view().unwrap().read(|_, b| b.chunk(&lost.chunk)), Ok(None));
    }
}

/// Makes sealed segments ones that hold bodies only: the log is cut, and the newest manifest says so.
async fn cut_logs(nodes: &[Node]) {
    for node in nodes {
        let last = node.replica.status().applied;
        node.replica.checkpoint(0).await.unwrap();
        until(|| node.replica.status().purged >= last, "the log is cut").await;
        let disk = node.disk.clone();
        let rolled = tokio::task::spawn_blocking(move || disk.journal().roll()).await;
        rolled.unwrap().unwrap();
    }
}

/// The file in which a body lies on a node.
fn segment_of(dir: &Path, node: &str, body: &StoredChunk) -> PathBuf {
    let places = find(&dir.join(node).join("journal"), &body.bytes[1_000..1_050]);
    let [(path, _)] = &places[..] else { panic!("{places:?}") };
    path.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_whole_again_has_what_its_index_named_in_vain() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let (mut nodes, bodies) = three_with(&net, dir.path(), 40).await;
    cut_logs(&nodes).await;
    nodes.remove(0).stop(&net).await;
    std::fs::remove_file(segment_of(dir.path(), "n1", &bodies[1])).unwrap();
    std::fs::write(dir.path().join("n1/checkpoints/1/incomplete"), b"").unwrap();
    nodes.insert(0, start(&net, dir.path(), 1).await);
    until(|| !nodes[0].replica.status().is_incomplete, "it is whole").await;
    check_bodies(&nodes[0], &bodies);
}

/// Neither the place of the body is known any more, nor that there was one.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_two_of_three_lost_without_a_trace_comes_from_the_third() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let (nodes, bodies) = three_with(&net, dir.path(), 40).await;
    cut_logs(&nodes).await;
    for node in nodes {
        node.stop(&net).await;
    }
    for name in ["n1", "n2"] {
        std::fs::remove_file(segment_of(dir.path(), name, &bodies[1])).unwrap();
        std::fs::remove_dir_all(dir.path().join(name).join("index")).unwrap();
    }
    let net = Net::default();
    let mut nodes = Vec::new();
    for id in 1..=3 {
        nodes.push(start(&net, dir.path(), id).await);
    }
    put(&nodes, "after=1", vec![]).await;
    converged(&nodes).await;
    for node in &nodes[..2] {
        heal(node).await;
        assert!(node.disk.scrub_status().n_repaired > 0);
        check_bodies(node, &bodies);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_with_rot_in_its_log_feeds_a_follower_right_bytes() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let mut nodes = three(&net, dir.path()).await;
    put(&nodes, "first=1", vec![]).await;
    converged(&nodes).await;
    let at = leader(&nodes).await;
    let late = nodes.remove((at + 1) % 3);
    let id = late.id;
    late.stop(&net).await;
    // More than the leader keeps in memory.
    let bodies: Vec<_> = (0..40).map(|i| body(i, 200_000)).collect();
    for (i, body) in bodies.iter().enumerate() {
        put(&nodes, &format!("key number {i:03}=value {i:03}"), vec![body.clone()]).await;
    }
    converged(&nodes).await;
    let at = leader(&nodes).await;
    let journal = dir.path().join(&nodes[at].name).join("journal");
    // A body, and the command of another entry.
    let places = find(&journal, &bodies[2].bytes[7_000..7_050]);
    flip(&places[0].0, places[0].1 * 8 + 5);
    let places = find(&journal, b"key number 004=value 004");
    flip(&places[0].0, (places[0].1 + 20) * 8);
    flip(&places[0].0, (places[0].1 + 21) * 8);
    nodes.push(start(&net, dir.path(), id).await);
    put(&nodes, "last=1", vec![]).await;
    converged(&nodes).await;
    check_bodies(&nodes[2], &bodies);
    let view = nodes[2].replica.local_view().unwrap();
    let row = view.read(|rows, _| rows.row(b"key number 004")).unwrap();
    assert_eq!(row, Some(b"value 004".to_vec()));
    drop(view);
    heal(&nodes[at]).await;
    assert!(nodes[at].disk.scrub_status().n_repaired >= 2);
    check_bodies(&nodes[at], &bodies);
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoint_and_index_that_rot_are_made_anew() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let nodes = three(&net, dir.path()).await;
    for i in 0..300 {
        put(&nodes, &format!("key number {i}=a value of some length, {i}"), vec![]).await;
    }
    converged(&nodes).await;
    for node in &nodes {
        node.replica.checkpoint(0).await.unwrap();
    }
    converged(&nodes).await;
    let mut files = Vec::new();
    files_below(&dir.path().join("n1/checkpoints"), &mut files);
    files.retain(|path| path.extension().is_some_and(|extension| extension == "ckpt"));
    let size = files[0].metadata().unwrap().len();
    flip(&files[0], size * 4);
    heal(&nodes[0]).await;
    assert_eq!(nodes[0].disk.scrub_status().n_repaired, 1);
    // The index is built from the new checkpoint, so that must be right.
    for node in nodes {
        node.stop(&net).await;
    }
    let mut index = Vec::new();
    files_below(&dir.path().join("n1/index"), &mut index);
    for path in index {
        std::fs::write(&path, b"nothing of use").unwrap();
    }
    let net = Net::default();
    let mut nodes = Vec::new();
    for id in 1..=3 {
        nodes.push(start(&net, dir.path(), id).await);
    }
    put(&nodes, "after=1", vec![]).await;
    converged(&nodes).await;
    heal(&nodes[0]).await;
    assert_eq!(nodes[0].disk.scrub_status().n_repaired, 1, "the index was found damaged");
}

/// Applies one command wrongly, once.
struct WrongOnce(AtomicBool);

impl Machine for WrongOnce {
    fn apply(&self, rows: &mut Rows<'_>, command: &[u8], inline: &[ChunkRef]) -> MachineApplied {
        if command[10..].starts_with(b"trap=") && !self.0.swap(true, Ordering::Relaxed) {
            rows.put(b"trap".to_vec(), b"sprung".to_vec());
            return MachineApplied::default();
        }
        Notes.apply(rows, command, inline)
    }

    fn is_chunk_live(&self, rows: &dyn Source, digest: &Digest) -> bool {
        Notes.is_chunk_live(rows, digest)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_differ_from_a_majoritys_are_built_anew() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let mut nodes = vec![start(&net, dir.path(), 1).await, start(&net, dir.path(), 2).await];
    let wrong = Arc::new(WrongOnce(AtomicBool::new(false)));
    nodes.push(start_with(&net, dir.path(), 3, (support::options(), wrong)).await);
    let members = nodes.iter().map(|node| (node.id, node.member())).collect();
    nodes[0].replica.initialize(members).await.unwrap();
    put(&nodes, "trap=set", vec![]).await;
    put(&nodes, "b=1", vec![]).await;
    let applied = || {
        let applied: Vec<u64> = nodes.iter().map(|node| node.replica.status().applied).collect();
        applied.iter().all(|one| *one == applied[0])
    };
    until(applied, "all applied the same").await;
    let digest = |at: usize| nodes[at].replica.status().digest;
    assert!(digest(0) == digest(1) && digest(0) != digest(2), "the trap was sprung");
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    while digest(2) != digest(0) {
        assert!(tokio::time::Instant::now() < deadline, "not built anew");
        let at = leader(&nodes).await;
        // It may stop leading at any moment, since it may be the one that is wrong.
        drop(nodes[at].replica.compare().await);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    converged(&nodes).await;
    let at = leader(&nodes).await;
    nodes[at].replica.compare().await.unwrap();
    assert_eq!(nodes[at].replica.status().n_differing, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotten_sector_of_applied_entries_costs_the_replica_nothing() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let mut nodes = three(&net, dir.path()).await;
    for i in 0..30 {
        put(&nodes, &format!("key number {i:03}=value"), vec![body(i, 60_000)]).await;
    }
    converged(&nodes).await;
    let at = (leader(&nodes).await + 1) % 3;
    // What follows in a later segment restates vote and floor.
    let journal = nodes[at].disk.clone();
    tokio::task::spawn_blocking(move || journal.journal().roll()).await.unwrap().unwrap();
    put(&nodes, "more=1", vec![]).await;
    converged(&nodes).await;
    let node = nodes.remove(at);
    let id = node.id;
    node.stop(&net).await;
    let home = dir.path().join(format!("n{id}/journal"));
    let places = find(&home, b"key number 012=value");
    let file = std::fs::OpenOptions::new().write(true).open(&places[0].0).unwrap();
    // Frame head, record head and meta: nothing tells any more what was here.
    file.write_all_at(&[0x5a; 512], places[0].1 - 400).unwrap();
    nodes.push(start(&net, dir.path(), id).await);
    let back = &nodes[2];
    put(&nodes, "after=1", vec![]).await;
    converged(&nodes).await;
    heal(back).await;
    assert!(back.disk.scrub_status().n_repaired > 0);
    assert_eq!(back.replica.status().failed, None);
    check_bodies(back, &(0..30).map(|i| body(i, 60_000)).collect::<Vec<_>>());
}
