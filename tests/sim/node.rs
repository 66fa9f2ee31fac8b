//! A storage node: one disk, a replica of each shard on it, and what crate `node` puts around them to
//! serve peers and frontends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::mail::MailError;
use api::peer::PeerError;
use mailbox::chunk::Codec;
use mailbox::{Bodies, ShardId, StoredChunk};
use replica::{
    Disk, DiskOptions, Member, ProposeError, Replica, ReplicaConfig, Role, Timing, View,
};

use crate::dice::Dice;
use crate::net::{Ask, Call, Parcel, Reply, Told, Wire};
use crate::plan::Bug;
use crate::planted::{self, SimMachine};
use crate::world::World;

/// How often a view that was lost is taken anew.
const VIEWS_MAX: usize = 3;
/// An idle journal marks the end of its last sync this often.
const MARK_EVERY_MS: u64 = 200;

/// The id of a shard's replica on the n-th node.
pub fn replica_id(shard: ShardId, n: usize) -> u64 {
    u64::from(shard.0) * 10 + n as u64 + 1
}

/// Runs until the process is killed.
pub async fn run(world: Arc<World>, name: String, n: usize, dice: Dice) -> turmoil::Result {
    let mut door = world.net.open_door(&name);
    let disk = open_disk(&world, &name)?;
    let tending = dice.fork();
    world.machine(&name, |machine| machine.disk = Arc::downgrade(&disk));
    drop(tokio::spawn(write_back(world.clone(), name.clone(), Arc::downgrade(&disk), dice)));
    let mut replicas = BTreeMap::new();
    for shard in world.plan.shards() {
        let started = Replica::start(ReplicaConfig {
            shard,
            replica_id: replica_id(shard, n),
            node: name.clone(),
            disk: disk.clone(),
            machine: Arc::new(SimMachine { bug: world.plan.bug }),
            transport: Arc::new(Wire { net: world.net.clone(), node: name.clone() }),
            timing: Timing::default(),
        });
        let replica = started.await.map_err(|error| format!("{name} {shard}: {error}"))?;
        if n == 0 {
            begin_group(&world, shard, &replica).await;
        }
        replicas.insert(shard, replica);
    }
    world.trace(format_args!("{name} runs"));
    let all: Vec<Replica> = replicas.values().cloned().collect();
    if world.plan.checkpoints {
        drop(tokio::spawn(tend(all.clone(), tending)));
    }
    world.machine(&name, |machine| machine.replicas = all);
    let node = Arc::new(Node { world, name, replicas });
    while let Some(parcel) = door.recv().await {
        let node = node.clone();
        // Why a task each: a call that waits holds up nobody; tasks begin in the order of arrival.
        drop(tokio::spawn(async move { node.serve(parcel).await }));
    }
    Ok(())
}

fn open_disk(world: &Arc<World>, name: &str) -> Result<Arc<Disk>, String> {
    let (storage, dir) =
        world.machine(name, |machine| (machine.storage.clone(), machine.dir.clone()));
    let journal = journal::Options {
        segment_bytes: 256 << 10,
        soft_free_bytes: 0,
        hard_free_bytes: 0,
        threaded: false,
        ..journal::Options::default()
    };
    let clock = world.clone();
    let storage = planted::storage(world.plan.bug, storage);
    let options = DiskOptions {
        journal,
        index_cache_bytes: 1 << 20,
        storage: Some(storage),
        clock: Some(Arc::new(move || clock.wall())),
    };
    Disk::open(&dir, options).map_err(|error| format!("{name}: open disk: {error}"))
}

/// The disk: takes its time, then writes and syncs what waits.
async fn write_back(world: Arc<World>, name: String, disk: std::sync::Weak<Disk>, dice: Dice) {
    let mut mark_at = 0;
    loop {
        let longest = world.machine(&name, |machine| machine.sync_ms);
        tokio::time::sleep(Duration::from_millis(dice.range(1, longest.max(1)))).await;
        let Some(disk) = disk.upgrade() else { return };
        disk.journal().pump();
        if world.now_ms() >= mark_at {
            disk.journal().mark();
            mark_at = world.now_ms() + MARK_EVERY_MS;
        }
    }
}

/// Writes checkpoints and cuts the log now and then, so that who was away needs a snapshot.
async fn tend(replicas: Vec<Replica>, dice: Dice) {
    loop {
        tokio::time::sleep(Duration::from_millis(dice.range(200, 2_500))).await;
        // Why the result is dropped: whether it works is not what is asked here.
        drop(dice.pick(&replicas).checkpoint(dice.range(0, 40)).await);
    }
}

/// Gives a group its members, if it has none yet.
async fn begin_group(world: &World, shard: ShardId, replica: &Replica) {
    let status = replica.status();
    if status.last_log_index > 0 || status.term > 0 || !status.voters.is_empty() {
        return;
    }
    let member = |(n, node): (usize, &String)| {
        let disk_id = world.machine(node, |machine| machine.disk_id);
        (replica_id(shard, n), Member { node: node.clone(), disk_id })
    };
    let members = world.plan.nodes().iter().enumerate().map(member).collect();
    let begun = replica.initialize(members).await;
    world.trace(format_args!("shard {shard} begun: {begun:?}"));
}

struct Node {
    world: Arc<World>,
    name: String,
    replicas: BTreeMap<ShardId, Replica>,
}

impl Node {
    async fn serve(&self, parcel: Parcel) {
        let Parcel { from, call, reply_to } = parcel;
        let reply = match call {
            Call::Peer(request) => Reply::Peer(match self.replicas.get(&request.shard) {
                Some(replica) => replica.handle(request).await,
                None => Err(PeerError::Refused("no such replica".into())),
            }),
            Call::Mail(shard, ask) => Reply::Mail(self.mail(shard, ask).await),
        };
        self.world.net.answer(&self.name, &from, reply_to, reply);
    }

    async fn mail(&self, shard: ShardId, ask: Ask) -> Result<Told, MailError> {
        let replica = self.replicas.get(&shard).ok_or(MailError::NoSuchShard)?;
        match ask {
            Ask::Propose(request, chunks) => {
                let command = mailbox::codec::encode(&request);
                let response = replica.propose(command, chunks).await.map_err(refuse)?;
                let outcome = mailbox::codec::decode(&response).map_err(|_| MailError::Unknown)?;
                Ok(Told::Outcome(outcome))
            }
            Ask::Query(query) => {
                for _ in 0..VIEWS_MAX {
                    let view = match self.world.plan.bug {
                        Some(Bug::StaleReads) => replica.local_view(),
                        _ => replica.read().await,
                    };
                    let read = |view: View| {
                        view.read(|rows, bodies| mailbox::answer(rows, bodies, &query)).ok()
                    };
                    if let Some(answer) = read(view.map_err(refuse)?) {
                        return Ok(Told::Answer(answer));
                    }
                }
                Err(MailError::Unavailable)
            }
            Ask::Chunk(chunk) => {
                let view = replica.local_view().map_err(refuse)?;
                let raw = view.read(|_, bodies: &dyn Bodies| bodies.chunk(&chunk));
                let bytes =
                    raw.map_err(|_| MailError::Unavailable)?.ok_or(MailError::NoSuchChunk)?;
                let bytes = planted::served(self.world.plan.bug, bytes);
                Ok(Told::Chunk(StoredChunk { chunk, codec: Codec::Raw, bytes }))
            }
            Ask::Leader => {
                let status = replica.status();
                let leads = status.role == Role::Leader;
                let leader = status.leader.map(|(_, member)| member.node);
                let leader = if leads { Some(self.name.clone()) } else { leader };
                Ok(Told::Leader { leader, term: status.term })
            }
        }
    }
}

/// As crate `node` says it to frontends.
fn refuse(error: ProposeError) -> MailError {
    match error {
        ProposeError::NotLeader { leader } => {
            MailError::NotLeader { leader: leader.map(|member| member.node) }
        }
        ProposeError::Unavailable | ProposeError::Stopped => MailError::Unavailable,
        ProposeError::Unknown => MailError::Unknown,
        ProposeError::Full => MailError::Full,
        ProposeError::Overloaded => MailError::Overloaded,
        ProposeError::Damaged => MailError::Damaged,
    }
}
