//! One run, from the plan to the verdict.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use drill::{History, Record};
use tokio::sync::Notify;
use turmoil::Sim;

use crate::client::{Account, Client};
use crate::controller;
use crate::dice::Dice;
use crate::entropy;
use crate::faults::Faults;
use crate::frontend::Frontend;
use crate::node;
use crate::plan::{Mode, Plan};
use crate::shadow;
use crate::world::World;

/// A healthy majority serves clients within this time.
const PROGRESS_MS: u64 = 10_000;
/// A change of members ends within this time when a majority is well.
const CHANGE_MS: u64 = 15_000;
/// After the last fault all replicas are equal within this time.
const CONVERGE_MS: u64 = 20_000;
/// Clients whose time is over end, and a last look is taken, within this time.
const END_MS: u64 = 20_000;
/// A cluster without faults forms, and answers its first clients, within this time.
const FORM_MS: u64 = 10_000;

/// What came of a run.
#[derive(Debug)]
pub struct Verdict {
    /// Broken promises, and everything else that must not be.
    pub broken: Vec<String>,
    pub trace_hash: String,
    pub trace: Vec<String>,
    pub history: History,
    pub figures: String,
}

/// Runs a plan on a thread of its own, all of whose randomness comes from the seed.
pub fn run(plan: Plan, keep_trace: bool) -> Verdict {
    let running = std::thread::Builder::new().name("simulation".into()).spawn(move || {
        entropy::seed(plan.seed);
        let dir = temporary_dir();
        shadow::watch(dir.path());
        drive(plan, dir.path(), keep_trace)
    });
    running.expect("a thread").join().expect("the simulation itself does not panic")
}

/// In memory where there is such a place: nobody waits for a real disk.
fn temporary_dir() -> tempfile::TempDir {
    let in_memory = tempfile::tempdir_in("/dev/shm");
    in_memory.or_else(|_| tempfile::tempdir()).expect("a temporary directory")
}

/// What the frontends are told, and what they tell.
#[derive(Default)]
struct Phase {
    clients_done: AtomicBool,
    look: Notify,
    looked: AtomicBool,
}

struct Driver<'a> {
    world: Arc<World>,
    sim: Sim<'a>,
    n_steps: u64,
}

impl Driver<'_> {
    /// One millisecond. False if a process gave up, which none may.
    fn step(&mut self) -> bool {
        self.world.advance(self.n_steps);
        let world = &self.world;
        world.net.deliver(self.n_steps, |line| world.trace(line));
        self.n_steps += 1;
        match self.sim.step() {
            Ok(_) => true,
            Err(error) => {
                self.world.complain(format!("a process ended: {error}"));
                false
            }
        }
    }

    /// Steps until something holds; complains if that takes too long.
    fn until(&mut self, ms: u64, what: &str, mut holds: impl FnMut(&Self) -> bool) -> bool {
        let deadline = self.n_steps + ms;
        while !holds(self) {
            if self.n_steps >= deadline {
                self.world.complain(format!("not within {ms} ms: {what}"));
                return false;
            }
            if !self.step() {
                return false;
            }
        }
        true
    }
}

fn drive(plan: Plan, dir: &Path, keep_trace: bool) -> Verdict {
    let dice = Dice::new(plan.seed);
    let world = World::new(plan.clone(), &dice, keep_trace);
    let mut builder = turmoil::Builder::new();
    builder
        .tick_duration(Duration::from_millis(1))
        .simulation_duration(Duration::from_secs(3600))
        .rng_seed(plan.seed);
    let mut sim = builder.build();
    for name in plan.nodes() {
        world.add_machine(&name, dir.join(&name));
        let (world, dice, name_of) = (world.clone(), dice.fork(), name.clone());
        sim.host(name, move || node::run(world.clone(), name_of.clone(), dice.fork()));
    }
    take_seats(&world);
    sim.client("ctl", controller::run(world.clone(), dice.fork()));
    let phases: Vec<Arc<Phase>> = plan.frontends().iter().map(|_| Arc::default()).collect();
    for (n, name) in plan.frontends().into_iter().enumerate() {
        let (world, dice, phase) = (world.clone(), dice.fork(), phases[n].clone());
        sim.client(name.clone(), frontend(world, name, n, dice, phase));
    }
    let faults = Faults::new(world.clone(), dice.fork());
    let mut driver = Driver { world: world.clone(), sim, n_steps: 0 };
    play(&mut driver, faults, &phases);
    world.forget_processes();
    drop(driver);
    verdict(&world)
}

/// Each shard's first replicas, on nodes in turn.
fn take_seats(world: &World) {
    let nodes = world.plan.nodes();
    for shard in world.plan.shards() {
        for n in 0..world.plan.n_voters {
            world.add_seat(shard, &nodes[(shard.0 as usize + n) % nodes.len()]);
        }
    }
}

/// The acts of a run; it ends early when it makes no sense to go on, after a complaint.
fn play(driver: &mut Driver<'_>, mut faults: Faults, phases: &[Arc<Phase>]) {
    let plan = driver.world.plan.clone();
    let served = |driver: &Driver<'_>| driver.world.clients_served_since(0) > 0;
    if !driver.until(FORM_MS, "the first client is served", served) {
        return;
    }
    while driver.n_steps < plan.busy_ms {
        faults.step(&mut driver.sim);
        if !driver.step() {
            return;
        }
    }
    let changed = |driver: &Driver<'_>| driver.world.seats(|seats| seats.n_open()) == 0;
    let change = "members are changed and whole";
    if plan.mode == Mode::Liveness {
        faults.end(&mut driver.sim);
        // Why whole: who misses bodies counts as failed.
        let is_ready = |driver: &Driver<'_>| changed(driver) && driver.world.is_whole();
        if !driver.until(CHANGE_MS, change, is_ready) {
            driver.world.statuses().into_iter().for_each(|line| driver.world.complain(line));
            return;
        }
        let frozen = faults.freeze_minority(&mut driver.sim);
        let since = driver.world.moment();
        let all = plan.n_clients as usize;
        let what = "a healthy majority serves every client";
        let n_served = |driver: &Driver<'_>| driver.world.clients_served_since(since);
        if !driver.until(PROGRESS_MS, what, |driver| n_served(driver) >= all) {
            driver.world.statuses().into_iter().for_each(|line| driver.world.complain(line));
            return;
        }
        frozen.iter().for_each(|node| faults.move_away(node));
        if !driver.until(CHANGE_MS, "replicas move away from who is away", changed) {
            driver.world.statuses().into_iter().for_each(|line| driver.world.complain(line));
            return;
        }
    }
    faults.end(&mut driver.sim);
    driver.world.let_clients_end();
    let done = |phase: &Arc<Phase>| phase.clients_done.load(Ordering::Relaxed);
    if !driver.until(END_MS, "clients end", |_| phases.iter().all(done)) {
        return;
    }
    let is_well = |driver: &Driver<'_>| changed(driver) && driver.world.is_converged();
    if !driver.until(CONVERGE_MS, "all replicas are equal and whole", is_well) {
        driver.world.statuses().into_iter().for_each(|line| driver.world.complain(line));
        return;
    }
    phases[0].look.notify_one();
    let looked = || phases[0].looked.load(Ordering::Relaxed);
    driver.until(END_MS, "a last look at every mailbox", |_| looked());
    // Why again: what a client gave up may still be committed, and is at some replicas first.
    driver.until(CONVERGE_MS, "all replicas stay equal and whole", is_well);
    driver.world.missing_bodies().into_iter().for_each(|words| driver.world.complain(words));
    for state in driver.world.replica_states() {
        driver.world.record(Record::Replica(state));
    }
}

/// A frontend with its share of the clients; the first one makes accounts and takes the last look.
async fn frontend(
    world: Arc<World>,
    name: String,
    n: usize,
    dice: Dice,
    phase: Arc<Phase>,
) -> turmoil::Result {
    let frontend = Arc::new(Frontend::new(world.clone(), name, dice.fork()));
    let mut accounts = Vec::new();
    for shard in world.plan.shards() {
        accounts.push(Account::of(shard).create(&frontend).await);
    }
    let mut clients = Vec::new();
    for id in (0..world.plan.n_clients).filter(|id| *id as usize % 2 == n) {
        let account = accounts[dice.range(0, accounts.len() as u64 - 1) as usize].clone();
        let client = Client::new(id + 1, frontend.clone(), account, dice.fork());
        clients.push(tokio::spawn(client.work()));
    }
    for client in clients {
        client.await?;
    }
    phase.clients_done.store(true, Ordering::Relaxed);
    phase.look.notified().await;
    for account in &accounts {
        for mailbox in account.mailboxes.keys() {
            let view = loop {
                let looked = account.look(&frontend, mailbox, usize::MAX, &dice).await;
                if let Ok(view) = looked {
                    break view;
                }
            };
            let (account, mailbox) = (account.name.clone(), mailbox.clone());
            world.record(Record::Final { account, mailbox, view });
        }
    }
    phase.looked.store(true, Ordering::Relaxed);
    Ok(())
}

fn verdict(world: &World) -> Verdict {
    let history = History { records: world.history() };
    let mut broken = world.complaints();
    broken.extend(drill::check(&history).iter().map(ToString::to_string));
    let (trace_hash, n_lines) = world.trace_hash();
    let felt = drill::availability(&history);
    let n_done: usize = felt.clients.values().map(|client| client.n_acknowledged).sum();
    let n_unknown: usize = felt.clients.values().map(|client| client.n_unknown).sum();
    let figures = format!(
        "{} ms, {n_lines} lines, {} delivered, {n_done} acknowledged, {n_unknown} unknown, \
         longest wait {} ms",
        world.now_ms(),
        world.net.n_delivered(),
        felt.longest_us / 1000
    );
    Verdict { broken, trace_hash, trace: world.trace_lines(), history, figures }
}
