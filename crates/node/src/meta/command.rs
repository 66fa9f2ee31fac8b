//! What can be done to the cluster, and what came of it. Encoded like a shard's commands.

use std::collections::BTreeMap;

use api::placement::{ClusterId, DiskId, DiskState, Node};
use mailbox::{LogTime, ShardId};
use minicbor::{Decode, Encode};

/// One entry of the meta group's log.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Entry {
    /// The leader's clock.
    #[n(0)]
    pub time: LogTime,
    /// What to do.
    #[n(1)]
    pub command: Command,
}

/// A change of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Command {
    /// Forms the cluster; the same again is nothing, another is refused.
    #[n(0)]
    Initialize(#[n(0)] Box<Founding>),
    /// A node says who it is and which disks it has.
    #[n(1)]
    RegisterNode(#[n(0)] Node),
    /// Disks of a node changed state.
    #[n(2)]
    SetDiskState(#[n(0)] DiskId, #[n(1)] DiskState),
    /// A node is to be emptied, or no more.
    #[n(3)]
    SetDraining(#[n(0)] String, #[n(1)] bool),
    /// A new shard with replicas on these disks; the first is the preferred leader.
    #[n(4)]
    CreateShard(#[n(0)] Vec<Seat>),
    /// A new replica of a shard, as a learner; it shall vote in the place of another one if one is named.
    #[n(5)]
    PlaceReplica(#[n(0)] ShardId, #[n(1)] Seat, #[n(2)] Option<u64>),
    /// A learner votes from now on, in the place of another replica if one is named. Written after the
    /// shard's own log has it.
    #[n(6)]
    PromoteReplica(#[n(0)] ShardId, #[n(1)] u64, #[n(2)] Option<u64>),
    /// A replica is no more; never the last voter.
    #[n(7)]
    RemoveReplica(#[n(0)] ShardId, #[n(1)] u64),
    /// Nodes that lead shards now. A shard that has no leader noted was never begun.
    #[n(8)]
    NoteLeaders(#[n(0)] Vec<(ShardId, String)>),
    /// A setting of the cluster; `None` removes it.
    #[n(9)]
    SetSetting(#[n(0)] String, #[n(1)] Option<String>),
    /// A node leaves for good, with its disks; refused while it has replicas.
    #[n(10)]
    RemoveNode(#[n(0)] String),
    /// A disk that its node has no more is forgotten; refused while it has replicas.
    #[n(11)]
    ForgetDisk(#[n(0)] DiskId),
    /// An operator gave a shard's majority up: this replica stands alone, the others are out for ever.
    #[n(12)]
    ForceShard(#[n(0)] ShardId, #[n(1)] u64),
    /// The replica that stands alone leads, and may serve again.
    #[n(13)]
    RecoveredShard(#[n(0)] ShardId, #[n(1)] u64),
    /// So many bytes of a disk are free; told when it gets full, and when it is no more.
    #[n(14)]
    NoteSpace(#[n(0)] DiskId, #[n(1)] u64),
    /// So many batches are synced on these disks: none of them wakes up with fewer, unless it is an
    /// older copy. What is less than known changes nothing. The placement does not tell it.
    #[n(15)]
    NoteMarks(#[n(0)] Vec<(DiskId, u64)>),
}

/// A disk of a node, where a replica is to be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Seat {
    /// Name of the node.
    #[n(0)]
    pub node: String,
    /// Its disk.
    #[n(1)]
    pub disk_id: DiskId,
}

/// All a cluster begins with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Founding {
    /// Random.
    #[n(0)]
    pub cluster: ClusterId,
    /// With their disks.
    #[n(1)]
    pub nodes: Vec<Node>,
    /// The meta group's own replicas; they have the ids 1, 2, ... in this order.
    #[n(2)]
    pub meta: Vec<Seat>,
    /// The data shards 1, 2, ...; the directory slots are spread over them evenly.
    #[n(3)]
    pub shards: Vec<Vec<Seat>>,
    /// Settings of the cluster.
    #[n(4)]
    pub settings: BTreeMap<String, String>,
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Outcome {
    /// Done.
    #[n(0)]
    Done,
    /// Nothing was changed; for people.
    #[n(1)]
    Refused(#[n(0)] String),
    /// The id of the new replica.
    #[n(2)]
    Replica(#[n(0)] u64),
    /// The id of the new shard.
    #[n(3)]
    Shard(#[n(0)] ShardId),
    /// No cluster was formed yet.
    #[n(4)]
    NoCluster,
}
