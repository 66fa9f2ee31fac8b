//! What an operator asks of a node.

mod client;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use mailbox::{Digest, LogTime, ShardId};

pub use self::client::AdminClient;
use crate::meta::{DiskScrub, MetaError, ReplicaReport};
use crate::placement::{DiskId, Node, Placement};

/// How the cluster is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The placement the node knows; `None` before a cluster was formed.
    pub placement: Option<Arc<Placement>>,
    /// Each node that was asked.
    pub nodes: Vec<NodeStatus>,
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
}
