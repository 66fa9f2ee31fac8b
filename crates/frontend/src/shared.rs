//! What all connections of a frontend share.

use std::sync::Arc;

use tokio_rustls::TlsAcceptor;

use crate::authenticate::Authenticator;
use crate::large::Large;
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::penalty::Penalties;
use crate::proxy::Network;
use crate::store::Store;

/// One for the process.
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) authenticator: Authenticator,
    pub(crate) limits: Limits,
    pub(crate) penalties: Penalties,
    pub(crate) large: Large,
    pub(crate) message_bytes_max: u64,
    pub(crate) hostname: String,
    pub(crate) allow_plain_login: bool,
    pub(crate) trusted_proxies: Vec<Network>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) tls: Option<TlsAcceptor>,
}
