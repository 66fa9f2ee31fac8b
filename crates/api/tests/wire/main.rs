//! The wire over real sockets: identity, peers, and the client against nodes whose faults are set.

#![allow(clippy::unwrap_used)]

mod admin;
mod client;
mod cluster;
mod detours;
mod identity;
mod names;
mod node;
mod onward;
mod peers;
mod reads;
mod watch;
