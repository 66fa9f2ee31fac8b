//! Tests with real processes: a demo cluster, its protocols, and `kill -9`.

mod bytes;
mod clients;
mod failover;
mod lifecycle;
mod recovery;
mod replacement;
