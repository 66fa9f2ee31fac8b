//! Whole sessions against the state machine in memory.

#[path = "../../mailbox/tests/memory/mod.rs"]
mod memory;

use std::path::Path;

use pop3::{Session, Settings};

/// One that is lost is missed.
const TRANSCRIPTS: usize = 18;

#[test]
fn sessions_go_as_written() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    memory::transcript::run_all(&directory, TRANSCRIPTS, |name| {
        // Those named `plain-...` are on a connection that may and must do without TLS.
        let is_plain = name.starts_with("plain");
        Box::new(Session::new(Settings {
            hostname: "mail.example.test".into(),
            is_tls: false,
            can_start_tls: !is_plain,
            allow_plain_login: is_plain,
        }))
    });
}
