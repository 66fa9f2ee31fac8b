//! The stateless process: mail clients on one side, the cluster on the other.
//!
//! Enter at [`Frontend::start`]. `listen` accepts, `connection` has the one loop that drives the
//! engines of crates imap, pop3 and lmtp, and `desk` answers what they ask through a [`Store`].
//! Nothing is kept on disk, so any frontend can be lost at any time.

mod ahead;
mod authenticate;
mod codec;
mod config;
mod connection;
mod desk;
mod http;
mod ingest;
mod large;
mod limits;
mod listen;
mod maildrop;
mod metrics;
mod penalty;
mod proxy;
mod random;
mod shared;
mod socket;
mod store;
mod tls;
mod unix;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use api::client::{Client, ClientConfig};
use api::tls::{Identity, Role};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

pub use config::{Config, ConfigError, SETTINGS, Setting};
pub use listen::Protocol;
pub use proxy::{Network, NotANetwork};
pub use store::{LockToken, Store, Watch};
pub use tls::TlsError;
pub use unix::{FileMode, NotAMode, UnixSocket};

use authenticate::Authenticator;
use large::Large;
use limits::{Counter, GAPS_MAX, LISTINGS_MAX, Limits, SEARCHES_MAX, Turns};
use listen::{Listener, Port};
use metrics::Metrics;
use penalty::Penalties;
use shared::Shared;
use tls::Shown;

/// Limit: how long sessions may take to say goodbye when the process ends. Why twice what the store may take
/// for an answer: a delivery that is not replied to comes again, and it may wait for one after the other.
const GOODBYE_WITHIN: Duration = Duration::from_secs(20);

/// Why a frontend does not start; the text says all of it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Settings that do not go together.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// TLS towards clients.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Who this process is towards the cluster.
    #[error(transparent)]
    Identity(#[from] api::tls::TlsError),
    /// The certificate towards the cluster is another role's.
    #[error("the certificate is for {certificate}, not for a frontend: see `rookery ctl cert`")]
    Role {
        /// The name it proves.
        certificate: String,
    },
    /// The way to the cluster.
    #[error(transparent)]
    Client(#[from] api::client::Error),
    /// A port is taken, or not ours to take.
    #[error("listen on {address} for {protocol}: {reason}; choose another with `{protocol}`")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What for; also the key of the setting.
        protocol: &'static str,
        /// Why not.
        reason: std::io::Error,
    },
    /// A path is taken, or not ours to take.
    #[error("listen at {path} for lmtp: {reason}; choose another with `lmtp_unix`")]
    ListenUnix {
        /// Where.
        path: String,
        /// Why not.
        reason: std::io::Error,
    },
}

/// Limit: connections of MTAs, besides those of mail clients. Each MTA keeps some twenty to a hundred.
const DELIVERIES_MAX: u32 = 1_000;

/// Limit: passwords hashed at once, each of which takes 19 MiB; 8 are some 250 logins a second.
const HASHING_MAX: usize = 8;

/// A running frontend.
pub struct Frontend {
    addresses: BTreeMap<Protocol, SocketAddr>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

impl Frontend {
    /// Starts over the cluster the settings name. Cancelling `shutdown` ends the listeners and lets
    /// the sessions say goodbye.
    pub async fn start(config: &Config, shutdown: CancellationToken) -> Result<Self, StartError> {
        let identity = Identity::load(&config.identity)?;
        let peer = identity.peer();
        // Why: a process that is open to the internet holds no key that operates the cluster.
        if peer.role != Role::Frontend {
            return Err(StartError::Role { certificate: peer.dns_name() });
        }
        let client = Client::new(ClientConfig {
            seeds: config.seeds.clone(),
            identity,
            name: config.name.clone(),
            bind: config.bind,
        })?;
        Self::start_over(config, Arc::new(client), shutdown).await
    }

    /// The same over any store.
    pub async fn start_over(
        config: &Config,
        store: Arc<dyn Store>,
        shutdown: CancellationToken,
    ) -> Result<Self, StartError> {
        config.check()?;
        let shown = shown(config)?;
        let shared = Arc::new(shared(config, store, shown.as_ref())?);
        let room = |n_max| Arc::new(Semaphore::new(n_max as usize));
        // Why two: who fills the places of mail clients must not keep mail from coming in.
        let for_clients = room(config.connections_max);
        let for_mtas = room(config.connections_max.min(DELIVERIES_MAX));
        let tasks = TaskTracker::new();
        let mut addresses = BTreeMap::new();
        let ports = [
            (Protocol::Imap, config.imap),
            (Protocol::Imaps, config.imaps),
            (Protocol::Pop3, config.pop3),
            (Protocol::Pop3s, config.pop3s),
            (Protocol::Lmtp, config.lmtp),
            (Protocol::Http, config.http),
        ];
        // All are bound before one is served: a port that is taken leaves nothing half started.
        let mut listeners = Vec::new();
        for (protocol, address) in ports {
            let Some(address) = address else { continue };
            let fail = |reason| StartError::Listen { address, protocol: protocol.name(), reason };
            let listener = TcpListener::bind(address).await.map_err(fail)?;
            addresses.insert(protocol, listener.local_addr().map_err(fail)?);
            listeners.push((protocol, Listener::Tcp(listener)));
        }
        if let Some(socket) = &config.lmtp_unix {
            let path = socket.path.display().to_string();
            let fail = |reason| StartError::ListenUnix { path, reason };
            let (listener, _file) = unix::listen(socket).map_err(fail)?;
            listeners.push((Protocol::Lmtp, Listener::Unix { listener, _file }));
        }
        for (protocol, listener) in listeners {
            let (shared, shutdown) = (Arc::clone(&shared), shutdown.clone());
            match listener {
                Listener::Tcp(listener) if protocol == Protocol::Http => {
                    tasks.spawn(http::serve(listener, shared, shutdown));
                }
                listener => {
                    let room = if protocol.is_for_clients() { &for_clients } else { &for_mtas };
                    let (room, tasks) = (Arc::clone(room), tasks.clone());
                    let port = Port { protocol, listener, shared, room, tasks, shutdown };
                    port.tasks.clone().spawn(port.serve());
                }
            }
        }
        if let Some(shown) = shown {
            tasks.spawn(shown.follow(shutdown.clone()));
        }
        info!(name = %config.name, "frontend serves");
        Ok(Self { addresses, tasks, shutdown })
    }

    /// Where a protocol is served; also when the port was left to the kernel.
    pub fn address(&self, protocol: Protocol) -> Option<SocketAddr> {
        self.addresses.get(&protocol).copied()
    }

    /// Returns after `shutdown` was cancelled and the sessions are over, or had time enough.
    pub async fn stopped(self) {
        self.shutdown.cancelled().await;
        self.tasks.close();
        if timeout(GOODBYE_WITHIN, self.tasks.wait()).await.is_err() {
            info!(n_sessions = self.tasks.len(), "sessions were cut off");
        }
    }
}

fn shown(config: &Config) -> Result<Option<Arc<Shown>>, TlsError> {
    match (&config.tls_certificate, &config.tls_key) {
        (Some(certificate), Some(key)) => Shown::load(certificate, key).map(Some),
        _ => Ok(None),
    }
}

fn shared(
    config: &Config,
    store: Arc<dyn Store>,
    shown: Option<&Arc<Shown>>,
) -> Result<Shared, StartError> {
    let tls = shown.map(Shown::acceptor).transpose()?;
    let n_cores = std::thread::available_parallelism().map_or(1, usize::from);
    let limits = Limits {
        addresses: Counter::new(config.connections_per_address_max),
        servers: Counter::new(config.connections_max),
        mtas: Counter::new(config.connections_max.min(DELIVERIES_MAX)),
        accounts: Counter::new(config.connections_per_account_max),
        searches: Turns::new(SEARCHES_MAX),
        listings: Turns::new(LISTINGS_MAX),
        gaps: Turns::new(GAPS_MAX),
    };
    Ok(Shared {
        authenticator: Authenticator::new(Arc::clone(&store), n_cores.min(HASHING_MAX)),
        store,
        limits,
        penalties: Penalties::default(),
        large: Large::default(),
        message_bytes_max: config.message_bytes_max,
        hostname: config.hostname.clone(),
        allow_plain_login: config.allow_plain_login,
        trusted_proxies: config.trusted_proxies.clone(),
        metrics: Arc::new(Metrics::default()),
        tls,
    })
}
