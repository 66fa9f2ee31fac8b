//! The failover drill: clients that keep using a mail store while it is hurt, and the judge of what
//! they saw. Enter at [`run`], or for the judge alone at [`check`]: it reads a [`History`] and names
//! every broken promise.

mod args;
mod availability;
mod check;
pub mod client;
mod cluster;
mod dice;
mod history;
mod keeper;
mod load;
mod look;
mod message;
mod progress;
mod recorder;
mod report;
mod run;
mod scenario;
mod tls;
mod watch;
mod work;

use std::fs;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use admin::cluster_file::ClusterFile;
use anyhow::{Context as _, Result, ensure};

use args::Verb;
use keeper::Keeper;
use run::Ground;

pub use args::{Drill, Options};
pub use availability::{Availability, ClientAvailability, availability};
pub use check::{Promise, Violation, check};
pub use history::{
    Copies, Event, Fault, FlagChange, History, Operation, Placed, ReadHistoryError, Record,
    ReplicaState, Reply, Target, Verdict, View, ViewedMessage,
};
pub use load::{Judged, Load};
pub use scenario::Scenario;

/// `rookery drill`, except with `--demo`: who has a demo calls [`on_cluster_file`].
pub fn run(drill: Drill) -> Result<ExitCode> {
    match &drill.verb {
        Some(Verb::Check { history }) => return check_again(history),
        Some(Verb::Watch(args)) => return watch::run(args),
        None => {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("start runtime")?.block_on(async {
        match drill.ground.cluster_file() {
            Some(file) => on_file(file, &drill.ground.domain, &drill.options).await,
            None => on_ground(&drill.ground.ground(&drill.options)?, &drill.options).await,
        }
    })
}

/// Drills the cluster of a `cluster.json`; nodes of it that die are started again.
pub async fn on_cluster_file(file: &Path, options: &Options) -> Result<ExitCode> {
    on_file(file, args::CANARY_DOMAIN, options).await
}

async fn on_file(file: &Path, domain: &str, options: &Options) -> Result<ExitCode> {
    let ground = args::of_file(&ClusterFile::read(file)?, domain)?;
    let keeper = Keeper::start(file)?;
    let done = on_ground(&ground, options).await;
    drop(keeper);
    done
}

async fn on_ground(ground: &Ground, options: &Options) -> Result<ExitCode> {
    let report = run::run(ground, options).await.context("drill")?;
    if let Some(path) = &options.json {
        fs::write(path, report.to_json()?).with_context(|| format!("write {}", path.display()))?;
    }
    if let Some(path) = &options.html {
        let page = report::page(&report);
        fs::write(path, page).with_context(|| format!("write {}", path.display()))?;
    }
    println!("\n{}", report.table());
    println!("\nseed {}: {}", report.seed, if report.passed() { "passed" } else { "FAILED" });
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn check_again(path: &Path) -> Result<ExitCode> {
    let mut files: Vec<PathBuf> = match path.is_dir() {
        false => vec![path.to_owned()],
        true => {
            let entries = fs::read_dir(path).with_context(|| format!("read {}", path.display()))?;
            let found = entries.flatten().map(|entry| entry.path());
            found.filter(|path| path.extension().is_some_and(|end| end == "jsonl")).collect()
        }
    };
    files.sort();
    ensure!(!files.is_empty(), "{} holds no history (*.jsonl)", path.display());
    let mut n_broken = 0;
    for file in files {
        let open = fs::File::open(&file).with_context(|| format!("open {}", file.display()))?;
        let history = History::read(BufReader::new(open))
            .with_context(|| format!("read {}", file.display()))?;
        let violations = check(&history);
        let n_events = history.events().count();
        println!("{}: {n_events} operations, {} broken promises", file.display(), violations.len());
        violations.iter().for_each(|violation| println!("  {violation}"));
        n_broken += violations.len();
    }
    Ok(if n_broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
