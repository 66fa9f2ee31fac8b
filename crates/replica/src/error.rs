//! What can go wrong, as far as a caller acts differently on it.

use crate::raft::Member;

/// Opening a disk or a replica failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The disk refuses: not formatted, poisoned, full, damaged.
    #[error(transparent)]
    Disk(#[from] journal::Error),
    /// A file operation beside the journal failed.
    #[error("{doing}: {reason}")]
    Io {
        /// A bare verb and its object.
        doing: &'static str,
        /// The system's words.
        reason: String,
    },
    /// This replica left the disk for good; its id never comes back.
    #[error("replica {replica} is dead on this disk")]
    Dead {
        /// Which.
        replica: u64,
    },
    /// This replica runs already.
    #[error("replica {replica} runs already")]
    Running {
        /// Which.
        replica: u64,
    },
    /// Neither checkpoint nor log give the applied rows: the replica has to be replaced.
    #[error("replica {replica} lost its state: {reason}")]
    Lost {
        /// Which.
        replica: u64,
        /// Why.
        reason: String,
    },
    /// openraft would not start.
    #[error("raft: {0}")]
    Raft(String),
}

impl Error {
    /// Whether the disk failed for good, now or in an earlier life.
    pub fn is_poisoned(&self) -> bool {
        matches!(self, Self::Disk(journal::Error::Poisoned { .. }))
    }

    /// Whether the disk itself fails now.
    pub fn is_of_device(&self) -> bool {
        matches!(self, Self::Disk(journal::Error::Device { .. }))
    }

    /// Whether what tells which disk it is cannot be read any more.
    pub fn is_identity_lost(&self) -> bool {
        matches!(self, Self::Disk(journal::Error::BadIdentity { .. }))
    }

    /// Whether there was no room, or no file descriptor, to begin with.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Disk(journal::Error::Full))
    }

    pub(crate) fn io<E: std::fmt::Display>(doing: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self::Io { doing, reason: error.to_string() }
    }
}

/// Why a proposal was not done, or a read not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Go to the leader. Nothing was done.
    #[error("not the leader")]
    NotLeader {
        /// Where it is, if known.
        leader: Option<Member>,
    },
    /// No majority answers. Nothing was done.
    #[error("no majority reachable")]
    Unavailable,
    /// It may be done yet or not: ask again under the same request id.
    #[error("outcome unknown")]
    Unknown,
    /// The disk has no room for growth. Nothing was done.
    #[error("disk full")]
    Full,
    /// Too much is under way already. Nothing was done.
    #[error("overloaded")]
    Overloaded,
    /// A chunk is not what its digest says. Nothing was done.
    #[error("chunk damaged on its way")]
    Damaged,
    /// The replica is stopped. Nothing was done.
    #[error("replica stopped")]
    Stopped,
}

/// Why a chunk is not to be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// Neither here nor at any peer that answered.
    #[error("chunk not found")]
    Missing,
    /// It is not known whether it is here, or at a peer.
    #[error("not every copy could be looked for")]
    Unavailable,
}
