//! Why a node does not start, or ends; each in one line that says what to do.

use std::net::SocketAddr;

/// Why a node does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration cannot work.
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    /// Certificate or key are missing or do not fit.
    #[error("identity: {0}")]
    Identity(String),
    /// An address cannot be listened on.
    #[error("listen on {address}: {reason}: free the port or choose another with `{setting}`")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// The setting it comes from.
        setting: &'static str,
        /// The system's words.
        reason: String,
    },
    /// A data directory is not usable.
    #[error("{0}")]
    Directory(String),
    /// The cluster does not take this node.
    #[error("the cluster refuses this node: {0}")]
    Refused(String),
    /// The server ended by itself.
    #[error("serve: {0}")]
    Serve(std::io::Error),
    /// It ended, and something still holds on to why.
    #[error("{0}")]
    Ended(String),
}
