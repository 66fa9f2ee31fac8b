//! Waiting for a condition with a deadline.

use std::time::{Duration, Instant};

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(20);

/// Tries until `attempt` succeeds; after `deadline` its last error is returned.
pub fn until<T>(
    deadline: Duration,
    what: &str,
    mut attempt: impl FnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let end = Instant::now() + deadline;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > end => {
                return Err(error.context(format!("not within {deadline:?}: {what}")));
            }
            Err(_) => std::thread::park_timeout(POLL),
        }
    }
}
