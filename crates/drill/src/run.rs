//! One drill from the first canary to the verdict.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use api::fault::Fault;
use tokio::time::Instant;

use crate::args::Options;
use crate::check::check;
use crate::cluster::Cluster;
use crate::dice::Dice;
use crate::history::{History, Record};
use crate::look::{Bodies, look};
use crate::progress::Progress;
use crate::recorder::Recorder;
use crate::report::{Report, ScenarioReport};
use crate::scenario::{Scenario, Stage};
use crate::work::{Canary, Crew, Member, Site};

/// A cluster that is not whole by then before a drill is not fit for one.
const FIT_PATIENCE: Duration = Duration::from_secs(60);
/// How long the clients may take until each of them works.
const WARM_PATIENCE: Duration = Duration::from_secs(60);
/// Acknowledged operations after which a client counts as working.
const WARM_OPERATIONS: u64 = 3;
/// How long clients go on before a fault, and after everything is whole again.
const CALM: Duration = Duration::from_secs(2);
/// A cluster that is not whole by then after a fault has failed.
const WHOLE_PATIENCE: Duration = Duration::from_secs(120);
/// How long replicas may take to be level after the clients stopped.
const REST_PATIENCE: Duration = Duration::from_secs(30);
/// How often the clients are looked at while they warm up.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What a drill runs against.
pub(crate) struct Ground {
    pub cluster: Cluster,
    pub site: Site,
    pub domain: String,
}

/// Runs all scenarios as often as asked; their reports.
pub(crate) async fn run(ground: &Ground, options: &Options) -> Result<Report> {
    let progress = Progress::new(options.n_runs());
    progress.say("is every node fit for a drill?");
    check_allowed(&ground.cluster).await?;
    ground.cluster.whole(FIT_PATIENCE).await.context("the cluster is not whole: no drill")?;
    let seed = options.random_seed();
    let dir = options.histories()?;
    let mut report = Report::new(seed, dir.path().to_owned());
    for round in 0..options.repeat {
        for scenario in options.scenarios() {
            let run = Run { ground, options, progress: &progress, scenario, round, seed };
            let one = run.run(dir.path()).await?;
            progress.done(&one);
            report.scenarios.push(one);
        }
    }
    dir.keep_if(!report.passed());
    Ok(report)
}

/// A drill that could not hurt every node is not begun.
async fn check_allowed(cluster: &Cluster) -> Result<()> {
    let snapshot = cluster.snapshot().await;
    for node in &snapshot.placement.nodes {
        if let Err(error) = cluster.inflict(&node.name, &Fault::Probe).await {
            bail!("node {}: {error}", node.name);
        }
    }
    Ok(())
}

struct Run<'a> {
    ground: &'a Ground,
    options: &'a Options,
    progress: &'a Progress,
    scenario: Scenario,
    /// Counted from 0.
    round: u32,
    seed: u64,
}

impl Run<'_> {
    async fn run(&self, histories: &Path) -> Result<ScenarioReport> {
        let (name, round) = (self.scenario.name(), self.round + 1);
        self.progress.begin(self.scenario, round);
        let salt = u64::from(self.round) * 100 + self.scenario as u64;
        let dice = Dice::new(self.seed).fork(salt);
        let file = histories.join(format!("{name}-{round}.jsonl"));
        let recorder = Arc::new(Recorder::begin(Some(&file))?);
        let canaries = self.create_canaries(&dice).await?;
        let run = tokio::select! {
            run = self.with_canaries(&canaries, &recorder, dice) => run,
            stopped = stopped() => stopped.and_then(|()| bail!("stopped; no verdict")),
        };
        // Why before the error: a drill that fails leaves no accounts behind either.
        let removed = self.ground.cluster.remove_canaries(&canaries).await;
        let (members, redundancy) = run?;
        removed?;
        let history = recorder.history();
        self.progress.say("judging");
        Ok(self.judge(&history, &members, redundancy, file))
    }

    async fn create_canaries(&self, dice: &Dice) -> Result<Vec<Canary>> {
        let (names, password) = name_canaries(dice, self.options.canaries, &self.ground.domain);
        self.ground.cluster.create_canaries(&names, &password).await
    }

    /// Clients, fault, repair, rest, last looks. A scenario that does not go well is told in words.
    async fn with_canaries(
        &self,
        canaries: &[Canary],
        recorder: &Arc<Recorder>,
        dice: Dice,
    ) -> Result<(Vec<Member>, Repair)> {
        let cluster = &self.ground.cluster;
        let shards = cluster.shards_of(canaries).await?;
        let crew = Crew::start(&self.ground.site, canaries, recorder, &dice)?;
        self.progress.say("clients begin");
        warm(&crew, recorder).await?;
        tokio::time::sleep(CALM).await;
        self.progress.say("hurting");
        let (start_us, began) = (recorder.now_us(), Instant::now());
        let mut stage = Stage { cluster, recorder, shards: &shards, dice, round: self.round };
        let mut repair = Repair { start_us, ..Repair::default() };
        repair.played = stage.play(self.scenario).await.map_err(|error| format!("{error:#}")).err();
        self.progress.say("waiting for full redundancy");
        match cluster.whole(WHOLE_PATIENCE).await {
            Ok(()) => repair.redundancy_ms = Some(began.elapsed().as_millis() as u64),
            Err(error) => repair.not_whole = Some(format!("{error:#}")),
        }
        tokio::time::sleep(CALM).await;
        self.progress.say("clients end");
        let members = tokio::task::spawn_blocking(move || crew.stop()).await?;
        match cluster.rest(REST_PATIENCE).await {
            Ok(states) => {
                states.into_iter().for_each(|state| recorder.record(Record::Replica(state)));
            }
            Err(error) => repair.not_level = Some(format!("{error:#}")),
        }
        self.progress.say("every replica verifies its copies");
        match cluster.copies(canaries, &self.ground.site.mailboxes).await {
            Ok(copies) => {
                copies.into_iter().for_each(|one| recorder.record(Record::Copies(one)));
            }
            Err(error) => repair.not_verified = Some(format!("{error:#}")),
        }
        self.progress.say("reading everything");
        let (site, canaries, recorder) =
            (self.ground.site.clone(), canaries.to_vec(), Arc::clone(recorder));
        let last = move || last_looks(&site, &canaries, &recorder);
        tokio::task::spawn_blocking(last).await?.context("read everything")?;
        Ok((members, repair))
    }

    fn judge(
        &self,
        history: &History,
        members: &[Member],
        repair: Repair,
        file: PathBuf,
    ) -> ScenarioReport {
        let mut report = ScenarioReport::of(self.scenario, self.round + 1, history, members);
        report.judged(check(history));
        report.redundancy_ms = repair.redundancy_ms;
        report.fault_us = repair.start_us;
        report.history = file;
        let Repair { played, not_whole, not_level, not_verified, .. } = repair;
        report.trouble =
            [played, not_whole, not_level, not_verified].into_iter().flatten().collect();
        if self.scenario.keeps_connections() && report.n_disconnects > 0 {
            let n = report.n_disconnects;
            report.trouble.push(format!("{n} connections were lost, none may be"));
        }
        let longest = Duration::from_micros(report.unavailable.max_us);
        if let Some(most) = self.options.max_outage.filter(|most| longest > *most) {
            report.trouble.push(format!("a client waited {longest:.0?}, {most:?} is allowed"));
        }
        report
    }
}

/// Names and the password of canaries that nobody has used yet.
pub(crate) fn name_canaries(dice: &Dice, n: u32, domain: &str) -> (Vec<String>, String) {
    let mut dice = dice.fork(u64::from(std::process::id()));
    let id = dice.next() as u32;
    let password = format!("{:016x}", dice.next());
    ((1..=n).map(|n| format!("drill-{id:08x}-{n}@{domain}")).collect(), password)
}

/// Waits until every client works.
pub(crate) async fn warm(crew: &Crew, recorder: &Recorder) -> Result<()> {
    let deadline = Instant::now() + WARM_PATIENCE;
    loop {
        let cold = crew.members.iter().find(|one| recorder.acknowledged(one.id) < WARM_OPERATIONS);
        match cold {
            None => return Ok(()),
            Some(cold) if Instant::now() > deadline => bail!(
                "client {} ({}) of {} gets nothing done: is its port right?",
                cold.id,
                cold.role.protocol(),
                cold.account
            ),
            Some(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

/// Completes at Ctrl-C or SIGTERM: the canaries are removed before the drill ends.
async fn stopped() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// What became of the cluster.
#[derive(Default)]
struct Repair {
    start_us: u64,
    redundancy_ms: Option<u64>,
    played: Option<String>,
    not_whole: Option<String>,
    not_level: Option<String>,
    not_verified: Option<String>,
}

/// Reads every message of every mailbox whole.
pub(crate) fn last_looks(site: &Site, canaries: &[Canary], recorder: &Recorder) -> Result<()> {
    for (k, canary) in canaries.iter().enumerate() {
        let endpoint = site.imap.get(k % site.imap.len().max(1)).context("no IMAP")?;
        let mut imap = crate::client::imap::Imap::open(endpoint, &canary.name, &canary.password)?;
        for mailbox in &site.mailboxes {
            let view = look(&mut imap, mailbox, Bodies::All)?;
            let (account, mailbox) = (canary.name.clone(), mailbox.clone());
            recorder.record(Record::Final { account, mailbox, view });
        }
    }
    Ok(())
}
