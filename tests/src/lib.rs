//! Helpers of the end-to-end tests: a demo cluster of real processes, the drill's small blocking clients
//! for its protocols, and messages to send.

pub mod demo;
pub mod frontend;
pub mod fuzz;
pub mod http;
pub mod messages;
pub mod wait;

pub use drill::client::{imap, line, lmtp, pop3};
