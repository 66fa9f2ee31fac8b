//! What replicas write and read: records, blobs, and the pointers that find them again.
//!
//! Records are opaque here: `meta` and blob bytes are never looked into. All records of a disk are
//! in one order, the order in which they were appended.

use std::fmt;

use bytes::Bytes;

/// One replica of one shard. Minted elsewhere and never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId(pub u64);

/// The random identity a disk gets when it is formatted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiskId(pub [u8; 16]);

/// One file of the journal. Never used twice on a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub u64);

/// The BLAKE3 of a chunk's raw bytes. The journal stores it and never computes it.
pub type Digest = [u8; 32];

/// Where one record or one blob lies on this disk. Local: it means nothing on another disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pointer {
    /// The segment it lies in.
    pub segment: SegmentId,
    /// The first byte of its header.
    pub offset: u64,
    /// Header and content together.
    pub len: u32,
}

/// One chunk body with what is needed to decode it.
#[derive(Clone, PartialEq, Eq)]
pub struct Blob {
    /// Names the raw bytes.
    pub digest: Digest,
    /// How `bytes` were made from the raw bytes; 0 is "as they are". The rest is the caller's.
    pub codec: u8,
    /// Length of the raw bytes.
    pub raw_len: u32,
    /// Key that encrypted `bytes`; 0 is "not encrypted".
    pub key_id: u32,
    /// Nonce of the encryption, if there was one.
    pub nonce: Option<[u8; 12]>,
    /// What is stored.
    pub bytes: Bytes,
}

/// One thing a replica tells its disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The replica's vote, replacing the one before.
    Vote {
        /// Who voted.
        replica: ReplicaId,
        /// Opaque.
        vote: Bytes,
    },
    /// One Raft log entry.
    Append {
        /// Whose log.
        replica: ReplicaId,
        /// Its log index.
        index: u64,
        /// Opaque; its first [`ENTRY_HEAD_BYTES`](crate::ENTRY_HEAD_BYTES) are given back by
        /// recovery without another read, so the log id belongs at its beginning.
        meta: Bytes,
        /// Chunk bodies that travel in the entry.
        blobs: Vec<Blob>,
    },
    /// All entries from this index on are gone.
    Truncate {
        /// Whose log.
        replica: ReplicaId,
        /// The first index that is gone.
        from_index_inclusive: u64,
    },
    /// All entries up to this index are no longer needed.
    Purge {
        /// Whose log.
        replica: ReplicaId,
        /// The last index that is gone.
        upto_index_inclusive: u64,
        /// Opaque: the log id of the last entry that is gone.
        meta: Bytes,
    },
    /// The committed log id; a hint nobody waits for.
    Committed {
        /// Whose log.
        replica: ReplicaId,
        /// Opaque.
        meta: Bytes,
    },
    /// The replica begins to live on this disk.
    Born {
        /// Who.
        replica: ReplicaId,
        /// Opaque: shard and whatever else identifies it.
        meta: Bytes,
    },
    /// The replica left this disk for good. Its id stays known as dead.
    Dead {
        /// Who.
        replica: ReplicaId,
    },
    /// Bodies without an entry: fetched from a peer, or copied forward by garbage collection.
    Blobs {
        /// Whose bodies.
        replica: ReplicaId,
        /// The bodies.
        blobs: Vec<Blob>,
    },
}

impl Record {
    /// Whose record it is.
    pub fn replica(&self) -> ReplicaId {
        match self {
            Self::Vote { replica, .. }
            | Self::Append { replica, .. }
            | Self::Truncate { replica, .. }
            | Self::Purge { replica, .. }
            | Self::Committed { replica, .. }
            | Self::Born { replica, .. }
            | Self::Dead { replica }
            | Self::Blobs { replica, .. } => *replica,
        }
    }

    /// The bodies it carries.
    pub fn blobs(&self) -> &[Blob] {
        match self {
            Self::Append { blobs, .. } | Self::Blobs { blobs, .. } => blobs,
            _ => &[],
        }
    }

    pub(crate) fn meta(&self) -> &[u8] {
        match self {
            Self::Vote { vote, .. } => vote,
            Self::Append { meta, .. }
            | Self::Purge { meta, .. }
            | Self::Committed { meta, .. }
            | Self::Born { meta, .. } => meta,
            Self::Truncate { .. } | Self::Dead { .. } | Self::Blobs { .. } => &[],
        }
    }

    pub(crate) fn meta_bytes(&self) -> Bytes {
        match self {
            Self::Vote { vote, .. } => vote.clone(),
            Self::Append { meta, .. }
            | Self::Purge { meta, .. }
            | Self::Committed { meta, .. }
            | Self::Born { meta, .. } => meta.clone(),
            Self::Truncate { .. } | Self::Dead { .. } | Self::Blobs { .. } => Bytes::new(),
        }
    }

    pub(crate) fn index(&self) -> u64 {
        match self {
            Self::Append { index, .. } => *index,
            Self::Truncate { from_index_inclusive, .. } => *from_index_inclusive,
            Self::Purge { upto_index_inclusive, .. } => *upto_index_inclusive,
            _ => 0,
        }
    }

    pub(crate) fn kind(&self) -> u8 {
        match self {
            Self::Vote { .. } => 1,
            Self::Append { .. } => APPEND,
            Self::Truncate { .. } => 3,
            Self::Purge { .. } => 4,
            Self::Committed { .. } => 5,
            Self::Born { .. } => 6,
            Self::Dead { .. } => 7,
            Self::Blobs { .. } => 8,
        }
    }

    pub(crate) fn from_parts(parts: Parts) -> Option<Self> {
        let Parts { kind, replica, index, meta, blobs } = parts;
        Some(match kind {
            1 => Self::Vote { replica, vote: meta },
            APPEND => Self::Append { replica, index, meta, blobs },
            3 => Self::Truncate { replica, from_index_inclusive: index },
            4 => Self::Purge { replica, upto_index_inclusive: index, meta },
            5 => Self::Committed { replica, meta },
            6 => Self::Born { replica, meta },
            7 => Self::Dead { replica },
            8 => Self::Blobs { replica, blobs },
            _ => return None,
        })
    }
}

/// The kind of a log entry.
pub(crate) const APPEND: u8 = 2;

/// A record taken apart, as it lies on the disk.
pub(crate) struct Parts {
    pub kind: u8,
    pub replica: ReplicaId,
    pub index: u64,
    pub meta: Bytes,
    pub blobs: Vec<Blob>,
}

/// Where a record and its blobs were written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The whole record.
    pub record: Pointer,
    /// Its blobs, in their order.
    pub blobs: Vec<Pointer>,
}

/// A record as it was read back, all its checksums verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// What was written.
    pub record: Record,
    /// Where its blobs are.
    pub blobs: Vec<Pointer>,
}

/// A body found in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// Whose record carried it.
    pub replica: ReplicaId,
    /// What it is.
    pub digest: Digest,
    /// Where it is.
    pub pointer: Pointer,
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for DiskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({:02x}{:02x}.., {} B)", self.digest[0], self.digest[1], self.bytes.len())
    }
}
