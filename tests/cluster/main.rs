//! Tests with real processes: a demo cluster, its protocols, and `kill -9`.

mod bytes;
mod clients;
mod drill;
mod failover;
mod help_page;
mod large;
mod lifecycle;
mod recovery;
mod replacement;
mod rot;
