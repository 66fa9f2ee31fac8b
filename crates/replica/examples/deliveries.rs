//! How many deliveries of 20 kB three replicas in one process put through, over real files: 16
//! proposers, each waiting for its answer before it goes on.
//!
//! `cargo run --release -p replica --example deliveries [seconds] [proposers] [directory]`

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use api::peer::{BoxFuture, PeerError, PeerRequest, PeerResponse, PeerTransport};
use bytes::Bytes;
use mailbox::{ChunkRef, Digest, Rows, ShardId, Source, StoredChunk};
use replica::{
    Disk, DiskOptions, Machine, MachineApplied, Member, Replica, ReplicaConfig, Role, Timing,
};

/// About what a delivery writes: a message row of 1.5 kB and five small ones.
struct Deliveries;

impl Machine for Deliveries {
    fn apply(&self, rows: &mut Rows<'_>, command: &[u8], inline: &[ChunkRef]) -> MachineApplied {
        let id = command[10..18].to_vec();
        rows.put([b"message", &id[..]].concat(), command.to_vec());
        for chunk in inline {
            rows.put([b"chunk", &chunk.digest.0[..]].concat(), vec![1; 8]);
        }
        rows.put([b"uid", &id[..]].concat(), vec![2; 16]);
        rows.put(b"mailbox".to_vec(), [&[3; 120], &id[..]].concat());
        rows.put(b"account".to_vec(), [&[4; 120], &id[..]].concat());
        rows.put([b"session", &id[6..]].concat(), vec![5; 60]);
        MachineApplied { response: id, changes: Vec::new() }
    }

    fn is_chunk_live(&self, _rows: &dyn Source, _digest: &Digest) -> bool {
        true
    }
}

#[derive(Clone, Default)]
struct Net(Arc<Mutex<BTreeMap<String, Replica>>>);

impl PeerTransport for Net {
    fn call(&self, request: PeerRequest) -> BoxFuture<'static, Result<PeerResponse, PeerError>> {
        let target = self.0.lock().expect("no panic").get(&request.node).cloned();
        Box::pin(async move {
            let target = target.ok_or(PeerError::Unreachable("not there".into()))?;
            target.handle(request).await
        })
    }
}

async fn group(dir: &std::path::Path) -> Vec<Replica> {
    let net = Net::default();
    let (mut replicas, mut members) = (Vec::new(), BTreeMap::new());
    for id in 1..=3 {
        let (node, home) = (format!("n{id}"), dir.join(format!("n{id}")));
        let disk_id = Disk::format(&home).expect("format");
        let disk = Disk::open(&home, DiskOptions::default()).expect("open");
        members.insert(id, Member { node: node.clone(), disk_id });
        let replica = Replica::start(ReplicaConfig {
            shard: ShardId(1),
            replica_id: id,
            node: node.clone(),
            disk,
            machine: Arc::new(Deliveries),
            transport: Arc::new(net.clone()),
            timing: Timing::default(),
        });
        let replica = replica.await.expect("start");
        net.0.lock().expect("no panic").insert(node, replica.clone());
        replicas.push(replica);
    }
    replicas[0].initialize(members).await.expect("initialize");
    replicas
}

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let mut number = |default: u64| args.next().and_then(|a| a.parse().ok()).unwrap_or(default);
    let (seconds, n_proposers) = (number(5), number(16));
    let scratch = tempfile::tempdir().expect("temporary directory");
    let dir = args.next().map_or(scratch.path().to_path_buf(), PathBuf::from);
    let replicas = group(&dir).await;
    let leader = loop {
        match replicas.iter().find(|replica| replica.status().role == Role::Leader) {
            Some(leader) => break leader.clone(),
            None => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    let (next, stop) = (Arc::new(AtomicU64::new(0)), Instant::now() + Duration::from_secs(seconds));
    let begin = (Instant::now(), cpu_seconds());
    let mut proposers = Vec::new();
    for _ in 0..n_proposers {
        let (leader, next) = (leader.clone(), next.clone());
        proposers.push(tokio::spawn(async move {
            let mut took = Vec::new();
            while Instant::now() < stop {
                let id = next.fetch_add(1, Relaxed).to_be_bytes();
                let mut body = vec![b'x'; 20_000];
                body[..8].copy_from_slice(&id);
                let chunk = StoredChunk::raw(Bytes::from(body));
                let begin = Instant::now();
                let command = [&id[..], &[7; 1500]].concat();
                leader.propose(command, vec![chunk]).await.expect("acknowledged");
                took.push(begin.elapsed());
            }
            took
        }));
    }
    let mut took = Vec::new();
    for proposer in proposers {
        took.append(&mut proposer.await.expect("no panic"));
    }
    took.sort();
    let (elapsed, cpu) = (begin.0.elapsed().as_secs_f64(), cpu_seconds() - begin.1);
    let n = took.len();
    let at = |share: f64| took[((n as f64 * share) as usize).min(n - 1)];
    println!(
        "{n} deliveries of 20 kB to 3 replicas in {elapsed:.1} s: {:.0}/s",
        n as f64 / elapsed
    );
    println!("p50 {:?}, p99 {:?}, longest {:?}", at(0.5), at(0.99), at(1.0));
    println!("CPU {:.2} ms for each", 1000.0 * cpu / n as f64);
    for replica in &replicas {
        replica.shutdown().await.expect("stop");
    }
}

/// User and system time of this process, 0 where the system does not tell.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or("").split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}
