//! Whole sessions against the state machine in memory.

#[path = "../../mailbox/tests/memory/mod.rs"]
mod memory;

use std::path::Path;

use lmtp::{Session, Settings};

/// One that is lost is missed.
const TRANSCRIPTS: usize = 24;

#[test]
fn sessions_go_as_written() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    memory::transcript::run_all(&directory, TRANSCRIPTS, |_| {
        Box::new(Session::new(Settings {
            hostname: "mail.example.test".into(),
            session: "5e55".into(),
            peer: Some("192.0.2.7".into()),
            message_bytes_max: 100_000,
        }))
    });
}
