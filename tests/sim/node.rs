//! A storage node: one disk, a replica of each shard on it, and what crate `node` puts around them to
//! serve peers and frontends.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::mail::MailError;
use api::peer::PeerError;
use mailbox::chunk::Codec;
use mailbox::{Bodies, ShardId, StoredChunk};
use replica::{Disk, DiskOptions, ProposeError, Replica, ReplicaConfig, Role, Timing, View};

use crate::dice::Dice;
use crate::net::{Admin, Ask, Call, Parcel, Reply, Told, Wire};
use crate::plan::Bug;
use crate::planted::{self, SimMachine};
use crate::seats::Seat;
use crate::world::{World, lock};

/// How often a view that was lost is taken anew.
const VIEWS_MAX: usize = 3;
/// Seats and replicas are compared this often.
const FOLLOW_EVERY: Duration = Duration::from_millis(25);
/// An idle journal marks the end of its last sync this often.
const MARK_EVERY_MS: u64 = 200;
/// How much is on a disk is noted this often; in a real cluster every ten seconds.
const NOTE_EVERY_MS: u64 = 300;

/// Runs until the process is killed.
pub async fn run(world: Arc<World>, name: String, dice: Dice) -> turmoil::Result {
    let mut door = world.net.open_door(&name);
    planted::at_start(world.plan.bug, &world.machine(&name, |machine| machine.dir.clone()));
    let Some(disk) = open_disk(&world, &name)? else {
        world.trace(format_args!("{name} has a disk that failed"));
        return std::future::pending().await;
    };
    let (id, starts, batches) = (disk.disk_id(), disk.start_count(), disk.n_recovered());
    let was_put_back = world.machine(&name, |machine| machine.was_put_back);
    if !was_put_back && batches < world.seats(|seats| seats.mark(id)) {
        world.complain(format!("a disk looks old and is not: {name}, {batches} batches"));
    }
    let is_judged = was_put_back && world.plan.bug != Some(Bug::TrustOldDisks);
    let told = if is_judged { batches } else { u64::MAX };
    if !world.seats(|seats| seats.note_start(id, starts, told)) {
        world.trace(format_args!("{name} has an old disk"));
    }
    let tending = dice.fork();
    world.machine(&name, |machine| machine.disk = Arc::downgrade(&disk));
    drop(tokio::spawn(write_back(world.clone(), name.clone(), Arc::downgrade(&disk), dice)));
    let node = Arc::new(Node { world, name, disk, replicas: Mutex::default() });
    node.follow_seats().await?;
    node.world.trace(format_args!("{} runs", node.name));
    if node.world.plan.checkpoints {
        drop(tokio::spawn(node.clone().tend(tending)));
    }
    drop(tokio::spawn(node.clone().follow()));
    while let Some(parcel) = door.recv().await {
        let node = node.clone();
        // Why a task each: a call that waits holds up nobody; tasks begin in the order of arrival.
        drop(tokio::spawn(async move { node.serve(parcel).await }));
    }
    Ok(())
}

/// `None`: it failed in an earlier life.
fn open_disk(world: &Arc<World>, name: &str) -> Result<Option<Arc<Disk>>, String> {
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
        upkeep: replica::Upkeep::default(),
        fill_bytes_per_s: None,
        storage: Some(storage),
        clock: Some(Arc::new(move || clock.wall())),
        has_others: false,
    };
    match Disk::open(&dir, options) {
        Ok(disk) => Ok(Some(disk)),
        Err(error) if error.is_poisoned() => Ok(None),
        Err(error) => Err(format!("{name}: open disk: {error}")),
    }
}

/// The disk: takes its time, then writes and syncs what waits.
async fn write_back(world: Arc<World>, name: String, disk: std::sync::Weak<Disk>, dice: Dice) {
    let (mut mark_at, mut note_at) = (0, 0);
    loop {
        let longest = world.machine(&name, |machine| machine.sync_ms);
        tokio::time::sleep(Duration::from_millis(dice.range(1, longest.max(1)))).await;
        let Some(disk) = disk.upgrade() else { return };
        disk.journal().pump();
        if world.now_ms() >= mark_at {
            disk.journal().mark();
            mark_at = world.now_ms() + MARK_EVERY_MS;
        }
        if world.now_ms() >= note_at {
            world.seats(|seats| seats.note_mark(disk.disk_id(), disk.n_synced()));
            note_at = world.now_ms() + NOTE_EVERY_MS;
        }
    }
}

struct Node {
    world: Arc<World>,
    name: String,
    disk: Arc<Disk>,
    /// Those that run, by id.
    replicas: Mutex<BTreeMap<u64, Replica>>,
}

impl Node {
    fn running(&self) -> Vec<Replica> {
        lock(&self.replicas).values().cloned().collect()
    }

    /// The one that leads, if several are here.
    fn of_shard(&self, shard: ShardId) -> Option<Replica> {
        let leads = |replica: &Replica| replica.status().role == Role::Leader;
        let mut here: Vec<Replica> = self.running();
        here.retain(|replica| replica.shard() == shard && replica.status().role != Role::Stopped);
        here.iter().find(|replica| leads(replica)).or(here.last()).cloned()
    }

    async fn follow(self: Arc<Self>) {
        loop {
            tokio::time::sleep(FOLLOW_EVERY).await;
            if let Err(why) = self.follow_seats().await {
                // Why not always: what a dying disk says is no complaint.
                let is_up = self.world.machine(&self.name, |machine| machine.is_up);
                if is_up && !self.disk.is_poisoned() {
                    self.world.complain(why);
                    return;
                }
            }
        }
    }

    /// Starts what has a seat here and does not run; ends what has none any more.
    async fn follow_seats(&self) -> Result<(), String> {
        let disk_id = self.disk.disk_id();
        let mut seats: Vec<Seat> =
            self.world.seats(|seats| seats.of_node(&self.name).cloned().collect());
        seats.retain(|seat| seat.disk_id == disk_id);
        for seat in seats.iter().filter(|seat| !seat.is_refused) {
            if !lock(&self.replicas).contains_key(&seat.replica) {
                self.start(seat).await?;
            }
        }
        let has_seat = |id: &u64| seats.iter().any(|seat| seat.replica == *id);
        for id in self.disk.replicas().into_keys().filter(|id| !has_seat(id)) {
            let ended = lock(&self.replicas).remove(&id);
            if let Some(replica) = ended {
                self.show();
                replica.shutdown().await.map_err(|error| format!("end replica {id}: {error}"))?;
            }
            // Why the result is dropped: while somebody still holds it, it is tried again.
            drop(self.disk.forget(id).await);
        }
        Ok(())
    }

    async fn start(&self, seat: &Seat) -> Result<(), String> {
        let (world, shard, id) = (&self.world, seat.shard, seat.replica);
        let started = Replica::start(ReplicaConfig {
            shard,
            replica_id: id,
            node: self.name.clone(),
            disk: self.disk.clone(),
            machine: Arc::new(SimMachine { bug: world.plan.bug }),
            transport: Arc::new(Wire { net: world.net.clone(), node: self.name.clone() }),
            timing: Timing::default(),
        });
        let replica = started.await.map_err(|error| format!("{} {shard}: {error}", self.name))?;
        let status = replica.status();
        let is_new = status.last_log_index == 0 && status.term == 0 && status.voters.is_empty();
        if let Some(founders) = world.seats(|seats| seats.founders(seat)) {
            if is_new {
                let begun = replica.initialize(founders).await;
                world.trace(format_args!("shard {shard} begun: {begun:?}"));
            }
            world.seats(|seats| seats.note_begun(shard));
        }
        lock(&self.replicas).insert(id, replica);
        self.show();
        Ok(())
    }

    /// Shows the world what runs here.
    fn show(&self) {
        let running = self.running();
        self.world.machine(&self.name, |machine| machine.replicas = running);
    }

    /// Writes checkpoints and cuts the log now and then, so that who was away needs a snapshot, and
    /// empties old segments.
    async fn tend(self: Arc<Self>, dice: Dice) {
        let (pause_ms, keep) = if self.world.plan.hasty { (400, 0) } else { (2_500, 40) };
        loop {
            tokio::time::sleep(Duration::from_millis(dice.range(100, pause_ms))).await;
            let running = self.running();
            if !running.is_empty() {
                // Why the result is dropped: whether it works is not what is asked here.
                drop(dice.pick(&running).checkpoint(dice.range(0, keep)).await);
            }
            if dice.chance(200) {
                drop(self.disk.collect());
            }
        }
    }

    async fn serve(&self, parcel: Parcel) {
        let Parcel { from, call, reply_to } = parcel;
        let reply = match call {
            Call::Peer(request) => {
                let replica = lock(&self.replicas).get(&request.to_replica).cloned();
                Reply::Peer(match replica {
                    Some(replica) => replica.handle(request).await,
                    None => Err(PeerError::Refused("no such replica".into())),
                })
            }
            Call::Mail(shard, ask) => Reply::Mail(self.mail(shard, ask).await),
        };
        self.world.net.answer(&self.name, &from, reply_to, reply);
    }

    async fn mail(&self, shard: ShardId, ask: Ask) -> Result<Told, MailError> {
        let replica = self.of_shard(shard).ok_or(MailError::NoSuchShard)?;
        match ask {
            Ask::Status(exactly) => {
                let replica = match exactly {
                    Some(id) => lock(&self.replicas).get(&id).cloned(),
                    None => Some(replica),
                };
                let replica = replica.ok_or(MailError::NoSuchShard)?;
                Ok(Told::Status(Box::new(replica.status())))
            }
            Ask::Admin(admin) => {
                let done = match admin {
                    Admin::Learn(id, member) => replica.add_learner(id, member).await,
                    Admin::Vote(voters) => replica.change_members(voters).await,
                    Admin::HandOver => replica.transfer_leader(None).await,
                };
                done.map(|()| Told::Done).map_err(refuse)
            }
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
                let here = view.read(|_, bodies: &dyn Bodies| bodies.chunk(&chunk));
                let bytes = match here.map_err(|_| MailError::Unavailable)? {
                    Some(bytes) => bytes,
                    // Why: who looks at its peers for what it thinks to have hides what it forgot.
                    None if self.world.plan.bug == Some(Bug::CampaignIncomplete) => {
                        return Err(MailError::NoSuchChunk);
                    }
                    None => replica.chunk(&chunk).await.map_err(|_| MailError::NoSuchChunk)?.bytes,
                };
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
