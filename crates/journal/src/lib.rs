//! The journal: one append-only, checksummed, segmented stream per disk, shared by all replicas on
//! that disk.
//!
//! Enter at [`Journal`]. It promises that a record whose `done` was called with `Ok` survives a
//! crash and a power loss; that bytes which do not verify are never handed out; that a full disk
//! refuses and loses nothing; and that a disk with a write or sync error is never used again.
//! It knows nothing of Raft or of mailboxes.

mod codec;
mod collect;
mod encode;
mod error;
mod footer;
mod frame;
#[doc(hidden)]
pub mod fuzz;
mod group;
mod identity;
mod in_flight;
mod journal;
mod manifest;
mod mend;
mod options;
mod queue;
mod read;
mod record;
mod recover;
mod scan;
mod scrub;
mod segment;
mod shared;
mod state;
mod storage;
mod writer;

pub use collect::Collected;
pub use error::Error;
pub use journal::{Journal, SpaceLevel, Usage};
pub use options::{
    ENTRY_HEAD_BYTES, FRAME_BYTES_MAX, OPEN_FILES_MAX, Options, RECORD_BLOBS_MAX, REQUEST_BYTES_MAX,
};
pub use queue::Done;
pub use record::{
    Blob, Digest, DiskId, Location, Pointer, Record, ReplicaId, SegmentId, Stored, Written,
};
pub use recover::{Damage, Damaged, Recovered, RecoveredEntry, RecoveredReplica};
pub use scrub::Scrubbed;
pub use shared::SyncHealth;
pub use storage::{RealStorage, Space, Storage, StorageFile, is_disk_dead, is_unreadable, sim};
