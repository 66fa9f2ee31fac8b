//! A storage node: disks, the replicas on them, and what it offers to frontends, nodes and
//! operators.

pub mod config;
pub mod meta;

pub use self::config::Config;
