//! Wires between one frontend and one node are cut, and all others are whole: whoever came to that frontend
//! is served on, and nobody else hears of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::demo::Demo;
use tests::imap::Imap;
use tests::inside;
use tests::lmtp::Lmtp;
use tests::wait;
use tests::wires::Wires;

const PASSWORD: &str = "secret";
/// So many that each of three shards has some of them but once in some sixty thousand runs.
const N_USERS: usize = 30;
/// A debug build on two cores.
const WORKS: Duration = Duration::from_secs(60);
/// Until a connection counts as broken, a leader is not looked for any more, and another node is asked; less
/// than a client's command may take.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Once another node is asked nobody waits for anything.
const SERVED_WITHIN: Duration = Duration::from_secs(5);
const ROUNDS: usize = 3;

fn user(k: usize) -> String {
    format!("u{:04}@example.test", k + 1)
}

#[test]
fn frontends_cut_off_from_a_leader_each_serve_on() -> Result<()> {
    let test = "cut_off::frontends_cut_off_from_a_leader_each_serve_on";
    let Some(dir) = inside::enter(test)? else { return Ok(()) };
    let Some(wires) = Wires::whole() else { return Ok(()) };
    let accounts = N_USERS.to_string();
    let usual = ["--spread-addresses", "--no-sample-mail", "--shards", "3"];
    let options = [&usual[..], &["--accounts", &accounts]].concat();
    let demo = Demo::start_in(&dir.join("demo"), &options)?;
    demo.explain(play(&demo, &wires))
}

fn play(demo: &Demo, wires: &Wires) -> Result<()> {
    // So it stays: each node leads where it is preferred.
    let before = wait::until(WORKS, "each node leads a shard", || {
        let leaders = leaders(demo)?;
        let nodes: BTreeSet<&String> = leaders.values().collect();
        ensure!(nodes.len() == 3, "{leaders:?}");
        Ok(leaders)
    })?;
    let nodes: BTreeSet<&String> = before.values().collect();
    // Open before, and open afterwards.
    let mut sessions = Vec::new();
    for k in 0..N_USERS {
        let mut imap = Imap::login(&demo.at("f1", "imap")?, &user(k), PASSWORD)?;
        imap.append("INBOX", b"Subject: early\r\n\r\nearly\r\n")?;
        imap.ok("SELECT INBOX")?;
        sessions.push(imap);
    }
    for (frontend, node) in ["f1", "f2"].into_iter().zip(nodes) {
        let (frontend, node) = (address(demo, frontend)?, address(demo, node)?);
        wires.cut(&frontend, &node)?;
        wires.cut(&node, &frontend)?;
    }
    let began = Instant::now();
    for (k, imap) in sessions.iter_mut().enumerate() {
        let stored = imap.ok("UID STORE 1 +FLAGS (\\Flagged)");
        stored.with_context(|| format!("{} after {:.1?}", user(k), began.elapsed()))?;
    }
    ensure!(began.elapsed() < PAUSE_MAX, "sessions stood still for {:.1?}", began.elapsed());
    for frontend in ["f1", "f2"] {
        wait::until(WORKS, "mail for everybody", || deliver(demo, frontend, "first"))?;
    }
    for round in 0..ROUNDS {
        for frontend in ["f1", "f2"] {
            let began = Instant::now();
            deliver(demo, frontend, &format!("round {round}")).context(frontend)?;
            ensure!(began.elapsed() < SERVED_WITHIN, "{frontend} took {:.1?}", began.elapsed());
        }
    }
    let now = leaders(demo)?;
    ensure!(now == before, "leaders were {before:?} and are {now:?}");
    for frontend in ["f1", "f2"] {
        let log = std::fs::read_to_string(demo.dir().join(frontend).join("log"))?;
        let is_said = log.contains("node is reached through another one");
        ensure!(is_said, "{frontend} says nothing of it");
    }
    let n_vanished = wires.mend()?;
    println!("{n_vanished} packets vanished");
    deliver(demo, "f1", "whole again")?;
    for imap in &mut sessions {
        imap.ok("NOOP")?;
        imap.ok("LOGOUT")?;
    }
    Ok(())
}

/// To each user in a transaction of its own.
fn deliver(demo: &Demo, frontend: &str, what: &str) -> Result<()> {
    let mut lmtp = Lmtp::connect(&demo.at(frontend, "lmtp")?)?;
    let text = format!("Subject: {what}\r\n\r\n{what}\r\n");
    for k in 0..N_USERS {
        let replies = lmtp.transaction(&[&user(k)], text.as_bytes())?;
        ensure!(replies.iter().all(|reply| reply.starts_with("250")), "{}: {replies:?}", user(k));
    }
    Ok(())
}

/// Who leads each data shard.
fn leaders(demo: &Demo) -> Result<BTreeMap<u64, String>> {
    let done = demo.ctl(&["cluster", "status", "--json"])?;
    let status: Value = serde_json::from_slice(&done.stdout)?;
    let shards = status["shards"].as_array().context("no shards in the status")?;
    let mut leaders = BTreeMap::new();
    for shard in shards {
        let id = shard["shard"].as_u64().context("no id of a shard")?;
        if id != 0 {
            leaders.insert(id, shard["leader"].as_str().context("no leader")?.to_owned());
        }
    }
    Ok(leaders)
}

fn address(demo: &Demo, process: &str) -> Result<String> {
    let process = demo.process(process)?;
    process["address"].as_str().map(str::to_owned).context("no address")
}
