//! What all simulated processes share: time, network, disks, the history, and the trace by which two
//! runs are compared.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use drill::{Event, Record, ReplicaState, Verdict};
use journal::Storage;
use journal::sim::{Operation, SimStorage};
use mailbox::{Bodies, LogTime, ShardId, Source};
use replica::{Disk, Replica, Role};

use crate::client;
use crate::dice::Dice;
use crate::net::Net;
use crate::plan::Plan;
use crate::seats::{Change, Seat, Seats};
use crate::shadow;

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
    seats: Mutex<Seats>,
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
    /// How often its process was started again.
    pub n_starts: u64,
    /// A write takes this long at most, in milliseconds.
    pub sync_ms: u64,
    /// What the disk was once, for a disk that is rolled back.
    pub image: Option<Image>,
    /// It was rolled back once, so that it may be found to be old.
    pub was_put_back: bool,
    /// The process that runs, for those who hurt it.
    pub disk: Weak<Disk>,
    pub replicas: Vec<Replica>,
}

impl Machine {
    /// Puts the index back to what was kept of it, if anything was.
    pub fn roll_back_index(&self) {
        if let Some(image) = &self.image {
            let index = self.dir.join("index");
            drop(std::fs::remove_dir_all(&index));
            copy_tree(&image.dir.join("index"), &index);
        }
    }
}

/// A disk at an earlier time.
pub struct Image {
    pub storage: SimStorage,
    pub dir: PathBuf,
    n_starts: u64,
    n_batches: u64,
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
            seats: Mutex::default(),
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
            n_starts: 0,
            sync_ms: self.plan.sync_ms,
            image: None,
            was_put_back: false,
            disk: Weak::new(),
            replicas: Vec::new(),
        };
        lock(&self.machines).insert(name.into(), machine);
    }

    pub fn machine<T>(&self, name: &str, with: impl FnOnce(&mut Machine) -> T) -> T {
        with(lock(&self.machines).get_mut(name).expect("every node has a machine"))
    }

    pub fn seats<T>(&self, with: impl FnOnce(&mut Seats) -> T) -> T {
        with(&mut lock(&self.seats))
    }

    /// A seat on the disk a node has now.
    pub fn add_seat(&self, shard: ShardId, node: &str) -> Seat {
        let disk_id = self.machine(node, |machine| machine.disk_id);
        self.seats(|seats| seats.add(shard, node, disk_id))
    }

    /// The nodes with a replica of a shard.
    pub fn nodes_of(&self, shard: ShardId) -> Vec<String> {
        let nodes: BTreeSet<String> =
            self.seats(|seats| seats.of_shard(shard).map(|seat| seat.node.clone()).collect());
        nodes.into_iter().collect()
    }

    /// Takes a node's disk away and gives it an empty one.
    pub fn wipe(&self, name: &str) {
        let storage = SimStorage::new(DISK_BYTES);
        let disk_id = Disk::format_storage(&storage).expect("an empty disk can be formatted");
        self.machine(name, |machine| {
            drop(std::fs::remove_dir_all(&machine.dir));
            (machine.storage, machine.disk_id, machine.image) = (storage, disk_id, None);
            machine.was_put_back = false;
        });
    }

    /// Keeps what is synced on a node's disk now.
    pub fn take_image(&self, name: &str) {
        self.machine(name, |machine| {
            let dir = machine.dir.with_extension("image");
            drop(std::fs::remove_dir_all(&dir));
            copy_tree(&machine.dir, &dir);
            let (storage, n_starts) = (machine.storage.power_cut(&mut || false), machine.n_starts);
            // Why the most: of a process that is down only the starts tell.
            let n_batches = machine.disk.upgrade().map_or(u64::MAX, |disk| disk.n_synced());
            machine.image = Some(Image { storage, dir, n_starts, n_batches });
        });
    }

    /// Whether something was kept of a disk before its last start, or before it was marked last.
    ///
    /// Why before: the count of its starts or of its batches tells then, whoever of its peers was
    /// restarted meanwhile and remembers nothing.
    pub fn may_roll_back(&self, name: &str) -> bool {
        let disk_id = self.machine(name, |machine| machine.disk_id);
        let marked = self.seats(|seats| seats.mark(disk_id));
        self.machine(name, |machine| {
            let is_told =
                |image: &Image| image.n_starts < machine.n_starts || image.n_batches < marked;
            machine.image.as_ref().is_some_and(is_told)
        })
    }

    /// Puts a disk back to what was kept of it. False if that may not be.
    pub fn roll_back(&self, name: &str) -> bool {
        let may = self.may_roll_back(name);
        self.machine(name, |machine| {
            let Some(image) = machine.image.take_if(|_| may) else { return false };
            machine.was_put_back = true;
            drop(std::fs::remove_dir_all(&machine.dir));
            copy_tree(&image.dir, &machine.dir);
            shadow::settle(&machine.dir.join("checkpoints"));
            machine.storage = image.storage;
            true
        })
    }

    /// Whether a disk that was to fail did; if not, it does not any more.
    pub fn has_failed_disk(&self, name: &str) -> bool {
        self.machine(name, |machine| {
            machine.storage.fail(Operation::Sync, 0, ErrorKind::Other);
            machine.storage.list().is_ok_and(|names| names.iter().any(|name| name == "poisoned"))
        })
    }

    /// Every replica of a node is lost, and wants a new one on the disk that is there now.
    pub fn replace_all(&self, node: &str) {
        let disk_id = self.machine(node, |machine| machine.disk_id);
        self.seats(|seats| {
            seats.note_roll_back(disk_id);
            let lost: Vec<Seat> = seats.of_node(node).cloned().collect();
            for seat in lost {
                let change = Change::Replace { leaves: seat.replica, to: node.into() };
                seats.want(seat.shard, change);
            }
        });
    }

    /// Whether everything survives if this node's disk is lost now: the promise is about one loss
    /// at a time, and a replica without its bodies is one.
    pub fn may_lose(&self, name: &str) -> bool {
        let shards = self.plan.shards();
        let machines = lock(&self.machines);
        self.seats(|seats| {
            let is_whole = |seat: &Seat| {
                let machine = &machines[&seat.node];
                let mark = machine.dir.join(format!("checkpoints/{}/incomplete", seat.replica));
                let has_failed = |replica: &Replica| {
                    replica.replica_id() == seat.replica && replica.status().failed.is_some()
                };
                machine.disk_id == seat.disk_id
                    && !seat.is_refused
                    && !mark.exists()
                    && !machine.replicas.iter().any(has_failed)
            };
            seats.n_open() == 0
                && shards.iter().all(|shard| seats.is_begun(*shard))
                && seats.all().filter(|seat| seat.node != name).all(is_whole)
        })
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

    /// Whether all replicas run, have applied all there is, hold the same, and miss no body.
    pub fn is_converged(&self) -> bool {
        let states = self.replica_states();
        let mut first = BTreeMap::new();
        let same = |state: &ReplicaState| {
            let first = first.entry(state.shard).or_insert_with(|| state.clone());
            (first.applied, &first.digest) == (state.applied, &state.digest)
        };
        self.is_whole() && states.iter().all(same)
    }

    /// Whether all replicas run and miss no body.
    pub fn is_whole(&self) -> bool {
        let n_replicas = self.seats(|seats| seats.all().count());
        let machines = lock(&self.machines);
        let replicas = machines.values().flat_map(|machine| &machine.replicas);
        let is_whole = |replica: &&Replica| {
            let status = replica.status();
            status.role != Role::Stopped && !status.is_incomplete
        };
        replicas.filter(is_whole).count() == n_replicas
    }

    /// A node that runs, with a replica that misses bodies.
    pub fn incomplete_node(&self) -> Option<String> {
        let machines = lock(&self.machines);
        let misses = |replica: &Replica| replica.status().is_incomplete;
        let mut found = machines
            .iter()
            .filter(|(_, machine)| machine.is_up && machine.replicas.iter().any(misses));
        found.next().map(|(name, _)| name.clone())
    }

    /// Bodies of messages that a replica has not got.
    pub fn missing_bodies(&self) -> Vec<String> {
        let machines = lock(&self.machines);
        let replicas = machines.values().flat_map(|machine| &machine.replicas);
        let missing = |replica: &Replica| {
            let view = replica.local_view().ok()?;
            let (shard, id) = (replica.shard(), replica.replica_id());
            let count = |rows: &dyn Source, bodies: &dyn Bodies| {
                client::n_missing_bodies(shard, rows, bodies)
            };
            let n_missing = view.read(count).ok()?;
            (n_missing > 0).then(|| {
                format!("EveryCopyIsWhole: replica {id} of shard {shard} misses {n_missing} bodies")
            })
        };
        replicas.filter_map(missing).collect()
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

    /// A node with a replica that takes itself for a leader.
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

/// Copies files; what sled writes meanwhile nobody waits for, so what is copied may be anything.
fn copy_tree(from: &Path, to: &Path) {
    drop(std::fs::create_dir_all(to));
    let Ok(items) = std::fs::read_dir(from) else { return };
    for item in items.flatten() {
        let to = to.join(item.file_name());
        if item.path().is_dir() {
            copy_tree(&item.path(), &to);
        } else {
            drop(std::fs::copy(item.path(), to));
        }
    }
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
