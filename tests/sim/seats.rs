//! Where replicas live, and which of them shall be replaced: what the meta group knows in a real
//! cluster. It is not under test here, so it never fails.

use std::collections::BTreeMap;

use mailbox::ShardId;
use replica::Member;

/// The place of one replica, from the time it is wanted until it was replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    pub shard: ShardId,
    pub replica: u64,
    pub node: String,
    pub disk_id: [u8; 16],
    /// Its disk was found older than it was: the replica is not run any more.
    pub is_refused: bool,
}

impl Seat {
    pub fn member(&self) -> Member {
        Member { node: self.node.clone(), disk_id: self.disk_id }
    }
}

/// One change of one shard's members.
#[derive(Clone, Debug)]
pub enum Change {
    /// A new replica takes the place of another one.
    Replace { leaves: u64, to: String },
    /// Somebody else shall lead.
    HandOver,
}

#[derive(Default)]
pub struct Seats {
    seats: BTreeMap<u64, Seat>,
    last_id: u64,
    /// Not carried out yet, oldest first.
    open: Vec<(ShardId, Change)>,
    begun: Vec<ShardId>,
    /// How often each disk was started.
    starts: BTreeMap<[u8; 16], u64>,
    /// How many batches each disk was known to have, when it was last marked.
    marks: BTreeMap<[u8; 16], u64>,
    /// The last replica that was on a disk when it was put back.
    last_lost: BTreeMap<[u8; 16], u64>,
}

impl Seats {
    /// A seat for a replica whose id nobody had before.
    pub fn add(&mut self, shard: ShardId, node: &str, disk_id: [u8; 16]) -> Seat {
        self.last_id += 1;
        let (replica, node) = (self.last_id, node.to_owned());
        let seat = Seat { shard, replica, node, disk_id, is_refused: false };
        self.seats.insert(replica, seat.clone());
        seat
    }

    pub fn remove(&mut self, replica: u64) {
        self.seats.remove(&replica);
    }

    pub fn of_shard(&self, shard: ShardId) -> impl Iterator<Item = &Seat> {
        self.seats.values().filter(move |seat| seat.shard == shard)
    }

    pub fn of_node(&self, node: &str) -> impl Iterator<Item = &Seat> {
        self.seats.values().filter(move |seat| seat.node == node)
    }

    pub fn all(&self) -> impl Iterator<Item = &Seat> {
        self.seats.values()
    }

    /// The members a shard begins with, if this replica has to begin it and nobody did.
    pub fn founders(&self, seat: &Seat) -> Option<BTreeMap<u64, Member>> {
        let first = self.of_shard(seat.shard).next()?;
        if *first != *seat || self.begun.contains(&seat.shard) {
            return None;
        }
        Some(self.of_shard(seat.shard).map(|seat| (seat.replica, seat.member())).collect())
    }

    pub fn note_begun(&mut self, shard: ShardId) {
        self.begun.push(shard);
    }

    pub fn is_begun(&self, shard: ShardId) -> bool {
        self.begun.contains(&shard)
    }

    /// A disk was started. One that counts fewer starts than it had, or has fewer batches, is old: what
    /// lies on it is not what its replicas knew.
    pub fn note_start(&mut self, disk_id: [u8; 16], count: u64, n_batches: u64) -> bool {
        let before = self.starts.insert(disk_id, count).unwrap_or(0);
        if count > before && n_batches >= self.mark(disk_id) {
            return true;
        }
        self.starts.insert(disk_id, count.max(before + 1));
        let last = self.last_lost.get(&disk_id).copied().unwrap_or(u64::MAX);
        let is_lost = |seat: &&mut Seat| seat.disk_id == disk_id && seat.replica <= last;
        for seat in self.seats.values_mut().filter(is_lost) {
            seat.is_refused = true;
        }
        false
    }

    /// So many batches are synced on a disk.
    pub fn note_mark(&mut self, disk_id: [u8; 16], n_batches: u64) {
        let mark = self.marks.entry(disk_id).or_default();
        *mark = n_batches.max(*mark);
    }

    /// How many batches a disk is known to have.
    pub fn mark(&self, disk_id: [u8; 16]) -> u64 {
        self.marks.get(&disk_id).copied().unwrap_or(0)
    }

    /// A disk was put back to what it once was; replicas made from now on may live on it again.
    pub fn note_roll_back(&mut self, disk_id: [u8; 16]) {
        self.last_lost.insert(disk_id, self.last_id);
    }

    pub fn want(&mut self, shard: ShardId, change: Change) {
        self.open.push((shard, change));
    }

    /// What has to be done for a shard next; it stays open until it is closed.
    pub fn next_change(&self, shard: ShardId) -> Option<Change> {
        let mut of_shard = self.open.iter().filter(|(of, _)| *of == shard);
        of_shard.next().map(|(_, change)| change.clone())
    }

    pub fn close(&mut self, shard: ShardId) {
        if let Some(at) = self.open.iter().position(|(of, _)| *of == shard) {
            self.open.remove(at);
        }
    }

    /// Whether a change of this shard is not carried out yet.
    pub fn is_changing(&self, shard: ShardId) -> bool {
        self.open.iter().any(|(of, _)| *of == shard)
    }

    pub fn n_open(&self) -> usize {
        self.open.len()
    }
}
