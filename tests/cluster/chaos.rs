//! Processes die and stand still, wires are cut, disks are wiped, rot, fill up and lose power, while
//! clients work; what they saw is judged as in a drill.
//!
//! `ROOKERY_CHAOS=N` does N faults instead of the few of every run, `ROOKERY_CHAOS_SEED` chooses others,
//! `ROOKERY_CHAOS_ONLY=rot,wipe` takes only those, and `ROOKERY_CHAOS_HISTORY=FILE` keeps what clients saw.

mod faults;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use drill::{Load, Promise, Violation};
use tests::demo::Demo;
use tests::failing_sync::FailingSync;
use tests::inside;
use tests::volume::Volume;
use tests::wires::Wires;

use faults::{Fault, Field, NODES};

/// Faults of every run, in this order; each kind of machinery once.
const USUAL: [Fault; 6] = [
    Fault::CutOneWay,
    Fault::PowerOfOne,
    Fault::Pause,
    Fault::Rot,
    Fault::CutPair,
    Fault::PowerOfAll,
];
/// The same seed hurts the same way.
const SEED: u64 = 11;
/// Growth is refused below 1 GiB; so much is left above it.
const DISK_BYTES: u64 = 1600 << 20;
/// A debug build on two cores that also run the clients.
const WHOLE: Duration = Duration::from_secs(120);
const WORKS: Duration = Duration::from_secs(60);

#[test]
fn processes_wires_and_disks_fail_and_every_promise_is_kept() -> Result<()> {
    let test = "chaos::processes_wires_and_disks_fail_and_every_promise_is_kept";
    let Some(dir) = inside::enter(test)? else { return Ok(()) };
    let disks = Volume::make_for(&dir, &NODES, DISK_BYTES)?.unwrap_or_default();
    let wires = Wires::whole();
    let seed = number("ROOKERY_CHAOS_SEED").unwrap_or(SEED);
    let history = match std::env::var_os("ROOKERY_CHAOS_HISTORY") {
        Some(path) => path.into(),
        None => dir.join("history.jsonl"),
    };
    let demo = Demo::start_in(&dir.join("demo"), &options(&dir.join("disks")))?;
    let load = Load::begin(&demo.cluster_file(), seed, 2, &history)?;
    let mut field = Field::new(&demo, &load, disks, wires, seed);
    demo.explain(rounds(&mut field, &load))?;
    let began = Instant::now();
    let judged = demo.explain(load.end(WHOLE)).context("end")?;
    let served = judged.availability;
    let n: usize = served.clients.values().map(|client| client.n_acknowledged).sum();
    let longest = Duration::from_micros(served.longest_us);
    println!("judged in {:.1?}: {n} acknowledged, longest wait {longest:.1?}", began.elapsed());
    judged.violations.iter().for_each(|violation| println!("{violation}"));
    ensure!(judged.violations.is_empty(), "{} broken promises", judged.violations.len());
    Ok(())
}

/// The power cut takes what was not synced, and the judge sees it: without that the other test says little.
#[test]
fn disks_that_lie_about_syncs_are_found_out_when_power_fails() -> Result<()> {
    let test = "chaos::disks_that_lie_about_syncs_are_found_out_when_power_fails";
    let Some(dir) = inside::enter(test)? else { return Ok(()) };
    let Some(disks) = Volume::make_for(&dir, &NODES, DISK_BYTES)? else { return Ok(()) };
    let Some(sync) = FailingSync::build(&dir)? else { return Ok(()) };
    let disks_in = dir.join("disks");
    let demo = Demo::start_with(&dir.join("demo"), &options(&disks_in), sync.env())?;
    let load = Load::begin(&demo.cluster_file(), SEED, 2, &dir.join("history.jsonl"))?;
    sync.lie(&disks_in)?;
    // What there is now stays: the accounts, above all.
    disks.iter().try_for_each(Volume::sync)?;
    load.progress(5, WORKS)?;
    let mut field = Field::new(&demo, &load, disks, None, SEED);
    field.play(Fault::PowerOfAll)?;
    sync.heal()?;
    demo.explain(load.whole(WHOLE))?;
    let judged = demo.explain(load.end(WHOLE))?;
    let lost = |found: &&Violation| found.promise == Promise::NothingLost;
    let n_lost = judged.violations.iter().filter(lost).count();
    println!("{n_lost} losses found");
    ensure!(n_lost > 0, "nothing was synced, and nothing is missed: {:?}", judged.violations);
    Ok(())
}

fn rounds(field: &mut Field<'_>, load: &Load) -> Result<()> {
    for fault in chosen(field)? {
        let began = Instant::now();
        let start_us = load.now_us();
        let what = field.play(fault).with_context(|| format!("{fault:?}"))?;
        let Some(what) = what else { continue };
        load.hurt(what.clone(), start_us);
        let hurt = began.elapsed();
        load.whole(WHOLE).with_context(|| format!("whole after {fault:?}: {what}"))?;
        load.progress(1, WORKS).with_context(|| format!("work after {fault:?}: {what}"))?;
        println!("{what}: {hurt:.1?}, whole after {:.1?}", began.elapsed());
    }
    Ok(())
}

fn chosen(field: &mut Field<'_>) -> Result<Vec<Fault>> {
    let only = std::env::var("ROOKERY_CHAOS_ONLY").unwrap_or_default();
    let mut kinds = Vec::new();
    for name in only.split(',').filter(|name| !name.is_empty()) {
        match Fault::ALL.iter().find(|fault| format!("{fault:?}").eq_ignore_ascii_case(name)) {
            Some(fault) => kinds.push(*fault),
            None => bail!("no fault {name}: one of {:?}", Fault::ALL),
        }
    }
    let n = number("ROOKERY_CHAOS");
    Ok(match (n, kinds.is_empty()) {
        (None, true) => USUAL.to_vec(),
        (None, false) => kinds,
        (Some(n), true) => (0..n).map(|_| field.draw(&Fault::ALL)).collect(),
        (Some(n), false) => (0..n).map(|_| field.draw(&kinds)).collect(),
    })
}

fn options(disks_in: &Path) -> Vec<&str> {
    let options = ["--spread-addresses", "--no-sample-mail", "--accounts", "0", "--shards", "3"];
    let disks_in = ["--disks-in", disks_in.to_str().unwrap_or_default()];
    [&options[..], &disks_in].concat()
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
