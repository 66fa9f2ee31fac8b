//! What all simulated processes share: time, network, disks, the history, and the trace by which two
//! runs are compared.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use drill::{Event, Record, ReplicaState, Verdict};
use journal::sim::SimStorage;
use mailbox::LogTime;
use replica::{Disk, Replica, Role};

use crate::dice::Dice;
use crate::net::Net;
use crate::plan::Plan;

/// When every run begins, in milliseconds since 1970.
const BEGIN_MS: u64 = 1_800_000_000_000;
/// Room on every disk.
const DISK_BYTES: u64 = 1 << 30;

pub struct World {
    pub plan: Plan,
    pub net: Net,
    now_ms: AtomicU64,
    /// Moments told within the present millisecond.
    told: AtomicU64,
    trace: Mutex<Trace>,
    machines: Mutex<BTreeMap<String, Machine>>,
    history: Mutex<Vec<Record>>,
    /// What no run may show; found outside of the history.
    complaints: Mutex<Vec<String>>,
    is_over: AtomicBool,
}

/// What of a node outlives its process.
pub struct Machine {
    pub storage: SimStorage,
    pub dir: PathBuf,
    pub disk_id: [u8; 16],
    pub is_up: bool,
    /// A write takes this long at most, in milliseconds.
    pub sync_ms: u64,
    /// The process that runs, for those who hurt it.
    pub disk: Weak<Disk>,
    pub replicas: Vec<Replica>,
}

#[derive(Default)]
struct Trace {
    hasher: blake3::Hasher,
    n_lines: u64,
    lines: Option<Vec<String>>,
}

impl World {
    pub fn new(plan: Plan, dice: &Dice, keep_trace: bool) -> Arc<Self> {
        let trace = Trace { lines: keep_trace.then(Vec::new), ..Trace::default() };
        Arc::new(Self {
            plan,
            net: Net::new(dice.fork()),
            now_ms: AtomicU64::new(0),
            told: AtomicU64::new(0),
            trace: Mutex::new(trace),
            machines: Mutex::default(),
            history: Mutex::default(),
            complaints: Mutex::default(),
            is_over: AtomicBool::new(false),
        })
    }

    /// A formatted, empty disk for a node.
    pub fn add_machine(&self, name: &str, dir: PathBuf) {
        let storage = SimStorage::new(DISK_BYTES);
        let disk_id = Disk::format_storage(&storage).expect("an empty disk can be formatted");
        let machine = Machine {
            storage,
            dir,
            disk_id,
            is_up: true,
            sync_ms: self.plan.sync_ms,
            disk: Weak::new(),
            replicas: Vec::new(),
        };
        lock(&self.machines).insert(name.into(), machine);
    }

    pub fn machine<T>(&self, name: &str, with: impl FnOnce(&mut Machine) -> T) -> T {
        with(lock(&self.machines).get_mut(name).expect("every node has a machine"))
    }

    pub fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    /// The clock on the wall, the same everywhere.
    pub fn wall(&self) -> LogTime {
        LogTime(BEGIN_MS + self.now_ms())
    }

    pub fn advance(&self, now_ms: u64) {
        self.now_ms.store(now_ms, Ordering::Relaxed);
        self.told.store(0, Ordering::Relaxed);
    }

    /// A moment later than every moment told before, for histories.
    pub fn moment(&self) -> u64 {
        self.now_ms() * 1000 + self.told.fetch_add(1, Ordering::Relaxed).min(999)
    }

    /// Two runs are the same if they traced the same lines.
    pub fn trace(&self, line: impl Display) {
        let mut trace = lock(&self.trace);
        let line = format!("{} {line}", self.now_ms());
        trace.hasher.update(line.as_bytes());
        trace.hasher.update(b"\n");
        trace.n_lines += 1;
        if let Some(lines) = &mut trace.lines {
            lines.push(line);
        }
    }

    pub fn trace_hash(&self) -> (String, u64) {
        let trace = lock(&self.trace);
        (trace.hasher.finalize().to_hex()[..16].to_owned(), trace.n_lines)
    }

    pub fn trace_lines(&self) -> Vec<String> {
        lock(&self.trace).lines.clone().unwrap_or_default()
    }

    pub fn record(&self, record: Record) {
        self.trace(format_args!("{record:?}"));
        lock(&self.history).push(record);
    }

    pub fn history(&self) -> Vec<Record> {
        lock(&self.history).clone()
    }

    /// How many clients began something after a moment and had it acknowledged.
    pub fn clients_served_since(&self, since: u64) -> usize {
        let served = |record: &Record| match record {
            Record::Event(Event { client, start_us, verdict, .. })
                if *start_us >= since && matches!(verdict, Verdict::Acknowledged { .. }) =>
            {
                Some(*client)
            }
            _ => None,
        };
        lock(&self.history).iter().filter_map(served).collect::<BTreeSet<_>>().len()
    }

    /// What every replica that runs has applied.
    pub fn replica_states(&self) -> Vec<ReplicaState> {
        let machines = lock(&self.machines);
        let replicas = machines.values().flat_map(|machine| &machine.replicas);
        let state = |replica: &Replica| {
            let status = replica.status();
            let (shard, replica) = (replica.shard().0, replica.replica_id());
            let digest = status.digest.to_string();
            ReplicaState { shard, replica, applied: status.applied, digest }
        };
        replicas.map(state).collect()
    }

    /// Whether all replicas run, have applied all there is, and hold the same.
    pub fn is_converged(&self) -> bool {
        let states = self.replica_states();
        let mut first = BTreeMap::new();
        let same = |state: &ReplicaState| {
            let first = first.entry(state.shard).or_insert_with(|| state.clone());
            (first.applied, &first.digest) == (state.applied, &state.digest)
        };
        let n_replicas = self.plan.n_nodes * self.plan.n_shards as usize;
        states.len() == n_replicas && states.iter().all(same)
    }

    /// All that replicas say of themselves.
    pub fn statuses(&self) -> Vec<String> {
        let machines = lock(&self.machines);
        let replicas = machines.values().flat_map(|machine| &machine.replicas);
        let told = |replica: &Replica| {
            format!(
                "shard {} replica {}: {:?}",
                replica.shard(),
                replica.replica_id(),
                replica.status()
            )
        };
        replicas.map(told).collect()
    }

    /// A node that takes itself for a leader.
    pub fn leader(&self) -> Option<String> {
        let machines = lock(&self.machines);
        let leads = |replica: &Replica| replica.status().role == Role::Leader;
        let mut leaders = machines.iter().filter(|(_, machine)| machine.replicas.iter().any(leads));
        leaders.next().map(|(name, _)| name.clone())
    }

    /// Lets go of what keeps processes alive.
    pub fn forget_processes(&self) {
        lock(&self.machines).values_mut().for_each(|machine| machine.replicas.clear());
    }

    pub fn let_clients_end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// Whether clients shall end.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    pub fn complain(&self, words: String) {
        self.trace(&words);
        lock(&self.complaints).push(words);
    }

    pub fn complaints(&self) -> Vec<String> {
        lock(&self.complaints).clone()
    }
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
