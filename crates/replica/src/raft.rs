//! openraft's types as this crate uses them. Nothing outside the crate sees them.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use mailbox::StoredChunk;
use minicbor::{Decode, Encode};

openraft::declare_raft_types!(
    /// The types of every group on every node.
    pub Types:
        D = Proposal,
        R = Response,
        NodeId = u64,
        Node = Member,
);

pub(crate) type LeaderId = openraft::impls::leader_id_adv::LeaderId<u64, u64>;
pub(crate) type LogId = openraft::LogId<LeaderId>;
pub(crate) type Vote = openraft::Vote<LeaderId>;
pub(crate) type Payload = openraft::EntryPayload<Proposal, u64, Member>;
pub(crate) type Entry = openraft::Entry<LeaderId, Payload>;
pub(crate) type Membership = openraft::Membership<u64, Member>;
pub(crate) type StoredMembership = openraft::StoredMembership<LeaderId, u64, Member>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<LeaderId, u64, Member>;

/// Where a replica lives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Member {
    /// Name of its node.
    #[n(0)]
    pub node: String,
    /// Its disk.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub disk_id: [u8; 16],
}

/// What an entry of the log carries: the encoded command, and bodies beside it.
#[derive(Clone, PartialEq, Eq)]
pub struct Proposal {
    pub(crate) command: Bytes,
    pub(crate) inline: Arc<[StoredChunk]>,
}

/// What the state machine answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response(pub(crate) Vec<u8>);

impl Proposal {
    /// Bytes it takes in memory and, about, on disk.
    pub(crate) fn size_bytes(&self) -> usize {
        self.command.len() + self.inline.iter().map(|chunk| chunk.bytes.len() + 64).sum::<usize>()
    }
}

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} B, {} chunks", self.command.len(), self.inline.len())
    }
}
