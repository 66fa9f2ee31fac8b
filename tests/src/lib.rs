//! Helpers of the end-to-end tests: a demo cluster of real processes, small blocking clients for its
//! protocols, and messages to send.

pub mod demo;
pub mod frontend;
pub mod fuzz;
pub mod imap;
pub mod line;
pub mod lmtp;
pub mod messages;
pub mod pop3;
pub mod wait;
