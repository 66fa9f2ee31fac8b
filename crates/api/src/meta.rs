//! The meta group as nodes and frontends see it: placement, registration, reports, changes of members.

mod client;

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::Stream;
use mailbox::ShardId;

pub use self::client::MetaClient;
use crate::placement::{ClusterId, Disk, DiskId, Node, Placement, Replica};

/// Why a node did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetaError {
    /// Another node leads the meta group.
    #[error("not the leader")]
    NotLeader {
        /// Its name, if known.
        leader: Option<String>,
    },
    /// No majority, not ready, or nobody could be reached in time.
    #[error("not available: {0}")]
    Unavailable(String),
    /// Against a rule: which one.
    #[error("refused: {0}")]
    Refused(String),
    /// No cluster was formed yet.
    #[error("no cluster was formed yet")]
    NoCluster,
}

/// How a node is; sent to the leader of the meta group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Name of the node that reports.
    pub node: String,
    /// How its disks are.
    pub disks: Vec<Disk>,
    /// How its replicas are.
    pub replicas: Vec<ReplicaReport>,
    /// What scrub found on its disks.
    pub scrubs: Vec<DiskScrub>,
    /// The run it registered with; what an earlier one said counts no more.
    pub run_id: u64,
    /// Of the placement the node knows.
    pub placement_version: u64,
    /// The node goes down now: what its disks have is noted before this is answered.
    pub is_last: bool,
    /// Its program's version; empty from nodes that do not tell.
    pub version: String,
    /// Time since it started.
    pub uptime_ms: u64,
}

/// What scrub did and found on one disk since the node started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskScrub {
    /// Which.
    pub disk_id: DiskId,
    /// Bytes verified.
    pub verified_bytes: u64,
    /// Damaged places found.
    pub n_damaged: u64,
    /// Those of them that are healed.
    pub n_repaired: u64,
    /// Bodies that are damaged now and that no peer has.
    pub n_unrepairable: u64,
    /// For how long the byte that was not verified for longest waits, in milliseconds.
    pub oldest_unverified_ms: u64,
    /// Whole passes.
    pub n_passes: u64,
    /// Members of the shards led from this disk whose rows differ from the leader's.
    pub n_differing: u64,
    /// For how long the disk has not answered, in milliseconds; 0 while it does.
    pub unanswered_ms: u64,
}

/// The placement, if it is newer than the one a reporting node knows.
pub type Newer = Option<Arc<Placement>>;

/// How one replica is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaReport {
    /// Of which shard.
    pub shard: ShardId,
    /// Which.
    pub replica_id: u64,
    /// Its disk.
    pub disk_id: DiskId,
    /// What it does.
    pub state: ReplicaState,
    /// Its term.
    pub term: u64,
    /// Name of the node it takes for the leader.
    pub leader: Option<String>,
    /// Last entry in its log.
    pub last_log: u64,
    /// Last entry it knows to be committed.
    pub committed: u64,
    /// Last entry it applied.
    pub applied: u64,
    /// Additive digest of its rows at `applied`.
    pub digest: [u8; 32],
    /// Chunks its rows name and it does not have; not 0: it is incomplete.
    pub n_missing_chunks: u64,
    /// Chunks it has.
    pub n_chunks: u64,
    /// Octets of chunks it has.
    pub chunk_bytes: u64,
    /// Only when it leads: each other replica and the last entry known to be in its log.
    pub followers: Vec<(u64, u64)>,
    /// Members that vote, as its log has them; during a change those of both sides.
    pub voters: Vec<u64>,
    /// Members that only follow, as its log has them.
    pub learners: Vec<u64>,
    /// A change of members is under way.
    pub is_joint: bool,
    /// Octets of the missing chunks.
    pub missing_bytes: u64,
    /// Octets of rows and chunks it got from its peers since it began.
    pub received_bytes: u64,
    /// It was forced to stand alone, and every mailbox has a new UIDVALIDITY since.
    pub is_recovered: bool,
}

/// A change of who keeps a shard, asked of the shard's leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberChange {
    /// Which shard.
    pub shard: ShardId,
    /// The voters whoever asks knows of; with others nothing is changed.
    pub from_voters: BTreeSet<u64>,
    /// What to do.
    pub what: MemberVerb,
}

/// What to do to a shard's members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberVerb {
    /// A new replica follows.
    AddLearner(Replica),
    /// A replica that only follows follows no more.
    RemoveLearner(u64),
    /// Exactly these vote from now on, in one joint change; the others leave.
    Voters(BTreeSet<u64>),
    /// This replica leads.
    Lead(u64),
}

/// What a replica does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaState {
    /// It recovers, or waits for readmission.
    Starting,
    /// It leads.
    Leader,
    /// It follows and votes.
    Follower,
    /// It asks for votes.
    Candidate,
    /// It follows.
    Learner,
    /// Stopped for good on this disk.
    Failed,
}

/// Placements in order of version, beginning with the present one.
pub type Placements = Pin<Box<dyn Stream<Item = Arc<Placement>> + Send>>;

/// The meta group's side of a node. `from` is the name the caller's certificate proves.
#[async_trait]
pub trait MetaHandler: Send + Sync + 'static {
    /// The placement as this node knows it, leader or not.
    async fn placement(&self) -> Result<Arc<Placement>, MetaError>;

    /// The placement now, if it is newer than `after_version`, and after each change.
    async fn watch_placement(&self, after_version: u64) -> Result<Placements, MetaError>;

    /// A node says who it is and which disks it has; what the cluster knows then. `cluster` is what
    /// its disks belong to, `None` if they are new.
    async fn register_node(
        &self,
        from: &str,
        node: Node,
        cluster: Option<ClusterId>,
    ) -> Result<Arc<Placement>, MetaError>;

    /// A node says how it is.
    async fn report(&self, from: &str, report: Report) -> Result<Newer, MetaError>;

    /// Changes who keeps a shard, if its leader is here.
    async fn change_members(&self, change: MemberChange) -> Result<(), MetaError>;
}
