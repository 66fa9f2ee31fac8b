//! Where everything is: what the meta group decides and everybody caches.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use mailbox::ShardId;
use minicbor::{Decode, Encode};

/// The group that keeps the placement itself.
pub const META_SHARD: ShardId = ShardId(0);

/// A node's random identity, minted at its first start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
#[cbor(transparent)]
pub struct NodeId(#[cbor(with = "minicbor::bytes")] pub [u8; 16]);

/// A disk's random identity, minted when it was formatted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
#[cbor(transparent)]
pub struct DiskId(#[cbor(with = "minicbor::bytes")] pub [u8; 16]);

/// A cluster's random identity, minted when it was formed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
#[cbor(transparent)]
pub struct ClusterId(#[cbor(with = "minicbor::bytes")] pub [u8; 16]);

/// So many ids of replicas count as given out when the meta group lost its majority: more than any cluster
/// ever has.
pub const LOST_IDS: u64 = 1 << 32;

/// The whole placement at one version.
/// Invariant: nodes ascend by name, shards by id; directory slots are 1,024 or none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Placement {
    /// Ascends with each change: the meta group's log index. 0 before anything is known.
    #[n(0)]
    pub version: u64,
    /// All zero before the cluster was formed.
    #[n(1)]
    pub cluster: ClusterId,
    /// In order of name.
    #[n(2)]
    pub nodes: Vec<Node>,
    /// In order of id, the meta group included.
    #[n(3)]
    pub shards: Vec<Shard>,
    /// The shard that keeps each directory slot.
    #[n(4)]
    pub directory_slots: Vec<ShardId>,
    /// Settings of the cluster.
    #[n(5)]
    pub settings: BTreeMap<String, String>,
    /// Where ids of replicas begin, [`LOST_IDS`] from each, which a majority of the meta group that was
    /// lost may have given out: nothing is known of them.
    #[n(6)]
    pub lost_ids: Vec<u64>,
}

/// One storage node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Node {
    /// As its certificate proves it.
    #[n(0)]
    pub name: String,
    /// Its random identity.
    #[n(1)]
    pub node_id: NodeId,
    /// `host:port` where it listens, resolved at every reconnect.
    #[n(2)]
    pub address: String,
    /// Replicas of a shard are kept in different zones where possible.
    #[n(3)]
    pub zone: String,
    /// Its disks.
    #[n(4)]
    pub disks: Vec<Disk>,
    /// Being emptied.
    #[n(5)]
    pub draining: bool,
    /// Random, drawn at each start of its process.
    #[n(6)]
    pub run_id: u64,
}

/// One disk of a node.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Disk {
    /// Its random identity.
    #[n(0)]
    pub disk_id: DiskId,
    /// How often it was opened; a lower count than known means it was rolled back. [`Disk::NOT_OPENED`]
    /// where that is not known.
    #[n(1)]
    pub start_count: u64,
    /// Its size.
    #[n(2)]
    pub size_bytes: u64,
    /// What of it is free.
    #[n(3)]
    pub free_bytes: u64,
    /// Whether it may be used.
    #[n(4)]
    pub state: DiskState,
    /// Where it is on its node; for people.
    #[n(5)]
    pub path: String,
    /// Random, drawn at its first start after the cluster admitted it; 0 when not known.
    #[n(6)]
    pub start_id: u64,
    /// What `start_id` was when the cluster admitted it last, as the disk has it.
    #[n(7)]
    pub previous_start_id: u64,
    /// Batches in its journal that are synced; `None` when not told. When its node registers: those it
    /// had when it was started first after the cluster admitted it last. The placement never has it.
    #[n(8)]
    pub n_synced: Option<u64>,
}

/// A disk with less free space refuses growth.
const FREE_BYTES_MIN: u64 = 1 << 30;

impl Disk {
    /// What its node says of its starts when it could not open it.
    pub const NOT_OPENED: u64 = u64::MAX;

    /// Whether it is known how often it was opened.
    pub fn is_opened(&self) -> bool {
        self.start_count != Self::NOT_OPENED
    }

    /// Growth is refused: it leads only where every other disk is full too, and takes no replica.
    pub fn is_full(&self) -> bool {
        self.free_bytes < FREE_BYTES_MIN
    }
}

/// Whether a disk may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum DiskState {
    /// It may.
    #[n(1)]
    Ok,
    /// A write or sync failed: never again.
    #[n(2)]
    Poisoned,
    /// Being emptied.
    #[n(3)]
    Draining,
    /// Emptied: never used again.
    #[n(4)]
    Retired,
}

/// One Raft group.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Shard {
    /// Which.
    #[n(0)]
    pub shard: ShardId,
    /// Who keeps it.
    #[n(1)]
    pub replicas: Vec<Replica>,
    /// Name of the node that led when last heard of; a hint.
    #[n(2)]
    pub leader: Option<String>,
    /// Replicas it shall have.
    #[n(3)]
    pub n_wanted: u32,
    /// The replica that was forced to stand alone and has not recovered yet: nobody is served until then.
    #[n(4)]
    pub forced: Option<u64>,
    /// Replicas that force put out; whatever they say is of another history.
    #[n(5)]
    pub outcasts: Vec<u64>,
}

/// One copy of a shard.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Replica {
    /// Never reused.
    #[n(0)]
    pub replica_id: u64,
    /// Name of its node.
    #[n(1)]
    pub node: String,
    /// Its disk.
    #[n(2)]
    pub disk_id: DiskId,
    /// Whether it votes.
    #[n(3)]
    pub role: ReplicaRole,
    /// Of a learner: the replica in whose place it shall vote; `None` makes it a further one.
    #[n(4)]
    pub replaces: Option<u64>,
}

/// Whether a replica votes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum ReplicaRole {
    /// It votes.
    #[n(1)]
    Voter,
    /// It only follows.
    #[n(2)]
    Learner,
}

impl Placement {
    /// One shard by id.
    pub fn shard(&self, shard: ShardId) -> Option<&Shard> {
        let at = self.shards.binary_search_by_key(&shard, |shard| shard.shard).ok()?;
        self.shards.get(at)
    }

    /// One node by name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        let at = self.nodes.binary_search_by(|node| node.name.as_str().cmp(name)).ok()?;
        self.nodes.get(at)
    }

    /// Whether a replica with this id may exist that the meta group does not know of: that it is placed
    /// nowhere does not say that it was removed.
    pub fn may_be_lost(&self, replica_id: u64) -> bool {
        let is_of = |from: &u64| (*from..from.saturating_add(LOST_IDS)).contains(&replica_id);
        self.lost_ids.iter().any(is_of)
    }

    /// The shard that keeps a directory slot; `None` before the cluster was formed.
    pub fn directory_shard(&self, slot: u16) -> Option<ShardId> {
        self.directory_slots.get(usize::from(slot)).copied()
    }
}

/// Writes 16 bytes as 32 hexadecimal digits.
fn hex(bytes: &[u8; 16], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// Reads what [`hex`] writes.
fn unhex(text: &str) -> Result<[u8; 16], NotAnId> {
    let mut id = [0; 16];
    if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(NotAnId);
    }
    for (i, byte) in id.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| NotAnId)?;
    }
    Ok(id)
}

/// Why a text is no id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an id of 32 hexadecimal digits")]
pub struct NotAnId;

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Display for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Debug for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl FromStr for NodeId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        unhex(text).map(Self)
    }
}

impl FromStr for DiskId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        unhex(text).map(Self)
    }
}

impl FromStr for ClusterId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        unhex(text).map(Self)
    }
}
