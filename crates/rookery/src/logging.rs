//! Log lines on standard error, one event a line.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Environment variable with the filter, as `tracing-subscriber` reads it.
const FILTER: &str = "ROOKERY_LOG";

/// Our own events from INFO on; the engine's only when a person must come.
const DEFAULT_FILTER: &str = "info,openraft=error,sled=error,h2=warn,tonic=warn";

/// Starts logging; called once per process.
pub fn start() {
    let filter = EnvFilter::try_from_env(FILTER).unwrap_or_else(|_| DEFAULT_FILTER.into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(true)
        // Why: it would tell on standard error that standard error cannot be written (a full disk, a
        // reader that is gone), and panic in whichever task had something to log.
        .log_internal_errors(false)
        .init();
}
