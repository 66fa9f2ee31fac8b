//! Nodes and disks are lost for good, come, are emptied and leave; every copy is made again, nothing
//! acknowledged is lost, and no UID changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::demo::Demo;
use tests::imap::Imap;
use tests::lmtp::Lmtp;
use tests::wait;

const USERS: [&str; 2] = ["u0001@example.test", "u0002@example.test"];
const PASSWORD: &str = "secret";
/// A debug build on two cores that also run the tests; the figure of the product is measured in release.
const WHOLE: Duration = Duration::from_secs(120);

/// Octets of a message with an attachment that does not compress.
const LARGE_BYTES: usize = 700_000;

#[test]
fn each_node_is_wiped_in_turn_and_every_copy_is_made_again() -> Result<()> {
    let demo = Demo::start(&["--accounts", "2", "--shards", "3"])?;
    for n in 0..6 {
        deliver(&demo.at("f1", "lmtp")?, USERS[n % 2], &large(n))?;
    }
    let before = mail(&demo)?;
    let load = Load::start(&demo)?;
    let mut replaced = BTreeSet::new();
    for node in ["n3", "n1", "n2"] {
        let old = replicas_on(&demo, node)?;
        demo.signal(node, "KILL")?;
        wipe(&demo, node, "disk1")?;
        demo.start_again(node)?;
        wait_whole(&demo)?;
        let new = replicas_on(&demo, node)?;
        ensure!(new.len() == old.len(), "{node} had {old:?} and has {new:?}");
        ensure!(new.is_disjoint(&old), "an id came back on {node}: {old:?}, {new:?}");
        replaced.extend(old);
    }
    let acknowledged = load.end()?;
    // Every disk there was is gone: what is read now was rebuilt from copies of copies.
    let after = mail(&demo)?;
    for (key, body) in &before {
        ensure!(after.get(key) == Some(body), "{key:?} is not what it was");
    }
    let (n_before, n_after) = (before.len(), after.len());
    let said = format!("{acknowledged} were acknowledged, {n_before} are {n_after} now");
    ensure!(n_after == n_before + acknowledged, "{said}");
    let left = replicas(&demo)?.into_iter().filter(|one| replaced.contains(one)).count();
    ensure!(left == 0, "{left} of the lost replicas are still placed");
    Ok(())
}

#[test]
fn one_disk_of_two_is_lost_and_the_node_serves_on() -> Result<()> {
    let demo = Demo::start(&["--accounts", "2", "--shards", "4", "--disks", "2"])?;
    let before = mail(&demo)?;
    demo.signal("n2", "TERM")?;
    wait_gone(&demo, "n2")?;
    let lost = disk_of(&demo, "n2", "disk2")?;
    wipe(&demo, "n2", "disk2")?;
    demo.start_again("n2")?;
    wait_whole(&demo)?;
    let status = status(&demo)?;
    let placed = shards(&status)?.iter().flat_map(|shard| shard["replicas"].as_array().into_iter());
    let on_lost = placed.flatten().filter(|one| one["disk"] == lost.as_str()).count();
    ensure!(on_lost == 0, "{on_lost} replicas are placed on the disk that is gone");
    ensure!(mail(&demo)? == before, "mail changed");
    Ok(())
}

#[test]
fn nodes_come_are_emptied_and_leave_and_no_client_sees_an_error() -> Result<()> {
    let demo = Demo::start(&["--accounts", "2", "--shards", "2", "--nodes", "4"])?;
    let before = mail(&demo)?;
    let load = Load::start(&demo)?;
    ok(&demo, &["node", "drain", "n1"])?;
    ensure!(replicas_on(&demo, "n1")?.is_empty(), "n1 is not empty");
    let refused = demo.ctl(&["node", "remove", "n2"])?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(!refused.status.success() && said.contains("drain it first"), "{said}");
    let refused = demo.ctl(&["node", "remove", "n22"])?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(!refused.status.success() && said.contains("no node n22; there are n1"), "{said}");
    ok(&demo, &["node", "undrain", "n1"])?;
    ok(&demo, &["node", "add", "n1"])?;
    ensure!(!replicas_on(&demo, "n1")?.is_empty(), "n1 has no share");
    let shard = ok(&demo, &["shard", "add"])?;
    ensure!(shard.contains("shard 3"), "{shard}");
    let disk = disk_of(&demo, "n2", "disk1")?;
    ok(&demo, &["disk", "retire", &disk])?;
    ensure!(replicas_on(&demo, "n2")?.is_empty(), "the retired disk is not empty");
    ok(&demo, &["node", "remove", "n2"])?;
    let acknowledged = load.end()?;
    wait_whole(&demo)?;
    let after = mail(&demo)?;
    for (key, body) in &before {
        ensure!(after.get(key) == Some(body), "{key:?} is not what it was");
    }
    let (n_before, n_after) = (before.len(), after.len());
    let said = format!("{acknowledged} were acknowledged, {n_before} are {n_after} now");
    ensure!(n_after == n_before + acknowledged, "{said}");
    // A disk that left is refused in one line.
    demo.signal("n2", "TERM")?;
    wait_gone(&demo, "n2")?;
    demo.start_again("n2")?;
    let log = demo.dir().join("n2/log");
    wait::until(WHOLE, "n2 refuses to run", || {
        let text = std::fs::read_to_string(&log)?;
        let last = text.lines().last().unwrap_or_default().to_owned();
        ensure!(last.contains("has left this cluster: empty the directory"), "{last}");
        Ok(())
    })
}

fn ok(demo: &Demo, arguments: &[&str]) -> Result<String> {
    let done = demo.ctl(arguments)?;
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    let error = String::from_utf8_lossy(&done.stderr).into_owned();
    ensure!(done.status.success(), "{arguments:?}: {said}{error}");
    Ok(said)
}

/// Deliveries that go on meanwhile; an error of any of them is an error of the test.
struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<usize>>,
}

impl Load {
    fn start(demo: &Demo) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (address, stopped) = (demo.at("f2", "lmtp")?, stop.clone());
        let thread = std::thread::spawn(move || {
            let mut session = Lmtp::connect(&address)?;
            let (mut n, mut longest) = (0, Duration::ZERO);
            while !stopped.load(Ordering::Relaxed) {
                let text = format!("Subject: load {n}\r\n\r\n{}", "meanwhile\r\n".repeat(50));
                let began = Instant::now();
                let replies = session.deliver(&[USERS[n % 2]], text.as_bytes())?;
                ensure!(replies[0].starts_with("250"), "delivery {n}: {}", replies[0]);
                longest = longest.max(began.elapsed());
                n += 1;
            }
            println!("{n} deliveries meanwhile, the longest took {longest:?}");
            Ok(n)
        });
        Ok(Self { stop, thread })
    }

    /// How many were acknowledged.
    fn end(self) -> Result<usize> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("a client panicked"))?
    }
}

/// Waits until every copy is there again, and prints how long that took.
fn wait_whole(demo: &Demo) -> Result<()> {
    let began = Instant::now();
    wait::until(WHOLE, "full redundancy", || {
        let done = demo.ctl(&["cluster", "health", "--whole"])?;
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        ensure!(done.status.success(), "{said}{}", status(demo)?["waiting"]);
        Ok(())
    })?;
    println!("full redundancy after {:?}", began.elapsed());
    Ok(())
}

fn wait_gone(demo: &Demo, name: &str) -> Result<()> {
    let pid = demo.process(name)?["pid"].as_u64().context("no pid")?;
    wait::until(Duration::from_secs(30), "process ended", || {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        ensure!(line.is_empty(), "{name} still runs");
        Ok(())
    })
}

/// A new disk in the place of an old one.
fn wipe(demo: &Demo, node: &str, disk: &str) -> Result<()> {
    let dir = demo.dir().join(node).join(disk);
    std::fs::remove_dir_all(&dir)?;
    Ok(std::fs::create_dir(&dir)?)
}

fn disk_of(demo: &Demo, node: &str, disk: &str) -> Result<String> {
    let label = demo.dir().join(node).join(disk).join("rookery-disk.toml");
    let text = std::fs::read_to_string(label)?;
    let line = text.lines().find_map(|line| line.strip_prefix("disk_id = "));
    Ok(line.context("no id in the label")?.trim_matches('"').to_owned())
}

fn status(demo: &Demo) -> Result<Value> {
    let done = demo.ctl(&["cluster", "status", "--json"])?;
    Ok(serde_json::from_slice(&done.stdout)?)
}

fn shards(status: &Value) -> Result<&Vec<Value>> {
    status["shards"].as_array().context("no shards in the status")
}

fn replicas(demo: &Demo) -> Result<BTreeSet<u64>> {
    Ok(["n1", "n2", "n3", "n4"]
        .iter()
        .map(|node| replicas_on(demo, node))
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .flatten()
        .collect())
}

/// Ids of the replicas placed on a node.
fn replicas_on(demo: &Demo, node: &str) -> Result<BTreeSet<u64>> {
    let status = status(demo)?;
    let all = shards(&status)?.iter().filter_map(|shard| shard["replicas"].as_array()).flatten();
    let here = all.filter(|one| one["node"] == node);
    here.map(|one| one["replica"].as_u64().context("no id")).collect()
}

/// All bodies by account, UIDVALIDITY and UID.
fn mail(demo: &Demo) -> Result<BTreeMap<(String, String, u32), Vec<u8>>> {
    let mut found = BTreeMap::new();
    for user in USERS {
        let mut imap = Imap::login(&demo.at("f1", "imap")?, user, PASSWORD)?;
        let said = imap.ok("EXAMINE INBOX")?;
        let validity = said.iter().find(|line| line.text.contains("UIDVALIDITY"));
        let validity = validity.context("no UIDVALIDITY")?.text.clone();
        for uid in imap.uids()? {
            found.insert((user.to_owned(), validity.clone(), uid), imap.fetch_body(uid)?);
        }
    }
    Ok(found)
}

fn deliver(address: &str, to: &str, message: &[u8]) -> Result<()> {
    let reply = Lmtp::connect(address)?.deliver(&[to], message)?.remove(0);
    ensure!(reply.starts_with("250"), "{reply}");
    Ok(())
}

/// A message of several chunks.
fn large(n: usize) -> Vec<u8> {
    let mut text = format!("Subject: large {n}\r\n\r\n").into_bytes();
    let mut x = n as u64 + 1;
    while text.len() < LARGE_BYTES {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        text.extend_from_slice(format!("{x:016x}{:016x}\r\n", x.rotate_left(17)).as_bytes());
    }
    text
}
