//! A disk comes back as it was earlier in the same run, after every process was killed: no count of
//! starts and no peer tells, only what the cluster noted of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::demo::Demo;
use tests::imap::Imap;
use tests::lmtp::Lmtp;
use tests::{http, wait};

const USER: &str = "u0001@example.test";
const PASSWORD: &str = "secret";
const NODES: [&str; 3] = ["n1", "n2", "n3"];
/// A debug build on two cores that also run the tests.
const WHOLE: Duration = Duration::from_secs(120);
/// Disks are noted every ten seconds, from reports of each second.
const NOTED: Duration = Duration::from_secs(30);
/// A node that stops has said how much it has before it is gone; less than the time between two notes.
const AT_ONCE: Duration = Duration::from_secs(5);

#[test]
fn a_disk_put_back_to_an_earlier_hour_of_its_run_is_refused_and_made_anew() -> Result<()> {
    let demo = Demo::start(&["--accounts", "1", "--shards", "2"])?;
    let mut told = Vec::new();
    deliver(&demo, &mut told, 5)?;
    let disk = disk_of(&demo, "n2")?;
    let (home, image) = (demo.dir().join("n2/disk1"), demo.dir().join("image"));
    // Stopped, so that what is copied is one moment.
    demo.signal("n2", "STOP")?;
    let copied = copy(&home, &image);
    demo.signal("n2", "CONT")?;
    copied?;
    deliver(&demo, &mut told, 20)?;
    let written = figure(&demo, "n2", "rookery_journal_batches_total", &disk)?;
    wait_marked(&demo, (&disk, written), NOTED)?;
    for node in NODES {
        demo.signal(node, "KILL")?;
    }
    std::fs::remove_dir_all(&home)?;
    copy(&image, &home)?;
    for node in NODES {
        demo.start_again(node)?;
    }
    refused(&demo, &disk, 1)?;
    // Neither does it get through by being started often.
    demo.start_again("n2")?;
    refused(&demo, &disk, 2)?;
    wait::until(WHOLE, "the others serve", || deliver(&demo, &mut told, 1))?;
    said_of_n2(&demo)?;
    let old = replicas_on(&demo, "n2")?;
    std::fs::remove_dir_all(&home)?;
    std::fs::create_dir(&home)?;
    demo.start_again("n2")?;
    wait_whole(&demo)?;
    let new = replicas_on(&demo, "n2")?;
    ensure!(new.len() == old.len() && new.is_disjoint(&old), "n2 had {old:?} and has {new:?}");
    check(&demo, &told)?;
    ensure!(disk_of(&demo, "n2")? != disk, "the disk has its old identity");
    says_its_last_word(&demo)
}

/// The log of n2 says in one line, for each time it was started, why it does not run.
fn refused(demo: &Demo, disk: &str, n_times: usize) -> Result<()> {
    let (begin, end) = (format!("disk {disk} was rolled back: "), "batches written, now ");
    wait::until(WHOLE, "n2 refuses to run", || {
        let log = std::fs::read_to_string(demo.dir().join("n2/log"))?;
        let lines: Vec<&str> = log.lines().filter(|line| line.contains("node stops")).collect();
        let is_clear = |line: &&&str| line.contains(&begin) && line.contains(end);
        let n_clear = lines.iter().filter(is_clear).count();
        ensure!(n_clear == n_times && lines.len() == n_times, "{lines:?}");
        let why = |line: &str| line.split_once(&begin).map(|(_, why)| why.to_owned());
        ensure!(lines.iter().all(|line| why(line) == why(lines[0])), "it grew: {lines:?}");
        let pid = demo.process("n2")?["pid"].as_u64().context("no pid")?;
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        ensure!(line.is_empty(), "n2 still runs");
        println!("{}", lines[n_times - 1]);
        Ok(())
    })
}

/// An operator sees that the node is away.
fn said_of_n2(demo: &Demo) -> Result<()> {
    wait::until(WHOLE, "n2 is seen to be away", || {
        let said = demo.ctl(&["cluster", "status"])?;
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        let line = said.lines().find(|line| line.contains("n2") && line.contains("away"));
        line.map(drop).context(said.clone())
    })
}

/// What a node that is told to stop has is noted before it is gone.
fn says_its_last_word(demo: &Demo) -> Result<()> {
    deliver(demo, &mut Vec::new(), 5)?;
    let disk = disk_of(demo, "n2")?;
    let written = figure(demo, "n2", "rookery_journal_batches_total", &disk)?;
    let pid = demo.process("n2")?["pid"].as_u64().context("no pid")?;
    let began = Instant::now();
    demo.signal("n2", "TERM")?;
    wait::until(WHOLE, "n2 ended", || {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        ensure!(line.is_empty(), "n2 still runs");
        Ok(())
    })?;
    println!("n2 ended after {:?}", began.elapsed());
    wait_marked(demo, (&disk, written), AT_ONCE)
}

/// Waits until the cluster has noted that a disk has so many batches.
fn wait_marked(demo: &Demo, (disk, batches): (&str, u64), patience: Duration) -> Result<()> {
    let began = Instant::now();
    wait::until(patience, "what the disk has is noted", || {
        let marked = figure(demo, "n1", "rookery_disk_marked_batches", disk)?;
        ensure!(marked >= batches, "{marked} of {batches} batches are noted");
        Ok(())
    })?;
    println!("noted after {:?}", began.elapsed());
    Ok(())
}

fn figure(demo: &Demo, node: &str, name: &str, disk: &str) -> Result<u64> {
    http::metric(demo, &[node], &format!("{name}{{disk=\"{disk}\"}}"))
}

fn wait_whole(demo: &Demo) -> Result<()> {
    wait::until(WHOLE, "full redundancy", || {
        let done = demo.ctl(&["cluster", "health", "--whole"])?;
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        ensure!(done.status.success(), "{said}");
        Ok(())
    })
}

fn disk_of(demo: &Demo, node: &str) -> Result<String> {
    let label = demo.dir().join(node).join("disk1/rookery-disk.toml");
    let text = std::fs::read_to_string(label)?;
    let line = text.lines().find_map(|line| line.strip_prefix("disk_id = "));
    Ok(line.context("no id in the label")?.trim_matches('"').to_owned())
}

/// Ids of the replicas placed on a node.
fn replicas_on(demo: &Demo, node: &str) -> Result<BTreeSet<u64>> {
    let done = demo.ctl(&["cluster", "status", "--json"])?;
    let status: Value = serde_json::from_slice(&done.stdout)?;
    let shards = status["shards"].as_array().context("no shards in the status")?;
    let all = shards.iter().filter_map(|shard| shard["replicas"].as_array()).flatten();
    let here = all.filter(|one| one["node"] == node);
    here.map(|one| one["replica"].as_u64().context("no id")).collect()
}

/// Delivers some messages, each with a text of its own; notes what was acknowledged.
fn deliver(demo: &Demo, told: &mut Vec<String>, n: usize) -> Result<()> {
    let mut lmtp = Lmtp::connect(&demo.at("f1", "lmtp")?)?;
    for _ in 0..n {
        let word = format!("number-{}-of-this-test", told.len());
        let message = format!("From: a@example.test\r\nSubject: {word}\r\n\r\nbody\r\n");
        let reply = lmtp.deliver(&[USER], message.as_bytes())?.remove(0);
        ensure!(reply.starts_with("250"), "{reply}");
        told.push(word);
    }
    Ok(())
}

/// Everything acknowledged is there, once.
fn check(demo: &Demo, told: &[String]) -> Result<()> {
    let mut imap = Imap::login(&demo.at("f1", "imap")?, USER, PASSWORD)?;
    imap.ok("EXAMINE INBOX")?;
    let mut found: BTreeMap<&str, usize> = told.iter().map(|word| (word.as_str(), 0)).collect();
    for uid in imap.uids()? {
        let body = String::from_utf8_lossy(&imap.fetch_body(uid)?).into_owned();
        let subject = body.lines().find_map(|line| line.strip_prefix("Subject: "));
        if let Some(n) = subject.and_then(|subject| found.get_mut(subject)) {
            *n += 1;
        }
    }
    let wrong: Vec<_> = found.iter().filter(|(_, n)| **n != 1).collect();
    ensure!(wrong.is_empty(), "not there exactly once: {wrong:?}");
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
