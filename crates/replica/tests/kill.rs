//! A process with three replicas is killed with -9 at random moments, again and again, sometimes
//! while it starts; now and then an index is gone as well. Nothing acknowledged is lost.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mailbox::{ChunkRef, Digest, Rows, Source, StoredChunk};
use replica::{DiskOptions, Machine, MachineApplied, Role, Upkeep};
use support::{Net, Node, converged, options, propose, start_with, until};

/// Kills of a normal run; `ROOKERY_KILL_ROUNDS` asks for more.
const ROUNDS: u64 = 15;
/// In each k-th round one index is removed before the start, in turn one or all of them.
const WIPE_EVERY: u64 = 5;
/// In each k-th round the kill comes while the process still starts.
const EARLY_EVERY: u64 = 4;
/// Each writes its own ring of keys.
const N_WRITERS: u64 = 6;
/// Keys of a ring: so many values of a writer live at once.
const N_SLOTS: u64 = 5;
/// The child's orders: its directory, and what each writer was told.
const DIR: &str = "ROOKERY_KILL_DIR";
const ACKNOWLEDGED: &str = "ROOKERY_KILL_ACKNOWLEDGED";
/// A child that says nothing for so long hangs.
const WORD_MAX: Duration = Duration::from_secs(60);

/// Commands: writer, number. A value replaces the one `N_SLOTS` before it, whose body dies.
struct Rings;

fn slot(writer: u64, number: u64) -> Vec<u8> {
    format!("ring{writer}/{}", number % N_SLOTS).into_bytes()
}

fn body_key(digest: &[u8]) -> Vec<u8> {
    [b"#", digest].concat()
}

impl Machine for Rings {
    fn apply(&self, rows: &mut Rows<'_>, command: &[u8], inline: &[ChunkRef]) -> MachineApplied {
        // Before what was proposed comes the leader's time.
        let (writer, number) = command[10..].split_at(8);
        let key = slot(be(writer), be(number));
        if let Some(before) = rows.row(&key) {
            rows.remove(&body_key(&before[8..]));
        }
        let digest = inline.first().map_or(Digest([0; 32]), |chunk| chunk.digest);
        rows.put(key, [number, &digest.0[..]].concat());
        rows.put(body_key(&digest.0), vec![1]);
        MachineApplied { response: Vec::new(), changes: Vec::new() }
    }

    fn is_chunk_live(&self, rows: &dyn Source, digest: &Digest) -> bool {
        rows.row(&body_key(&digest.0)).is_some()
    }
}

fn be(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes.try_into().unwrap())
}

/// Different for each value, from half a kilobyte to twelve.
fn body(writer: u64, number: u64) -> StoredChunk {
    let mut dice = Dice(writer << 32 | number);
    let n_words = 64 + dice.below(1500);
    let words: Vec<u8> = (0..n_words).flat_map(|_| dice.next().to_be_bytes()).collect();
    StoredChunk::raw(Bytes::from(words))
}

/// The same numbers for the same seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

fn settings() -> DiskOptions {
    // Why so small: checkpoints, cuts of the log and garbage collection happen in every round.
    let upkeep = Upkeep {
        delta_bytes: 32 << 10,
        delta_entries: 60,
        pinned_bytes: 1 << 20,
        n_deltas: 3,
        keep_entries: 20,
        keep_entries_away: 100,
        look_every: Duration::from_millis(50),
        collect_every: Duration::from_millis(200),
        ..Upkeep::default()
    };
    let mut options = options();
    options.journal.segment_bytes = 1 << 20;
    DiskOptions { upkeep, ..options }
}

#[test]
fn a_process_killed_at_any_moment_loses_nothing_acknowledged() {
    let rounds = std::env::var("ROOKERY_KILL_ROUNDS").ok().and_then(|n| n.parse().ok());
    let mut dir = tempfile::tempdir().unwrap();
    // What a failed run left is worth a look.
    dir.disable_cleanup(true);
    let mut acknowledged = vec![0; N_WRITERS as usize];
    let mut dice = Dice(u64::from(std::process::id()));
    println!("seed {} in {}", dice.0, dir.path().display());
    for round in 0..rounds.unwrap_or(ROUNDS) {
        if round % WIPE_EVERY == WIPE_EVERY - 1 {
            remove_indexes(dir.path(), round / WIPE_EVERY);
        }
        let is_early = round % EARLY_EVERY == EARLY_EVERY - 1;
        let patience = Duration::from_millis(dice.below(if is_early { 700 } else { 400 }));
        let n_acknowledged = dice.below(120);
        let before: u64 = acknowledged.iter().sum();
        let (mut child, words) = begin(dir.path(), &acknowledged);
        if !is_early {
            take_words(&words, &mut acknowledged, |acknowledged, is_whole| {
                is_whole && acknowledged.iter().sum::<u64>() >= before + n_acknowledged
            });
        }
        let moment = Instant::now() + patience;
        while let Ok(word) = words.recv_timeout(moment.saturating_duration_since(Instant::now())) {
            note(&word, &mut acknowledged);
        }
        kill(&mut child);
        // What it said before it died was acknowledged.
        words.iter().for_each(|word| _ = note(&word, &mut acknowledged));
    }
    let (mut child, words) = begin(dir.path(), &acknowledged);
    take_words(&words, &mut acknowledged, |_, is_whole| is_whole);
    kill(&mut child);
    dir.disable_cleanup(false);
    println!("acknowledged {acknowledged:?}");
}

/// Ends a process that must not have ended by itself.
fn kill(child: &mut Child) {
    let ended = child.try_wait().unwrap();
    assert!(ended.is_none(), "the process ended by itself, see above: {ended:?}");
    child.kill().unwrap();
    child.wait().unwrap();
}

fn remove_indexes(dir: &Path, turn: u64) {
    for id in (1..=3).filter(|id| turn % 4 == 3 || turn % 4 == id - 1) {
        let index = dir.join(format!("n{id}")).join("index");
        std::fs::remove_dir_all(index).unwrap();
    }
}

fn begin(dir: &Path, acknowledged: &[u64]) -> (Child, Receiver<String>) {
    let list: Vec<_> = acknowledged.iter().map(u64::to_string).collect();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_process_that_is_killed", "--nocapture"])
        .env(DIR, dir)
        .env(ACKNOWLEDGED, list.join(","))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (sender, words) = channel();
    let said = BufReader::new(child.stdout.take().unwrap());
    std::thread::spawn(move || {
        for line in said.lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    (child, words)
}

/// Takes what the child says in, until it is enough.
fn take_words(
    words: &Receiver<String>,
    acknowledged: &mut [u64],
    is_enough: impl Fn(&[u64], bool) -> bool,
) {
    let mut is_whole = false;
    while !is_enough(acknowledged, is_whole) {
        match words.recv_timeout(WORD_MAX) {
            Ok(word) => is_whole |= note(&word, acknowledged),
            Err(RecvTimeoutError::Timeout) => panic!("the process hangs"),
            Err(RecvTimeoutError::Disconnected) => panic!("the process ended, see above"),
        }
    }
}

/// True if everything was found to be there.
fn note(word: &str, acknowledged: &mut [u64]) -> bool {
    let mut parts = word.split(' ');
    if parts.next() == Some("acknowledged") {
        let mut number = || parts.next().unwrap().parse::<u64>().unwrap();
        let (writer, value) = (number(), number());
        acknowledged[writer as usize] = value;
    }
    word == "whole"
}

/// Not a test by itself: the process that the other one kills.
#[test]
fn the_process_that_is_killed() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let acknowledged = std::env::var(ACKNOWLEDGED).unwrap();
    let acknowledged: Vec<u64> = acknowledged.split(',').map(|n| n.parse().unwrap()).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(live(Path::new(&dir), &acknowledged));
}

/// Checks what is there, says so, and goes on writing until it is killed.
async fn live(dir: &Path, acknowledged: &[u64]) {
    let net = Net::default();
    let mut nodes = Vec::new();
    for id in 1..=3 {
        nodes.push(start_with(&net, dir, id, (settings(), Arc::new(Rings))).await);
    }
    let members: BTreeMap<_, _> = nodes.iter().map(|node| (node.id, node.member())).collect();
    if acknowledged.iter().all(|number| *number == 0) {
        // Why the result is dropped: the process may have been killed right after this.
        drop(nodes[0].replica.initialize(members).await);
    }
    until(|| nodes.iter().any(|node| node.replica.status().role == Role::Leader), "a leader").await;
    write(&nodes, N_WRITERS, 1).await;
    converged(&nodes).await;
    // One that was far behind got the rows first; it knows that bodies are missing.
    let is_whole = |node: &Node| !node.replica.status().is_incomplete;
    until(|| nodes.iter().all(is_whole), "all have their bodies").await;
    let mut next = Vec::new();
    for (writer, number) in (0..N_WRITERS).zip(acknowledged) {
        let last = check(&nodes, writer, *number);
        // What was under way when the process died and is there now stays there.
        println!("acknowledged {writer} {last}");
        next.push(last + 1);
    }
    println!("whole");
    let nodes = Arc::new(nodes);
    let writers = (0..N_WRITERS).zip(next).map(|(writer, first)| {
        let nodes = nodes.clone();
        tokio::spawn(async move {
            for number in first.. {
                write(&nodes, writer, number).await;
                println!("acknowledged {writer} {number}");
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
}

async fn write(nodes: &[Node], writer: u64, number: u64) {
    let command = [writer.to_be_bytes(), number.to_be_bytes()].concat();
    propose(nodes, &command, vec![body(writer, number)]).await;
}

/// What was acknowledged to a writer is on every replica, with its bodies. Gives the last number,
/// which may be one more.
fn check(nodes: &[Node], writer: u64, acknowledged: u64) -> u64 {
    let mut last = acknowledged;
    for node in nodes {
        let view = node.replica.local_view().unwrap();
        let read = |number| view.read(|rows, _| rows.row(&slot(writer, number))).unwrap();
        let number = |row: Option<Vec<u8>>| row.map_or(0, |row| be(&row[..8]));
        if number(read(acknowledged + 1)) == acknowledged + 1 {
            last = acknowledged + 1;
        }
        for value in (last + 1).saturating_sub(N_SLOTS).max(1)..=last {
            let (found, name) = (number(read(value)), &node.name);
            assert_eq!(found, value, "{name}: ring {writer}, acknowledged {acknowledged}");
            let digest = body(writer, value).chunk.digest;
            let copies = node.replica.copies(&[digest]).unwrap();
            assert!(copies[0].is_good, "{name}: body {value} of ring {writer}: {:?}", copies[0]);
        }
    }
    last
}
