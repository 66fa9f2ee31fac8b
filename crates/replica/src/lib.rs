//! One replica of a shard: the Raft log in the disk's journal, the applied rows in an index that can
//! be thrown away, checkpoints, and the conversation with the other replicas.
//!
//! Enter at [`Disk`] and [`Replica`]. A response from [`Replica::propose`] means the command is
//! synced on a majority and applied here; a [`View`] from [`Replica::read`] contains everything
//! acknowledged before it was asked for. Only this crate knows openraft and sled.

mod apart;
mod appender;
mod blocking;
mod briefs;
mod checkpoint;
mod chunks;
mod codec;
mod compare;
mod confirm;
mod copies;
mod core;
mod disk;
mod donor;
mod error;
mod feeds;
mod force;
#[doc(hidden)]
pub mod fuzz;
mod handler;
mod index;
mod local;
mod log;
mod machine;
mod network;
mod pace;
mod pending;
mod pipeline;
mod raft;
mod reads;
mod receive;
mod recent;
mod replica;
mod scrub;
mod state;
mod status;
mod store;
#[cfg(test)]
mod suite;
mod supervise;
mod timing;
mod upkeep;
mod view;
mod wire;

pub use copies::Copy;
pub use disk::{Clock, Disk, DiskOptions};
pub use error::{ChunkError, Error, ProposeError};
pub use force::Forced;
pub use journal::{Usage, is_disk_dead};
pub use machine::{LATER_BUILD, Machine, MachineApplied, MailMachine};
pub use raft::Member;
pub use replica::{Replica, ReplicaConfig};
pub use scrub::ScrubStatus;
pub use status::{Role, Status};
pub use timing::Timing;
pub use upkeep::Upkeep;
pub use view::{View, ViewLost};
pub use wire::is_bulk;
