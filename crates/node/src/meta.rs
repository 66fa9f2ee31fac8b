//! The meta group's state machine: nodes, disks, shards with their replicas, directory slots.
//!
//! Pure, like a mailbox shard's: enter at [`apply`] (a [`Command`] changes rows and gives an
//! [`Outcome`]) and at [`placement`] (rows as everybody reads them). [`plan`] decides where replicas go.
//!
//! Invariants: ids of replicas and shards come from counters here and are never given out twice; a
//! shard's voters lie on different nodes; a poisoned disk stays poisoned; the placement's version
//! ascends with every change it shows and with nothing else.

pub mod command;
pub mod plan;

mod apply;
mod rows;
#[cfg(test)]
mod tests;

pub use self::apply::apply;
pub use self::command::{Command, Entry, Founding, Outcome};
pub use self::rows::{mark, placement};
