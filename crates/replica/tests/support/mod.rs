//! Replicas in one process: real files, a transport in memory, and a machine simple enough to be
//! checked by hand.
#![allow(dead_code, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, poll_fn};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use api::peer::{BoxFuture, PeerError, PeerRequest, PeerResponse, PeerTransport};
use mailbox::{ChunkRef, Digest, Rows, ShardId, Source};
use replica::{
    Disk, DiskOptions, Machine, MachineApplied, Member, Replica, ReplicaConfig, Role, Status,
    Timing,
};
use tokio::sync::oneshot;

pub const SHARD: ShardId = ShardId(1);

/// Commands: a key, `=`, a value; an empty value removes. Bodies are kept under their digest.
pub struct Notes;

impl Machine for Notes {
    fn apply(&self, rows: &mut Rows<'_>, command: &[u8], inline: &[ChunkRef]) -> MachineApplied {
        // Before what was proposed comes the leader's time.
        let command = &command[10..];
        let at = command.iter().position(|byte| *byte == b'=').unwrap();
        let (key, value) = (command[..at].to_vec(), command[at + 1..].to_vec());
        let before = rows.row(&key).unwrap_or_default();
        if value.is_empty() {
            rows.remove(&key);
        } else {
            rows.put(key, value);
        }
        for chunk in inline {
            rows.put(body_key(&chunk.digest), chunk.raw_len.to_be_bytes().to_vec());
        }
        MachineApplied { response: before, changes: Vec::new() }
    }

    fn is_chunk_live(&self, rows: &dyn Source, digest: &Digest) -> bool {
        rows.row(&body_key(digest)).is_some()
    }
}

fn body_key(digest: &Digest) -> Vec<u8> {
    [b"#", &digest.0[..]].concat()
}

/// Who can be reached, and who is cut off.
#[derive(Clone, Default)]
pub struct Net(Arc<Mutex<Switchboard>>);

#[derive(Default)]
struct Switchboard {
    replicas: BTreeMap<String, Replica>,
    cut: BTreeSet<String>,
    /// From, to: calls get lost.
    lost: BTreeSet<(String, String)>,
    /// They are heard, and hear nobody.
    deaf: BTreeSet<String>,
    /// From, to: told when the last call with entries or bodies has begun.
    begun: BTreeMap<(String, String), oneshot::Receiver<()>>,
}

impl Net {
    pub fn connect(&self, node: &str, replica: Replica) {
        self.0.lock().unwrap().replicas.insert(node.into(), replica);
    }

    pub fn disconnect(&self, node: &str) {
        self.0.lock().unwrap().replicas.remove(node);
    }

    pub fn cut(&self, node: &str, is_cut: bool) {
        let mut board = self.0.lock().unwrap();
        if is_cut {
            board.cut.insert(node.into());
        } else {
            board.cut.remove(node);
        }
    }

    /// Calls of one node to another get lost, or not any more.
    pub fn lose(&self, from: &str, to: &str, is_lost: bool) {
        let mut board = self.0.lock().unwrap();
        let line = (from.to_owned(), to.to_owned());
        if is_lost {
            board.lost.insert(line);
        } else {
            board.lost.remove(&line);
        }
    }

    /// A node hears neither calls nor answers, or does again.
    pub fn deafen(&self, node: &str, is_deaf: bool) {
        let mut board = self.0.lock().unwrap();
        if is_deaf {
            board.deaf.insert(node.into());
        } else {
            board.deaf.remove(node);
        }
    }

    pub fn of(&self, from: &str) -> Arc<dyn PeerTransport> {
        Arc::new(Wire { net: self.clone(), from: from.into() })
    }
}

struct Wire {
    net: Net,
    from: String,
}

impl PeerTransport for Wire {
    fn call(&self, request: PeerRequest) -> BoxFuture<'static, Result<PeerResponse, PeerError>> {
        let (has_begun, begun) = oneshot::channel();
        let (target, before) = {
            let mut board = self.net.0.lock().unwrap();
            let is_cut = board.cut.contains(&self.from)
                || board.cut.contains(&request.node)
                || board.deaf.contains(&request.node)
                || board.lost.contains(&(self.from.clone(), request.node.clone()));
            let line = (self.from.clone(), request.node.clone());
            let is_ordered = replica::is_bulk(request.kind);
            let before = is_ordered.then(|| board.begun.insert(line, begun)).flatten();
            (board.replicas.get(&request.node).filter(|_| !is_cut).cloned(), before)
        };
        let (net, from) = (self.net.clone(), self.from.clone());
        Box::pin(async move {
            let target = target.ok_or(PeerError::Unreachable("cut".into()))?;
            let deadline = request.deadline;
            let answer = tokio::spawn(async move {
                // Why: a transport keeps the order of the calls, and openraft counts on it.
                if let Some(before) = before {
                    drop(before.await);
                }
                let mut handling = Box::pin(target.handle(request));
                let first = poll_fn(|context| Poll::Ready(handling.as_mut().poll(context))).await;
                let _ = has_begun.send(());
                match first {
                    Poll::Ready(answer) => answer,
                    Poll::Pending => handling.await,
                }
            });
            if net.0.lock().unwrap().deaf.contains(&from) {
                tokio::time::sleep(deadline).await;
                return Err(PeerError::Deadline);
            }
            match tokio::time::timeout(deadline, answer).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) => Err(PeerError::Unreachable("died".into())),
                Err(_) => Err(PeerError::Deadline),
            }
        })
    }
}

/// One node with one disk and one replica.
pub struct Node {
    pub name: String,
    pub id: u64,
    pub disk: Arc<Disk>,
    pub replica: Replica,
}

pub fn options() -> DiskOptions {
    let journal = journal::Options {
        segment_bytes: 4 << 20,
        soft_free_bytes: 0,
        hard_free_bytes: 0,
        ..journal::Options::default()
    };
    DiskOptions { journal, index_cache_bytes: 4 << 20, ..DiskOptions::default() }
}

pub async fn start(net: &Net, dir: &Path, id: u64) -> Node {
    start_with(net, dir, id, (options(), Arc::new(Notes))).await
}

/// With settings and a machine of its own.
pub async fn start_with(
    net: &Net,
    dir: &Path,
    id: u64,
    (options, machine): (DiskOptions, Arc<dyn Machine>),
) -> Node {
    let name = format!("n{id}");
    let home = dir.join(&name);
    if !home.exists() {
        Disk::format(&home).unwrap();
    }
    let disk = Disk::open(&home, options).unwrap();
    let replica = Replica::start(ReplicaConfig { machine, ..config(net, disk.clone(), &name, id) });
    let replica = replica.await.unwrap();
    net.connect(&name, replica.clone());
    Node { name, id, disk, replica }
}

/// By a transport of its own.
pub async fn start_by(
    net: &Net,
    disk: Arc<Disk>,
    id: u64,
    transport: Arc<dyn PeerTransport>,
) -> Node {
    let name = format!("n{id}");
    let config = ReplicaConfig { transport, ..config(net, disk.clone(), &name, id) };
    let replica = Replica::start(config).await.unwrap();
    net.connect(&name, replica.clone());
    Node { name, id, disk, replica }
}

fn config(net: &Net, disk: Arc<Disk>, name: &str, id: u64) -> ReplicaConfig {
    ReplicaConfig {
        shard: SHARD,
        replica_id: id,
        node: name.into(),
        disk,
        machine: Arc::new(Notes),
        transport: net.of(name),
        timing: Timing::default(),
    }
}

pub async fn try_start(
    net: &Net,
    disk: Arc<Disk>,
    name: &str,
    id: u64,
) -> Result<Replica, replica::Error> {
    Replica::start(config(net, disk, name, id)).await
}

impl Node {
    pub fn member(&self) -> Member {
        Member { node: self.name.clone(), disk_id: self.disk.disk_id() }
    }

    /// Ends it without any farewell that others would hear of.
    pub async fn stop(self, net: &Net) {
        net.disconnect(&self.name);
        self.replica.shutdown().await.unwrap();
        let Self { disk, replica, .. } = self;
        drop(replica);
        until(|| Arc::strong_count(&disk) == 1, "the disk is let go").await;
    }
}

/// Three replicas that know each other.
pub async fn three(net: &Net, dir: &Path) -> Vec<Node> {
    let mut nodes = Vec::new();
    for id in 1..=3 {
        nodes.push(start(net, dir, id).await);
    }
    let members = nodes.iter().map(|node| (node.id, node.member())).collect();
    nodes[0].replica.initialize(members).await.unwrap();
    nodes
}

/// Flips one bit of a file, as rot does.
pub fn flip(path: &Path, bit: u64) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, bit / 8).unwrap();
    file.write_all_at(&[byte[0] ^ (1 << (bit % 8))], bit / 8).unwrap();
}

pub fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for item in std::fs::read_dir(from).unwrap() {
        let item = item.unwrap();
        if item.file_type().unwrap().is_dir() {
            copy_dir(&item.path(), &to.join(item.file_name()));
        } else {
            std::fs::copy(item.path(), to.join(item.file_name())).unwrap();
        }
    }
}

pub fn files_below(dir: &Path, found: &mut Vec<std::path::PathBuf>) {
    for item in std::fs::read_dir(dir).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() { files_below(&path, found) } else { found.push(path) }
    }
}

/// Waits for a condition with a deadline.
pub async fn until(mut condition: impl FnMut() -> bool, what: &str) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(15);
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Proposes wherever the leader is until it is done.
pub async fn put(nodes: &[Node], command: &str, inline: Vec<mailbox::StoredChunk>) -> Vec<u8> {
    propose(nodes, command.as_bytes(), inline).await
}

/// The same for a command that is no text.
pub async fn propose(nodes: &[Node], command: &[u8], inline: Vec<mailbox::StoredChunk>) -> Vec<u8> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(15);
    loop {
        for node in nodes.iter().filter(|node| node.replica.status().role == Role::Leader) {
            if let Ok(done) = node.replica.propose(command.into(), inline.clone()).await {
                return done;
            }
        }
        assert!(tokio::time::Instant::now() < deadline, "in vain: {command:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub async fn leader(nodes: &[Node]) -> usize {
    let mut found = None;
    let position = || nodes.iter().position(|node| node.replica.status().role == Role::Leader);
    until(
        || {
            found = position();
            found.is_some()
        },
        "a leader",
    )
    .await;
    found.unwrap()
}

/// Waits until all replicas applied the same, and gives the statuses.
pub async fn converged(nodes: &[Node]) -> Vec<Status> {
    let statuses = || nodes.iter().map(|node| node.replica.status()).collect::<Vec<_>>();
    let same = |all: &[Status]| {
        all.iter().all(|status| {
            status.applied == all[0].last_log_index
                && status.last_log_index == all[0].last_log_index
        })
    };
    until(|| same(&statuses()), "all applied the same").await;
    let all = statuses();
    assert!(all.iter().all(|status| status.digest == all[0].digest), "{all:#?}");
    all
}
