//! Helpers of the end-to-end tests: a demo cluster of real processes, networks and disks that can be
//! hurt, the drill's small blocking clients for its protocols, and messages to send.

pub mod demo;
pub mod failing_sync;
pub mod frontend;
pub mod fuzz;
pub mod hosts;
pub mod http;
pub mod inside;
pub mod messages;
pub mod skip;
pub mod volume;
pub mod wait;
pub mod wires;

pub use drill::client::{imap, line, lmtp, pop3};
