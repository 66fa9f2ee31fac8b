//! Tests with real processes: a demo cluster, its protocols, and `kill -9`.

mod bytes;
mod clients;
mod drill;
mod failover;
mod idle;
mod lifecycle;
mod postfix;
mod recovery;
mod replacement;
mod rot;
