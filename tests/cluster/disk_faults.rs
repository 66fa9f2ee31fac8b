//! Disks that are full, slow, hung, or fail when something is synced, under real processes: what
//! promise P10 says of each.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use drill::Load;
use serde_json::Value;
use tests::demo::Demo;
use tests::failing_sync::FailingSync;
use tests::imap::Imap;
use tests::inside;
use tests::lmtp::Lmtp;
use tests::volume::Volume;
use tests::wait;

const USER: &str = "u0001@example.test";
const PASSWORD: &str = "secret";
const NODES: [&str; 3] = ["n1", "n2", "n3"];
/// A debug build on two cores that also run the clients.
const WHOLE: Duration = Duration::from_secs(120);
const WORKS: Duration = Duration::from_secs(60);
/// "A hung disk loses its leaderships within seconds": two until it counts as hung, the election, and
/// until that is reported; a debug build on a busy machine.
const LEADS_NO_MORE: Duration = Duration::from_secs(10);
/// A disk that is slow, but not hung.
const SLOW_MS: u64 = 300;
/// No client of a slow disk waits longer.
const SLOW_WAIT_MAX: Duration = Duration::from_secs(8);
/// Longer than rows wait in memory before the index gets them.
const FULL_FOR: Duration = Duration::from_secs(12);
/// As people work: without space, rows wait in memory, and only some MiB of them.
const ROUND: Duration = Duration::from_millis(700);
const SEED: u64 = 5;
const MIB: u64 = 1 << 20;
/// Growth is refused below 1 GiB of free space; so much is left above it.
const DISK_BYTES: u64 = 1600 * MIB;

#[test]
fn a_hung_disk_leads_no_more_and_clients_go_on() -> Result<()> {
    let keep = tempfile::tempdir()?;
    Stage::play(keep.path(), &["--shards", "3"], |stage| {
        let node = wait::until(WORKS, "a leader", || stage.demo.busiest_leader())?;
        let began = Instant::now();
        stage.sync.hang(&disk(&stage.demo, &node, 0)?)?;
        wait::until(LEADS_NO_MORE, "it leads no more", || leads_nothing(&stage.demo, &node))?;
        println!("{node} leads nothing {:.1?} after its disk hung", began.elapsed());
        stage.load.progress(2, WORKS).context("while the disk hangs")?;
        stage.sync.heal()
    })
    .map(drop)
}

#[test]
fn a_slow_disk_slows_clients_down_and_no_more() -> Result<()> {
    let keep = tempfile::tempdir()?;
    let longest = Stage::play(keep.path(), &["--shards", "3"], |stage| {
        let node = wait::until(WORKS, "a leader", || stage.demo.busiest_leader())?;
        stage.sync.delay(&disk(&stage.demo, &node, 0)?, SLOW_MS)?;
        stage.load.progress(5, WORKS).context("while the disk is slow")?;
        stage.sync.heal()
    })?;
    // Without a stage nothing was played, which was said.
    let Some(longest) = longest else { return Ok(()) };
    ensure!(longest < SLOW_WAIT_MAX, "a client waited {longest:?}");
    Ok(())
}

#[test]
fn a_failed_sync_ends_a_disk_for_good_and_the_other_disk_serves_on() -> Result<()> {
    let keep = tempfile::tempdir()?;
    let options = ["--shards", "4", "--disks", "2"];
    Stage::play(keep.path(), &options, fail_one_disk).map(drop)
}

fn fail_one_disk(stage: &Stage) -> Result<()> {
    let demo = &stage.demo;
    let node = wait::until(WORKS, "a leader", || demo.busiest_leader())?;
    let (bad, good) = (disk(demo, &node, 0)?, disk(demo, &node, 1)?);
    let (bad_id, good_id) = (disk_id(&bad)?, disk_id(&good)?);
    let placed = placed_on(demo, &bad_id)?;
    ensure!(!placed.is_empty() && !placed_on(demo, &good_id)?.is_empty(), "a disk is empty");
    let pid = alive(demo, &node)?;
    stage.sync.fail(&bad)?;
    let failed = || {
        let list = said(demo, &["disk", "list"])?;
        let line = list.lines().find(|line| line.contains(&bad_id)).context("not listed")?;
        ensure!(line.contains("FAILED"), "{line}");
        Ok(())
    };
    wait::until(WORKS, "the cluster knows", failed)?;
    stage.load.progress(2, WORKS).context("after the disk failed")?;
    // From here on the disk would do again what it is told; it is not asked.
    stage.sync.heal()?;
    stage.load.whole(WHOLE).context("replaced")?;
    ensure!(placed_on(demo, &bad_id)?.is_empty(), "replicas are placed on the failed disk");
    let now = placed_on(demo, &good_id)?;
    ensure!(now.is_disjoint(&placed), "an id came back: {placed:?}, {now:?}");
    ensure!(alive(demo, &node)? == pid, "{node} died of one disk");
    demo.signal(&node, "KILL")?;
    demo.start_again(&node)?;
    stage.load.whole(WHOLE).context("after a restart")?;
    failed().context("it is used again after a restart")
}

#[test]
fn full_disks_refuse_growth_and_nothing_else() -> Result<()> {
    let test = "disk_faults::full_disks_refuse_growth_and_nothing_else";
    let Some(dir) = inside::enter(test)? else { return Ok(()) };
    let Some(disks) = Volume::make_for(&dir, &NODES, DISK_BYTES)? else { return Ok(()) };
    let disks_in = dir.join("disks").to_string_lossy().into_owned();
    let options = ["--accounts", "1", "--shards", "2", "--disks-in", &disks_in];
    let demo = Demo::start_in(&dir.join("demo"), &options)?;
    let pids = pids(&demo)?;
    demo.explain(full_and_back(&demo, &disks))?;
    ensure!(self::pids(&demo)? == pids, "a node died");
    demo.wait_healthy(true)
}

/// The busiest leader's disk below the mark, then all, then all without any space.
fn full_and_back(demo: &Demo, disks: &[Volume]) -> Result<()> {
    let node = wait::until(WORKS, "a leader", || demo.busiest_leader())?;
    let at = NODES.iter().position(|one| *one == node).context("the leader is none of ours")?;
    disks[at].fill(900 * MIB)?;
    let began = Instant::now();
    wait::until(WORKS, "the others lead", || leads_nothing(demo, &node))?;
    println!("{node} leads nothing {:.1?} after its disk was full", began.elapsed());
    deliver(demo)?.context("one disk of three is full")?;
    disks[at].relieve()?;
    wait::until(WORKS, "accepted with space", || deliver(demo)?)?;
    for leave_bytes in [900 * MIB, 40 * MIB, 0] {
        let shown = leave_bytes / MIB;
        for disk in disks {
            disk.fill(leave_bytes)?;
        }
        refused(demo).with_context(|| format!("{shown} MiB free"))?;
        let began = Instant::now();
        while began.elapsed() < FULL_FOR {
            goes_on(demo).with_context(|| format!("{shown} MiB free"))?;
            std::thread::park_timeout(ROUND);
        }
        refused(demo).with_context(|| format!("{shown} MiB free, later"))?;
    }
    for disk in disks {
        disk.relieve()?;
    }
    wait::until(WORKS, "accepted again", || deliver(demo)?)?;
    demo.wait_healthy(true)
}

/// Growth is refused, in words.
fn refused(demo: &Demo) -> Result<()> {
    wait::until(WORKS, "LMTP refuses", || {
        let reply = deliver(demo)?.err().context("delivered to full disks")?.to_string();
        ensure!(reply.starts_with("452 4.3.1"), "{reply}");
        Ok(())
    })?;
    let mut imap = Imap::login(&demo.at("f2", "imap")?, USER, PASSWORD)?;
    let refused = imap.append("INBOX", &message()).err().context("appended to full disks")?;
    let words = format!("{refused:#}");
    ensure!(words.contains("[UNAVAILABLE] the store is full"), "{words}");
    Ok(())
}

/// Everything that does not grow is done.
fn goes_on(demo: &Demo) -> Result<()> {
    let mut imap = Imap::login(&demo.at("f1", "imap")?, USER, PASSWORD)?;
    imap.ok("SELECT INBOX")?;
    let uids = imap.uids()?;
    let (first, last) = (*uids.first().context("no mail")?, *uids.last().context("no mail")?);
    ensure!(!imap.fetch_body(last)?.is_empty(), "an empty body");
    imap.ok(&format!("UID STORE {first}:{last} +FLAGS (\\Flagged)"))?;
    imap.ok(&format!("UID STORE {first}:{last} -FLAGS (\\Flagged)"))?;
    imap.ok("CREATE Full")?;
    imap.ok(&format!("UID COPY {last} Full"))?;
    imap.ok("SELECT Full")?;
    imap.ok("UID STORE 1:* +FLAGS (\\Deleted)")?;
    imap.ok("EXPUNGE")?;
    ensure!(imap.uids()?.is_empty(), "expunged and there");
    imap.ok("SELECT INBOX")?;
    imap.ok("DELETE Full")?;
    Ok(())
}

/// The good reply, or the other one; the outer error is of the test.
fn deliver(demo: &Demo) -> Result<Result<String>> {
    let mut lmtp = Lmtp::connect(&demo.at("f1", "lmtp")?)?;
    Ok(lmtp.deliver(&[USER], &message()).and_then(|mut replies| {
        let reply = replies.remove(0);
        ensure!(reply.starts_with("250"), "{reply}");
        Ok(reply)
    }))
}

fn message() -> Vec<u8> {
    format!("Subject: full\r\n\r\n{}", "line\r\n".repeat(400)).into_bytes()
}

/// A demo whose disks can be made to suffer, and clients that work on it.
struct Stage {
    demo: Demo,
    load: Load,
    sync: FailingSync,
}

impl Stage {
    /// Lets disks suffer while clients work; then everything is whole again, and no promise was broken.
    /// The longest wait of a client, or `None` where the test is skipped.
    fn play(
        dir: &Path,
        options: &[&str],
        suffer: impl FnOnce(&Self) -> Result<()>,
    ) -> Result<Option<Duration>> {
        let Some(sync) = FailingSync::build(dir)? else { return Ok(None) };
        let options = [options, &["--no-sample-mail", "--accounts", "0"]].concat();
        let demo = Demo::start_with(&dir.join("demo"), &options, sync.env())?;
        let load = Load::begin(&demo.cluster_file(), SEED, 2, &dir.join("history.jsonl"))?;
        let stage = Self { demo, load, sync };
        let start_us = stage.load.now_us();
        let suffered = suffer(&stage).and_then(|()| stage.load.whole(WHOLE));
        stage.demo.explain(suffered)?;
        stage.load.hurt("a disk suffered".into(), start_us);
        stage.load.progress(1, WORKS)?;
        let judged = stage.load.end(WHOLE)?;
        let served = judged.availability;
        let n: usize = served.clients.values().map(|client| client.n_acknowledged).sum();
        let longest = Duration::from_micros(served.longest_us);
        println!("{n} acknowledged, longest wait {longest:.1?}");
        judged.violations.iter().for_each(|violation| println!("{violation}"));
        ensure!(judged.violations.is_empty(), "{} broken promises", judged.violations.len());
        Ok(Some(longest))
    }
}

fn said(demo: &Demo, arguments: &[&str]) -> Result<String> {
    Ok(String::from_utf8_lossy(&demo.ctl(arguments)?.stdout).into_owned())
}

fn status(demo: &Demo) -> Result<Value> {
    Ok(serde_json::from_str(&said(demo, &["cluster", "status", "--json"])?)?)
}

/// Every shard has a leader, the meta group included, and none is on this node.
fn leads_nothing(demo: &Demo, node: &str) -> Result<()> {
    let status = status(demo)?;
    for shard in status["shards"].as_array().context("no shards")? {
        let leader = shard["leader"].as_str().with_context(|| format!("no leader: {shard}"))?;
        ensure!(leader != node, "{node} still leads shard {}", shard["shard"]);
    }
    Ok(())
}

/// Ids of the replicas placed on a disk.
fn placed_on(demo: &Demo, disk: &str) -> Result<BTreeSet<u64>> {
    let status = status(demo)?;
    let shards = status["shards"].as_array().context("no shards")?;
    let all = shards.iter().filter_map(|shard| shard["replicas"].as_array()).flatten();
    let here = all.filter(|one| one["disk"] == disk);
    here.map(|one| one["replica"].as_u64().context("no id")).collect()
}

fn disk(demo: &Demo, node: &str, at: usize) -> Result<PathBuf> {
    let process = demo.process(node)?;
    process["data_dirs"][at].as_str().map(PathBuf::from).context("no such disk")
}

fn disk_id(disk: &Path) -> Result<String> {
    let text = std::fs::read_to_string(disk.join("rookery-disk.toml"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("disk_id = "));
    Ok(line.context("no id in the label")?.trim_matches('"').to_owned())
}

/// The pid of a node that runs as it was started.
fn alive(demo: &Demo, node: &str) -> Result<u64> {
    let pid = demo.process(node)?["pid"].as_u64().context("no pid")?;
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    ensure!(!line.is_empty(), "{node} is dead");
    Ok(pid)
}

fn pids(demo: &Demo) -> Result<Vec<u64>> {
    NODES.iter().map(|node| alive(demo, node)).collect()
}
