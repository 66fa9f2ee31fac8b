//! One bit of one file of a stopped node turns over: wherever it lies in journal, index or
//! checkpoints, the node finds it, heals it, and serves nothing wrong meanwhile.
//!
//! `ROOKERY_FLIPS=1000 cargo test --release -p replica --test flips` is the long form;
//! `ROOKERY_SEED` begins elsewhere.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mailbox::{Digest, StoredChunk};
use replica::DiskOptions;
use support::{
    Net, Node, Notes, converged, copy_dir, files_below, flip, leader, put, start_with, until,
};

const N_FLIPS: u64 = 18;
const KINDS: [&str; 3] = ["journal", "index", "checkpoints"];

/// Always the same numbers for a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

fn options() -> DiskOptions {
    let mut options = support::options();
    options.journal.segment_bytes = 256 << 10;
    options.journal.reserve_segments = 0;
    options
}

async fn start(net: &Net, dir: &Path, id: u64) -> Node {
    start_with(net, dir, id, (options(), Arc::new(Notes))).await
}

/// What everybody is to read, before and after.
struct Truth {
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    bodies: Vec<StoredChunk>,
}

impl Truth {
    fn new() -> Self {
        let mut dice = Dice(7);
        let mut this = Self { rows: BTreeMap::new(), bodies: Vec::new() };
        for i in 0..60 {
            let value: String = (0..20 + dice.below(900)).map(|_| letter(&mut dice)).collect();
            this.rows.insert(format!("key {i:03}").into(), value.into());
            let len = 200 + dice.below(20_000);
            let bytes: Vec<u8> = (0..len).map(|_| dice.below(256) as u8).collect();
            this.bodies.push(StoredChunk::raw(bytes.into()));
        }
        this
    }

    /// Reads everything here. Wrong answers are never right; whether all was there is told.
    fn read(&self, node: &Node, what: &str) -> bool {
        let Ok(view) = node.replica.local_view() else { return false };
        let mut is_all = true;
        for (key, value) in &self.rows {
            match view.read(|rows, _| rows.row(key)) {
                Ok(Some(found)) => assert_eq!(found, *value, "{what}: wrong row served"),
                Ok(None) | Err(_) => is_all = false,
            }
        }
        for body in &self.bodies {
            match view.read(|_, bodies| bodies.chunk(&body.chunk)) {
                Ok(Some(found)) => assert_eq!(found, body.bytes, "{what}: wrong body served"),
                Ok(None) | Err(_) => is_all = false,
            }
        }
        is_all
    }

    fn digests(&self) -> Vec<Digest> {
        self.bodies.iter().map(|body| body.chunk.digest).collect()
    }
}

fn letter(dice: &mut Dice) -> char {
    char::from(b'a' + dice.below(26) as u8)
}

/// The files of one kind, with the length of what was written to each.
fn files_of(home: &Path, kind: &str) -> Vec<(PathBuf, u64)> {
    let mut files = Vec::new();
    files_below(&home.join(kind), &mut files);
    files.retain(|path| kind != "journal" || path.extension().is_some_and(|ext| ext == "seg"));
    files.sort();
    let used = |path: PathBuf| {
        let bytes = std::fs::read(&path).unwrap();
        // What is allocated and was never written holds nothing that could rot.
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
        (path, used)
    };
    files.into_iter().map(used).filter(|(_, used)| *used > 0).collect()
}

/// Any bit of the files of a kind.
fn draw(home: &Path, kind: &str, dice: &mut Dice) -> (PathBuf, u64) {
    let files = files_of(home, kind);
    let total: u64 = files.iter().map(|(_, used)| used).sum();
    let mut at = dice.below(total * 8);
    for (path, used) in files {
        if at < used * 8 {
            return (path, at);
        }
        at -= used * 8;
    }
    unreachable!("the draw is below the sum")
}

/// What came of the flips in one kind of file.
#[derive(Default)]
struct Tally {
    n_healed: u64,
    /// Nothing refers to the byte: all that can be read verified, twice.
    n_unused: u64,
    longest: Duration,
}

#[tokio::test(flavor = "multi_thread")]
async fn every_flip_in_a_stopped_nodes_files_is_found_and_healed() {
    let number = |name: &str, default| {
        std::env::var(name).map_or(default, |text| text.parse::<u64>().expect(name))
    };
    let n_flips = number("ROOKERY_FLIPS", N_FLIPS);
    let mut dice = Dice(number("ROOKERY_SEED", 1));
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let truth = Truth::new();
    let mut nodes = cluster(&net, dir.path(), &truth).await;
    // One that does not lead is stopped, and its files are what is flipped.
    let at = (leader(&nodes).await + 1) % 3;
    let (stopped, id) = (nodes.remove(at), at as u64 + 1);
    assert_eq!(stopped.id, id);
    let last = stopped.replica.status().last_log_index;
    stopped.stop(&net).await;
    let (home, pristine) = (dir.path().join(format!("n{id}")), dir.path().join("pristine"));
    std::fs::rename(&home, &pristine).unwrap();
    let mut tallies: BTreeMap<&str, Tally> = BTreeMap::new();
    for round in 0..n_flips {
        copy_dir(&pristine, &home);
        let kind = KINDS[round as usize % KINDS.len()];
        let (path, bit) = draw(&home, kind, &mut dice);
        let what = format!("flip {round}: bit {bit} of {}", path.display());
        flip(&path, bit);
        let began = Instant::now();
        let node = start(&net, dir.path(), id).await;
        truth.read(&node, &what);
        let is_healed = heal(&node, last, &what).await;
        assert!(truth.read(&node, &what), "{what}: not all is there");
        assert_eq!(node.replica.status().digest, nodes[0].replica.status().digest, "{what}");
        let copies = node.replica.copies(&truth.digests()).unwrap();
        assert!(copies.iter().all(|copy| copy.is_good), "{what}: {copies:?}");
        node.stop(&net).await;
        let tally = tallies.entry(kind).or_default();
        tally.longest = tally.longest.max(began.elapsed());
        match is_healed {
            true => tally.n_healed += 1,
            false => {
                assert_ne!(kind, "checkpoints", "{what}: not found");
                // A dead segment may have been deleted before scrub came to it.
                assert!(kind != "journal" || !path.exists(), "{what}: not found");
                tally.n_unused += 1;
            }
        }
        std::fs::remove_dir_all(&home).unwrap();
    }
    for (kind, tally) in tallies {
        println!(
            "{kind}: {} found and healed, {} in bytes that hold nothing, slowest {} ms",
            tally.n_healed,
            tally.n_unused,
            tally.longest.as_millis()
        );
    }
}

/// Three replicas with a checkpoint, entries behind it, and segments that hold only bodies.
async fn cluster(net: &Net, dir: &Path, truth: &Truth) -> Vec<Node> {
    let mut nodes = Vec::new();
    for id in 1..=3 {
        nodes.push(start(net, dir, id).await);
    }
    let members = nodes.iter().map(|node| (node.id, node.member())).collect();
    nodes[0].replica.initialize(members).await.unwrap();
    for (i, ((key, value), body)) in truth.rows.iter().zip(&truth.bodies).enumerate() {
        let command = [&key[..], b"=", &value[..]].concat();
        put(&nodes, &String::from_utf8(command).unwrap(), vec![body.clone()]).await;
        if i == 40 {
            converged(&nodes).await;
            for node in &nodes {
                node.replica.checkpoint(10).await.unwrap();
            }
        }
    }
    converged(&nodes).await;
    nodes
}

/// Scrubs until all that was found is healed and the node is as the others are. True if anything was
/// found.
async fn heal(node: &Node, last: u64, what: &str) -> bool {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let is_up = || {
            let status = node.replica.status();
            assert_eq!(status.failed.filter(|why| why.contains("records")), None, "{what}");
            status.applied >= last && !status.is_unconfirmed
        };
        until(is_up, what).await;
        node.disk.scrub_once().await;
        let status = node.disk.scrub_status();
        assert_eq!(status.n_unrepairable, 0, "{what}: {status:?}");
        if status.n_damaged == status.n_repaired && is_up() {
            // Once more: nothing is left.
            node.disk.scrub_once().await;
            assert_eq!(node.disk.scrub_status().n_damaged, status.n_damaged, "{what}");
            return status.n_damaged > 0;
        }
        assert!(Instant::now() < deadline, "{what}: not healed, {status:?}");
    }
}
