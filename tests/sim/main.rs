//! Whole clusters in one thread: real replicas on simulated disks, network and time, hurt as a seed
//! says, and a judge who knows only what clients were told.
//!
//! Enter at [`run::run`]. turmoil steps the processes, each with a runtime and a paused clock of its
//! own. Each seed runs in a process of its own, because some libraries count per process what they
//! draw from: so the same seed is the same run wherever it is run. A power cut takes what was not
//! synced from the journal, which lies in memory, and from checkpoints, which are real files; an index,
//! a cache, is lost or put back to what it once was.
//!
//! `ROOKERY_SIM_SEEDS=n` runs seeds 1 to n, and `ROOKERY_SIM_FROM=m` begins at m. One seed again,
//! with its trace, logs and history:
//! `ROOKERY_SIM_SEED=n cargo nextest run -p tests --test sim one_run --no-capture`, and with it
//! `ROOKERY_SIM_BUG`, `ROOKERY_SIM_TRACE=file`, `ROOKERY_SIM_HISTORY=file`, `ROOKERY_SIM_LOG=filter`.

mod client;
mod controller;
mod dice;
mod entropy;
mod faults;
mod frontend;
mod net;
mod node;
mod plan;
mod planted;
mod run;
mod seats;
mod shadow;
mod world;

use std::env;
use std::fs::File;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use plan::{Bug, Plan};

/// Seeds run without being asked for more: about two minutes on two cores, unoptimised.
const SEEDS: u64 = 200;
/// A planted bug shows within so many seeds.
const SEEDS_PER_BUG: u64 = 24;
/// A run takes about a second; one that takes so long on a busy machine spins.
const RUN_MAX: Duration = Duration::from_secs(240);

/// What a run in a process of its own printed.
struct Told {
    trace_hash: String,
    broken: Vec<String>,
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

/// Runs one plan here, in this process: seed 1, or the one that was asked for.
#[test]
fn one_run() {
    let bug = env::var("ROOKERY_SIM_BUG").ok();
    let bug = bug.map(|name| Bug::parse(&name).expect("a bug that can be planted"));
    let plan = Plan::of(number("ROOKERY_SIM_SEED").unwrap_or(1), bug);
    if let Ok(filter) = env::var("ROOKERY_SIM_LOG") {
        let logs = tracing_subscriber::fmt().with_env_filter(filter).without_time();
        logs.with_writer(std::io::stderr).with_ansi(false).init();
    }
    println!("PLAN {plan:?}");
    drop(std::thread::spawn(|| {
        // Why by the real clock: a process that spins never lets simulated time go on.
        std::thread::sleep(RUN_MAX);
        println!("HASH none\nBROKEN the run hangs");
        std::process::exit(1);
    }));
    let trace = env::var("ROOKERY_SIM_TRACE").ok();
    let verdict = run::run(plan, trace.is_some());
    println!("HASH {}", verdict.trace_hash);
    println!("FIGURES {}", verdict.figures);
    if let Some(path) = trace {
        std::fs::write(path, verdict.trace.join("\n")).expect("the trace can be written");
    }
    if let Ok(path) = env::var("ROOKERY_SIM_HISTORY") {
        let file = File::create(path).expect("the history can be written");
        verdict.history.write(std::io::BufWriter::new(file)).expect("the history can be written");
    }
    for line in &verdict.broken {
        println!("BROKEN {line}");
    }
    assert!(verdict.broken.is_empty(), "{} promises broken", verdict.broken.len());
}

/// Runs one plan in a process of its own.
fn run_apart(seed: u64, bug: Option<Bug>) -> Told {
    let mut command = Command::new(env::current_exe().expect("this test has a file"));
    command.args(["one_run", "--exact", "--nocapture"]).stderr(Stdio::piped());
    command.env("ROOKERY_SIM_SEED", seed.to_string());
    match bug {
        Some(bug) => command.env("ROOKERY_SIM_BUG", format!("{bug:?}")),
        None => command.env_remove("ROOKERY_SIM_BUG"),
    };
    let ended = command.output().expect("this test can be run again");
    let printed = String::from_utf8_lossy(&ended.stdout).into_owned();
    let after = |word: &str| -> Vec<String> {
        printed.lines().filter_map(|line| line.strip_prefix(word)).map(str::to_owned).collect()
    };
    let mut broken = after("BROKEN ");
    let hash = after("HASH ").pop();
    if hash.is_none() {
        broken.push(format!("the run died: {}", String::from_utf8_lossy(&ended.stderr)));
    }
    Told { trace_hash: hash.unwrap_or_default(), broken }
}

/// Does something for each seed, on all cores.
fn for_each(seeds: impl Iterator<Item = u64>, judge: impl Fn(u64) + Sync) {
    let seeds: Vec<u64> = seeds.collect();
    let next = AtomicU64::new(0);
    let n_threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..n_threads {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    judge(*seed);
                }
            });
        }
    });
}

#[test]
fn no_seed_breaks_a_promise() {
    let failures = Mutex::new(Vec::new());
    let from = number("ROOKERY_SIM_FROM").unwrap_or(1);
    for_each(from..=number("ROOKERY_SIM_SEEDS").unwrap_or(SEEDS), |seed| {
        let told = run_apart(seed, None);
        if !told.broken.is_empty() {
            let replay = format!(
                "ROOKERY_SIM_SEED={seed} cargo nextest run -p tests --test sim one_run --no-capture"
            );
            let failure = format!("{replay}\n  {}", told.broken.join("\n  "));
            // Why at once: whoever waits for the rest can begin to look.
            println!("{failure}");
            world::lock(&failures).push(failure);
        }
    });
    let failures = world::lock(&failures);
    assert!(
        failures.is_empty(),
        "{} seeds failed; again with\n{}",
        failures.len(),
        failures.join("\n")
    );
}

#[test]
fn the_same_seed_is_the_same_run() {
    let hashes = Mutex::new(Vec::new());
    for_each([2, 2, 3].into_iter(), |seed| {
        let told = run_apart(seed, None);
        world::lock(&hashes).push((seed, told.trace_hash));
    });
    let mut hashes = world::lock(&hashes);
    hashes.sort();
    assert_eq!(hashes[0], hashes[1]);
    assert_ne!(hashes[1].1, hashes[2].1);
}

/// A judge that never found anything has proven nothing.
#[test]
fn every_planted_bug_is_caught() {
    for bug in Bug::ALL {
        let caught = Mutex::new(Vec::new());
        let is_caught = |seed| {
            let found = world::lock(&caught).len();
            if found == 0 {
                let told = run_apart(seed, Some(bug));
                let names = bug.breaks();
                let fits = |line: &&String| names.iter().any(|name| line.starts_with(name));
                if let Some(line) = told.broken.iter().find(fits) {
                    world::lock(&caught).push(format!("{bug:?}, seed {seed}: {line}"));
                }
            }
        };
        for_each(1..=SEEDS_PER_BUG, is_caught);
        let caught = world::lock(&caught);
        assert!(!caught.is_empty(), "{bug:?} was not caught");
        println!("{}", caught.join("\n"));
    }
}
