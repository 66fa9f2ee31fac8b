//! POP3 (RFC 1939): how a mailbox is emptied.
//!
//! Enter at [`Session`], an [`mailbox::dialogue::Engine`]. The maildrop is INBOX as it was at the
//! login. It promises that nothing is removed but by QUIT, that QUIT says `+OK` only when what it
//! removed is committed, and that a message that cannot be read whole ends the connection rather
//! than look complete.
//!
//! An account that is suspended or deleted ends its sessions at their next command, though they know
//! the maildrop and read ahead: whoever knows nothing newer than [`ADMITTED_FOR_MS`] asks first. So does a
//! new UIDVALIDITY of INBOX, of which QUIT always asks before it removes anything. A new name or a new
//! password ends no session, as in IMAP.
//!
//! Sizes in STAT and LIST are the stored octets. What is sent is the same except that a message
//! which came in by APPEND may have bare line feeds, which become CRLF on the wire, and may lack its
//! last line end, which is added.
//!
//! UTF8 (RFC 6856) is for clients to say that they read it. Who does not say so gets such messages as
//! well, and as they are, since to withhold or rewrite them would lose what was sent.

mod listing;
mod maildrop;
mod parse;
mod refuse;
mod sasl;
mod session;
mod wire;

pub use session::{Session, Settings};

/// Limit: octets of a command line. RFC 2449 4 says 255; RFC 5034 4 lifts that for AUTH.
pub const LINE_BYTES_MAX: usize = 4096;

/// Limit: wrong passwords on one connection.
pub const AUTH_FAILURES_MAX: u32 = 3;

/// Limit: commands that were none.
pub const BAD_COMMANDS_MAX: u32 = 20;

/// Limit: octets received and not yet looked at.
pub const INPUT_BYTES_MAX: usize = 16 * 1024;

/// Limit: octets of replies gathered before they are sent, while pipelined commands are read.
pub const OUTPUT_BYTES_MAX: usize = 16 * 1024;

/// Messages whose chunk lists are asked for at once, so that a client that drains the maildrop costs
/// one query for so many RETR.
pub const BODIES_AHEAD: usize = 32;

/// For so long after the store last said so a session takes it that its account may be read. Why: less
/// than it takes an operator to look what came of a suspension, and still a client that drains the
/// maildrop at full speed asks ten times a second rather than once for each message.
pub const ADMITTED_FOR_MS: u64 = 100;

/// RFC 1939 3: an inactivity timer is at least ten minutes.
pub const IDLE_LIMIT_S: u32 = 600;
