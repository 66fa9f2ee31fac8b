//! The journal on a disk that loses, tears, fills up, fails and rots.
#![allow(clippy::unwrap_used)]

mod door;
mod model;

mod collect;
mod crash;
mod errors;
mod full;
mod hung;
mod idle;
mod overlap;
mod rot;
mod unreadable;
