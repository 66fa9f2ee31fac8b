//! What an operator asks of a node.

mod client;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use mailbox::{Digest, LogTime, ShardId};

pub use self::client::{AdminClient, Presence};
use crate::meta::{DiskScrub, MetaError, ReplicaReport};
use crate::placement::{Disk, DiskId, Node, Placement};

/// How the cluster is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The placement the node knows; `None` before a cluster was formed.
    pub placement: Option<Arc<Placement>>,
    /// Each node that was asked.
    pub nodes: Vec<NodeStatus>,
    /// Replicas that are being made.
    pub replacements: Vec<Replacement>,
    /// What cannot be done yet, for people; one line each.
    pub waiting: Vec<String>,
}

/// A replica that is being made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replacement {
    /// Of which shard.
    pub shard: ShardId,
    /// Which.
    pub replica_id: u64,
    /// Name of its node.
    pub node: String,
    /// Its disk.
    pub disk_id: DiskId,
    /// The replica in whose place it shall vote.
    pub replaces: Option<u64>,
    /// How far it is.
    pub phase: Phase,
    /// Done in this phase: entries for rows, octets for bodies.
    pub done: u64,
    /// What there is to do in this phase.
    pub total: u64,
    /// Octets it got from its peers.
    pub received_bytes: u64,
    /// Since it was first seen.
    pub elapsed_ms: u64,
    /// Until this phase is done, at the rate so far.
    pub eta_ms: Option<u64>,
}

/// How far a replica is that is being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It does not run yet.
    Placed,
    /// It gets rows.
    Rows,
    /// It gets bodies.
    Bodies,
    /// It has everything.
    Whole,
}

/// How one node is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeStatus {
    /// Name, identity, address and disks.
    pub node: Node,
    /// Whether it answered; if not, the rest is what was known of it.
    pub reachable: bool,
    /// Its program's version.
    pub version: String,
    /// Time since it started.
    pub uptime_ms: u64,
    /// How its replicas are.
    pub replicas: Vec<ReplicaReport>,
    /// What scrub found on its disks.
    pub scrubs: Vec<DiskScrub>,
    /// The disks it says it has; the cluster may know more.
    pub told: Vec<Disk>,
    /// How long ago it said all this.
    pub age_ms: u64,
}

/// Limit: chunks asked for at once; each is read.
pub const COPIES_MAX: usize = 1024;

/// Where one replica has copies of chunks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaCopies {
    /// Which.
    pub replica_id: u64,
    /// Its disk.
    pub disk_id: DiskId,
    /// One for each digest asked for, in that order; `None`: it has none.
    pub copies: Vec<Option<ChunkCopy>>,
}

/// One copy of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkCopy {
    /// Where in the disk's journal: segment and offset.
    pub place: (u64, u64),
    /// It was read now and is what its digest says.
    pub is_good: bool,
    /// When scrub last verified that place; `None` if not since it was written.
    pub verified_at: Option<LogTime>,
}

/// How a cluster begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterInit {
    /// Node names with the disk; `None` stands for every disk of the node.
    pub disks: Vec<(String, Option<DiskId>)>,
    /// Data shards.
    pub n_shards: u32,
    /// Replicas of each shard.
    pub n_replicas: u32,
    /// Settings of the cluster.
    pub settings: BTreeMap<String, String>,
}

/// Which replica moves where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MoveReplica {
    /// Of which shard.
    pub shard: ShardId,
    /// Name of the node that has it.
    pub from: String,
    /// Name of the node that shall have it.
    pub to: String,
    /// On which of its disks; `None` for the one that carries least.
    pub disk: Option<DiskId>,
}

/// The operator's side of a node. `NotLeader` sends the caller to the leader of the meta group, or of
/// the shard in question.
#[async_trait]
pub trait AdminHandler: Send + Sync + 'static {
    /// How the cluster is, or this node alone.
    async fn status(&self, local: bool) -> Result<Status, MetaError>;

    /// Forms a cluster. The second time is refused.
    async fn cluster_init(&self, init: ClusterInit) -> Result<(), MetaError>;

    /// Hands a shard's leadership to the replica on the node `to`; done when that leads.
    async fn transfer_leader(&self, shard: ShardId, to: &str) -> Result<(), MetaError>;

    /// Begins to empty a node, or calls that off.
    async fn drain(&self, node: &str, undo: bool) -> Result<(), MetaError>;

    /// Adds a shard with replicas where there is room.
    async fn add_shard(&self, n_replicas: u32) -> Result<ShardId, MetaError>;

    /// Where this node has copies of chunks of a shard, each read and verified now.
    async fn copies(
        &self,
        shard: ShardId,
        digests: Vec<Digest>,
    ) -> Result<Vec<ReplicaCopies>, MetaError>;

    /// Lets a node leave for good; refused while it has replicas.
    async fn remove_node(&self, node: &str) -> Result<(), MetaError>;

    /// Begins to empty a disk, which is never used again.
    async fn retire_disk(&self, disk: DiskId) -> Result<(), MetaError>;

    /// Begins to verify everything on a disk of this node, as fast as it goes. It is done when the disk's
    /// number of passes has come to the number given.
    async fn scrub_disk(&self, disk: DiskId) -> Result<u64, MetaError>;

    /// Begins to move a replica.
    async fn move_replica(&self, to_move: MoveReplica) -> Result<(), MetaError>;

    /// Changes a setting of the cluster; `None` undoes that.
    async fn set(&self, name: &str, value: Option<&str>) -> Result<(), MetaError>;

    /// Gives up a shard's lost majority: the replica on this node goes on alone with what it has.
    async fn recover_shard(&self, shard: ShardId, node: &str) -> Result<(), MetaError>;
}
