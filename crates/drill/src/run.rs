//! One drill from the first canary to the verdict.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use api::fault::Fault;
use tokio::time::Instant;

use crate::args::Options;
use crate::check::{check, unread};
use crate::client::imap::Imap;
use crate::client::line::Endpoint;
use crate::cluster::Cluster;
use crate::dice::Dice;
use crate::history::{History, Record};
use crate::look::{Bodies, look};
use crate::progress::Progress;
use crate::recorder::{Done, Recorder};
use crate::report::{Report, ScenarioReport};
use crate::scenario::{Scenario, Stage};
use crate::stop::Stop;
use crate::work::{Canary, Crew, Member, Pace, Role, Site};

/// A cluster that is not whole by then before a drill is not fit for one.
const FIT_PATIENCE: Duration = Duration::from_secs(60);
/// How long the clients may take until each of them works.
const WARM_PATIENCE: Duration = Duration::from_secs(60);
/// Operations that a client got done when it counts as working.
const WARM_OPERATIONS: u64 = 3;
/// How long clients go on before a fault.
const CALM: Duration = Duration::from_secs(2);
/// A client that gets nothing done for so long when everything is whole again will not any more.
const WORK_PATIENCE: Duration = Duration::from_secs(30);
/// A cluster that is not whole by then after a fault has failed.
const WHOLE_PATIENCE: Duration = Duration::from_secs(120);
/// How long replicas may take to be level after the clients stopped.
const REST_PATIENCE: Duration = Duration::from_secs(30);
/// How often the clients are looked at while they warm up.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Limit: an expunge that a client gave up may be done between a list and what is read by it, but hardly
/// each time.
const LAST_LOOKS_MAX: usize = 3;

/// What a drill runs against.
pub(crate) struct Ground {
    pub cluster: Cluster,
    pub site: Site,
    pub domain: String,
}

/// Runs all scenarios as often as asked; their reports.
pub(crate) async fn run(
    ground: &Ground,
    options: &Options,
    seed: u64,
    stop: &Stop,
) -> Result<Report> {
    let progress = Progress::new(options.n_runs());
    progress.say("is every node fit for a drill?");
    stop.or(check_fit(&ground.cluster)).await?;
    let dir = options.histories()?;
    let mut report = Report::new(seed, dir.path().to_owned());
    let scenarios = options.scenarios();
    let rounds = (0..options.repeat).flat_map(|round| scenarios.iter().map(move |it| (round, *it)));
    for (round, scenario) in rounds {
        let run = Run { ground, options, stop, progress: &progress, scenario, round, seed };
        match run.run(dir.path()).await {
            Ok(one) => {
                progress.done(&one);
                report.scenarios.push(one);
            }
            // Why no error of the drill: what the rounds before it showed is told as well.
            Err(error) => {
                let (name, round) = (scenario.name(), round + 1);
                report.broken_off = Some(format!("{name} round {round}: {error:#}"));
                break;
            }
        }
    }
    dir.keep_if(!report.passed());
    Ok(report)
}

/// A drill that could not hurt every node, or of a cluster that is hurt already, is not begun.
async fn check_fit(cluster: &Cluster) -> Result<()> {
    let snapshot = cluster.snapshot().await;
    for node in &snapshot.placement.nodes {
        if let Err(error) = cluster.inflict(&node.name, &Fault::Probe).await {
            bail!("node {}: {error}", node.name);
        }
    }
    cluster.whole(FIT_PATIENCE).await.context("the cluster is not whole: no drill")
}

struct Run<'a> {
    ground: &'a Ground,
    options: &'a Options,
    stop: &'a Stop,
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
        // Why each time: what the one before took may not be back, and with this one's a majority be gone.
        let whole = async {
            let whole = self.ground.cluster.whole(FIT_PATIENCE).await;
            whole.context("the cluster is not whole: nothing more is hurt")
        };
        self.stop.or(whole).await?;
        let salt = u64::from(self.round) * 100 + self.scenario as u64;
        let dice = Dice::new(self.seed).fork(salt);
        let file = histories.join(format!("{name}-{round}.jsonl"));
        let recorder = Arc::new(Recorder::begin(Some(&file))?);
        // Why to its end, whoever wants it sooner: what was made has to be known to be removed.
        let canaries = self.create_canaries(&dice).await?;
        let run = self.stop.or(self.with_canaries(&canaries, &recorder, dice)).await;
        let undrained = self.ground.cluster.undrain().await;
        // Why before the error: a drill that fails leaves no accounts behind either.
        let removed = self.ground.cluster.remove_canaries(&canaries).await;
        let left = [undrained.err(), removed.err()].into_iter().flatten();
        let repair = with_left(run, left.map(|error| format!("{error:#}")).collect())?;
        let history = recorder.take_history();
        self.progress.say("judging");
        Ok(self.judge(&history, repair, file))
    }

    async fn create_canaries(&self, dice: &Dice) -> Result<Vec<Canary>> {
        let cluster = &self.ground.cluster;
        let (names, password) = name_canaries(dice, self.options.canaries, &self.ground.domain);
        let created = cluster.create_canaries(&names, &password).await;
        if created.is_err() {
            let all = names.into_iter().map(|name| Canary { name, password: password.clone() });
            // Why the result is dropped: some of them were never made.
            drop(cluster.remove_canaries(&all.collect::<Vec<_>>()).await);
        }
        created
    }

    /// A scenario that does not go well is told in words; an error is one that did not begin, as no other
    /// would.
    async fn with_canaries(
        &self,
        canaries: &[Canary],
        recorder: &Arc<Recorder>,
        dice: Dice,
    ) -> Result<Repair> {
        let mut repair = Repair::default();
        match self.rehearse(canaries, recorder, dice, &mut repair).await {
            Err(error) if repair.start_us == 0 => return Err(error),
            Err(error) => repair.trouble.push(format!("{error:#}")),
            Ok(()) => {}
        }
        Ok(repair)
    }

    /// Clients, fault, repair, rest, last looks. An error is what nothing can be done after.
    async fn rehearse(
        &self,
        canaries: &[Canary],
        recorder: &Arc<Recorder>,
        dice: Dice,
        repair: &mut Repair,
    ) -> Result<()> {
        let cluster = &self.ground.cluster;
        let shards = cluster.shards_of(canaries).await?;
        let crew = Crew::start(&self.ground.site, canaries, recorder, Pace::Slowing, &dice)?;
        repair.members.clone_from(&crew.members);
        self.progress.say("clients begin");
        warm(&crew, recorder).await?;
        tokio::time::sleep(CALM).await;
        self.progress.say("hurting");
        let began = Instant::now();
        repair.start_us = recorder.now_us();
        let mut stage = Stage { cluster, recorder, shards: &shards, dice, round: self.round };
        repair.note(stage.play(self.scenario).await);
        self.progress.say("waiting for full redundancy");
        let whole = repair.note(cluster.whole(WHOLE_PATIENCE).await);
        repair.redundancy_ms = whole.map(|()| began.elapsed().as_millis() as u64);
        let working = at_work(&crew.members, recorder, WARM_OPERATIONS, WORK_PATIENCE).await;
        repair.note(working.context("after the fault"));
        self.progress.say("clients end");
        let n_panicked = tokio::task::spawn_blocking(move || crew.stop()).await?;
        if n_panicked > 0 {
            repair.trouble.push(format!("{n_panicked} clients of the drill panicked"));
        }
        let states = repair.note(cluster.rest(REST_PATIENCE).await);
        states.into_iter().flatten().for_each(|one| recorder.record(Record::Replica(one)));
        self.progress.say("every replica verifies its copies");
        let copies = repair.note(cluster.copies(canaries, &self.ground.site.mailboxes).await);
        copies.into_iter().flatten().for_each(|one| recorder.record(Record::Copies(one)));
        self.progress.say("reading everything");
        let (site, canaries, recorder) =
            (self.ground.site.clone(), canaries.to_vec(), Arc::clone(recorder));
        let last = move || last_looks(&site, &canaries, &recorder);
        tokio::task::spawn_blocking(last).await?.context("read everything")
    }

    fn judge(&self, history: &History, repair: Repair, file: PathBuf) -> ScenarioReport {
        let (scenario, round) = (self.scenario, self.round + 1);
        let mut report = ScenarioReport::of(scenario, round, history, &repair.members);
        report.judged(check(history), unread(history));
        report.redundancy_ms = repair.redundancy_ms;
        report.fault_us = repair.start_us;
        report.history = file;
        report.trouble.extend(repair.trouble);
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

/// Names and the password of canaries that nobody has used yet. Why not from the dice alone: another drill
/// with the same seed may run at the same time, and would remove these.
pub(crate) fn name_canaries(dice: &Dice, n: u32, domain: &str) -> (Vec<String>, String) {
    // Its keys are random, and others each time.
    let mut dice = dice.fork(RandomState::new().hash_one(n));
    let id = dice.next();
    let password = format!("{:016x}", dice.next());
    ((1..=n).map(|n| format!("drill-{id:016x}-{n}@{domain}")).collect(), password)
}

/// Waits until every client works.
pub(crate) async fn warm(crew: &Crew, recorder: &Recorder) -> Result<()> {
    let warmed = at_work(&crew.members, recorder, WARM_OPERATIONS, WARM_PATIENCE).await;
    warmed.context("is its port right?")
}

/// Whether a client got so many operations more done. A store that answers reads and refuses every change
/// does not work: who is there to change something has to. The POP3 client may find no message that it may
/// take away; then none that it tried to may have stayed.
pub(crate) fn has_worked(role: Role, since: Done, now: Done, n_operations: u64) -> bool {
    let is_served = now.n_acknowledged >= since.n_acknowledged + n_operations;
    let has_changed = now.n_changed > since.n_changed;
    match role {
        Role::Sorter => now.n_changed >= since.n_changed + n_operations,
        Role::Collect => is_served && (has_changed || now.n_failed == since.n_failed),
        Role::Deliver | Role::Reader | Role::Idle => is_served,
    }
}

/// Waits until each client got so many more operations done.
pub(crate) async fn at_work(
    members: &[Member],
    recorder: &Recorder,
    n_operations: u64,
    patience: Duration,
) -> Result<()> {
    let begun: Vec<_> = members.iter().map(|one| (one, recorder.done(one.id))).collect();
    let deadline = Instant::now() + patience;
    loop {
        let idle = begun.iter().find(|(one, since)| {
            !has_worked(one.role, *since, recorder.done(one.id), n_operations)
        });
        match idle {
            None => return Ok(()),
            Some((one, _)) if Instant::now() > deadline => bail!(
                "client {} ({}) of {} gets nothing done in {patience:?}",
                one.id,
                one.role.protocol(),
                one.account
            ),
            Some(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

/// What could not be taken back after a run is told whatever came of the run.
fn with_left(run: Result<Repair>, left: Vec<String>) -> Result<Repair> {
    match run {
        Ok(mut repair) => {
            repair.trouble.extend(left);
            Ok(repair)
        }
        Err(error) if left.is_empty() => Err(error),
        Err(error) => Err(anyhow!("{error:#}; {}", left.join("; "))),
    }
}

/// What became of the clients and the cluster.
#[derive(Default)]
struct Repair {
    start_us: u64,
    redundancy_ms: Option<u64>,
    members: Vec<Member>,
    /// What did not go well.
    trouble: Vec<String>,
}

impl Repair {
    /// Keeps what went wrong; the scenario goes on.
    fn note<T>(&mut self, done: Result<T>) -> Option<T> {
        done.map_err(|error| self.trouble.push(format!("{error:#}"))).ok()
    }
}

/// Reads every message of every mailbox whole. An account that cannot be read keeps none of the others from
/// being read; the first error is told.
pub(crate) fn last_looks(site: &Site, canaries: &[Canary], recorder: &Recorder) -> Result<()> {
    let mut done = Ok(());
    for (k, canary) in canaries.iter().enumerate() {
        let endpoint = site.imap.get(k % site.imap.len().max(1)).context("no IMAP")?;
        let looked = last_looks_into(endpoint, canary, &site.mailboxes, recorder);
        done = done.and(looked.with_context(|| canary.name.clone()));
    }
    done
}

fn last_looks_into(
    endpoint: &Endpoint,
    canary: &Canary,
    mailboxes: &[String],
    recorder: &Recorder,
) -> Result<()> {
    let mut imap = Imap::open(endpoint, &canary.name, &canary.password)?;
    for mailbox in mailboxes {
        let mut view = look(&mut imap, mailbox, Bodies::All)?;
        for _ in 1..LAST_LOOKS_MAX {
            if view.messages.iter().all(|message| message.digest.is_some()) {
                break;
            }
            view = look(&mut imap, mailbox, Bodies::All)?;
        }
        let (account, mailbox) = (canary.name.clone(), mailbox.clone());
        recorder.record(Record::Final { account, mailbox, view });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Event, Operation, Reply, Verdict, View};

    fn acknowledge(recorder: &Recorder, client: u32) {
        recorder.record(Record::Event(Event {
            client,
            account: "anna".into(),
            start_us: 1,
            end_us: 2,
            operation: Operation::Read { mailbox: "INBOX".into() },
            verdict: Verdict::Acknowledged { reply: Reply::Viewed(View::default()) },
        }));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_works_no_more_is_named() {
        let recorder = Recorder::begin(None).unwrap();
        let member = |id, role| Member { id, role, account: "anna".into() };
        let members = [member(0, Role::Reader), member(1, Role::Idle)];
        // What was done before does not count.
        (0..5).for_each(|_| members.iter().for_each(|one| acknowledge(&recorder, one.id)));
        let work = async { (0..2).for_each(|_| acknowledge(&recorder, 0)) };
        let (asked, ()) =
            tokio::join!(at_work(&members, &recorder, 2, Duration::from_secs(9)), work);
        let said = asked.unwrap_err().to_string();
        assert_eq!(said, "client 1 (IDLE) of anna gets nothing done in 9s");
        let work = async { members.iter().for_each(|one| acknowledge(&recorder, one.id)) };
        let (asked, ()) =
            tokio::join!(at_work(&members, &recorder, 1, Duration::from_secs(9)), work);
        assert!(asked.is_ok());
    }

    #[test]
    fn two_drills_with_one_seed_have_canaries_of_their_own() {
        let named = || name_canaries(&Dice::new(1), 2, "drill.invalid");
        let ((names, password), (others, other)) = (named(), named());
        assert!(names.len() == 2 && names.iter().all(|name| !others.contains(name)));
        assert_ne!(password, other);
    }

    #[test]
    fn what_is_left_behind_is_told_of_a_drill_that_was_broken_off_too() {
        let left = || vec!["node n2 is left drained".to_owned(), "canaries are left".to_owned()];
        let repair = with_left(Ok(Repair::default()), left()).ok().unwrap();
        assert_eq!(repair.trouble, left());
        let stopped = || Err(anyhow!("no answer").context("stopped"));
        let said = with_left(stopped(), left()).err().unwrap();
        let want = "stopped: no answer; node n2 is left drained; canaries are left";
        assert_eq!(format!("{said:#}"), want);
        let said = with_left(stopped(), Vec::new()).err().unwrap();
        assert_eq!(format!("{said:#}"), "stopped: no answer");
    }

    #[test]
    fn a_store_that_only_answers_reads_does_not_work() {
        let recorder = Recorder::begin(None).unwrap();
        let changes = |verdict: Verdict| {
            let (mailbox, targets) = ("INBOX".into(), Vec::new());
            let expunge = Operation::Expunge { mailbox, targets };
            recorder.event((0, "anna"), 1, expunge, verdict);
        };
        let refused = || Verdict::Refused { why: "no majority".into() };
        let works = |role, since| has_worked(role, since, recorder.done(0), 2);
        let begun = recorder.done(0);
        (0..9).for_each(|_| acknowledge(&recorder, 0));
        assert!(works(Role::Reader, begun) && works(Role::Collect, begun));
        assert!(!works(Role::Sorter, begun), "it changed nothing");
        (0..3).for_each(|_| changes(refused()));
        assert!(!works(Role::Sorter, begun) && !works(Role::Collect, begun), "all was refused");
        changes(Verdict::Acknowledged { reply: Reply::Done });
        assert!(works(Role::Collect, begun) && !works(Role::Sorter, begun));
        changes(Verdict::Acknowledged { reply: Reply::Done });
        assert!(works(Role::Sorter, begun));
    }
}
