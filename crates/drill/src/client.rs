//! Small blocking clients of the mail protocols, for the drill and for tests: what they need and no
//! more. An I/O error in a failure's chain means that the connection cannot be used any further.

pub mod imap;
pub mod line;
pub mod lmtp;
pub mod pop3;
#[cfg(test)]
pub(crate) mod script;

use std::io;

/// Whether a failure cost the connection: it broke, or an answer did not come in time.
pub fn is_lost(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.is::<io::Error>())
}
