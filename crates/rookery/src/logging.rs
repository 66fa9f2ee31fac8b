//! Log lines on standard error, one event a line.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Environment variable with the filter, as `tracing-subscriber` reads it.
const FILTER: &str = "ROOKERY_LOG";

/// Our own events from INFO on; the engine's only when a person must come.
const DEFAULT_FILTER: &str = "info,openraft=error,sled=error,h2=warn,tonic=warn";

/// Starts logging; called once per process.
pub fn start() {
    let (filter, misunderstood) = filter(std::env::var(FILTER).ok());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(true)
        // Why: it would tell on standard error that standard error cannot be written (a full disk, a
        // reader that is gone), and panic in whichever task had something to log.
        .log_internal_errors(false)
        .init();
    if let Some(reason) = misunderstood {
        tracing::warn!("{FILTER} is not understood and does not count: {reason}");
    }
}

/// The filter that was asked for, or ours and what is wrong with that one.
fn filter(asked: Option<String>) -> (EnvFilter, Option<String>) {
    match asked.filter(|asked| !asked.is_empty()).map(EnvFilter::try_new) {
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (DEFAULT_FILTER.into(), Some(error.to_string())),
        None => (DEFAULT_FILTER.into(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_is_not_understood_is_told() {
        assert!(filter(None).1.is_none() && filter(Some(String::new())).1.is_none());
        let (ours, reason) = filter(Some("frontend=loud".to_owned()));
        assert!(reason.is_some_and(|reason| !reason.is_empty()));
        assert_eq!(ours.to_string(), filter(None).0.to_string());
        assert_eq!(filter(Some("frontend=debug".to_owned())).0.to_string(), "frontend=debug");
    }
}
