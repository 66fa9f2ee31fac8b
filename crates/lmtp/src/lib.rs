//! LMTP (RFC 2033): how mail comes in.
//!
//! Enter at [`Session`], an [`mailbox::dialogue::Engine`]. It promises one reply per accepted
//! recipient, in order, duplicates included, and 250 only for what the store committed; that data
//! ends at CRLF.CRLF and nowhere else; and that what it could not take is told in words that let
//! the sender keep its copy.

mod chunk;
mod data;
mod parse;
mod refuse;
mod session;
mod trace;

pub use session::{Session, Settings};

/// Limit: octets of a command line. RFC 5321 4.5.3.1.4 says 512, each extension adds its parameters,
/// and RFC 6531 doubles paths.
pub const LINE_BYTES_MAX: usize = 1024;

/// Limit: recipients of one message. RFC 5321 4.5.3.1.8 demands 100; MTAs send 50 at a time.
pub const RECIPIENTS_MAX: usize = 200;

/// Limit: copies of one message, when recipients stand for groups. Each costs a command at once.
pub const DELIVERIES_MAX: usize = 500;

/// Limit: commands in a row that were none.
pub const BAD_COMMANDS_MAX: u32 = 20;

/// Limit: octets received and not yet looked at. One read of the driver is never refused.
pub const INPUT_BYTES_MAX: usize = 64 * 1024;

/// Limit: octets of replies gathered before they are sent, while pipelined commands are read.
pub const OUTPUT_BYTES_MAX: usize = 16 * 1024;

/// Limit: octets of a body handed on at once.
pub const PIECE_BYTES_MAX: usize = 64 * 1024;

/// RFC 5321 4.5.3.2.7: a server waits at least five minutes for the next command.
pub const IDLE_LIMIT_S: u32 = 300;
