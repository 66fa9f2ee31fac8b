//! A storage node: disks, the replicas on them, and what it offers to frontends, nodes and
//! operators.
//!
//! Enter at [`Node::start`]. A node opens its disks, runs the replicas it finds there, tells the cluster
//! who it is, and starts what the cluster places on its disks. It never forms a cluster by itself.

mod admin;
mod admission;
pub mod config;
mod controller;
mod disks;
mod drain;
mod error;
mod fault;
mod founding;
mod housekeep;
mod http;
mod leases;
mod lookup;
mod machine;
mod mail;
mod marks;
mod members;
pub mod meta;
mod meta_group;
mod metrics;
mod mounts;
mod peer;
mod recover;
mod refuse;
mod replicas;
mod report;
mod scrub;
mod shared;
mod spread;
mod supervise;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use api::client::ClientConfig;
use api::meta::MetaClient;
use api::peer_grpc::{GrpcTransport, Lane};
use api::serve::{Drill, Onward, Services};
use api::tls::Identity;
use replica::DiskOptions;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use self::config::{Config, SETTINGS, Setting};
pub use self::error::Error;
use self::lookup::Lookups;
use self::shared::{Known, Shared};

/// How long what runs here may take to end once it is told to.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// A running node. Dropping it without [`Node::stopped`] leaves its tasks running.
pub struct Node {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
    shutdown: CancellationToken,
    listen: SocketAddr,
}

impl Node {
    /// Opens disks, starts the replicas on them and serves. When `shutdown` is cancelled the node hands
    /// its leaderships over and stops; [`Node::stopped`] waits for that.
    pub async fn start(config: Config, shutdown: CancellationToken) -> Result<Self, Error> {
        config.check()?;
        let identity = identity(&config)?;
        let listener = listen(config.listen, "listen").await?;
        let http = match config.http {
            Some(address) => Some(listen(address, "http").await?),
            None => None,
        };
        let listen = local(&listener, config.listen);
        shutdown.run_until_cancelled(mounts::awaited(&config)).await;
        let shared = Arc::new(Self::share(config, &identity, listen)?);
        let seeds = admission::seed_clients(&shared, &identity)
            .map_err(|error| Error::Identity(error.to_string()))?;

        let mut tasks = JoinSet::new();
        tasks.spawn(serve(Arc::clone(&shared), listener, identity));
        if let Some(http) = http {
            tasks.spawn(http::serve(Arc::clone(&shared), http));
        }
        let mut node = Self { shared, tasks, shutdown, listen };
        node.begin(seeds).await;
        Ok(node)
    }

    /// Starts the replicas, and what keeps a node going. Who has to end meanwhile does not wait for them: an
    /// index that is being made is left as a kill would leave it.
    async fn begin(&mut self, seeds: Vec<MetaClient>) {
        let (shutdown, stop) = (self.shutdown.clone(), self.shared.stop.clone());
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = stop.cancelled() => return,
            () = self.start_replicas(seeds) => {}
        }
        let Self { shared, tasks, listen, .. } = self;
        tasks.spawn(replicas::follow_placement(Arc::clone(shared)));
        tasks.spawn(marks::mark(Arc::clone(shared)));
        tasks.spawn(spread::spread(Arc::clone(shared)));
        tasks.spawn(housekeep::housekeep(Arc::clone(shared)));
        tasks.spawn(supervise::supervise(Arc::clone(shared)));
        tasks.spawn(scrub::scrub(Arc::clone(shared)));
        tracing::info!(node = shared.name(), %listen, "node started");
    }

    async fn start_replicas(&mut self, seeds: Vec<MetaClient>) {
        let Self { shared, tasks, .. } = self;
        let residents = replicas::residents(shared);
        let residents = replicas::start_meta(shared, residents).await;
        tasks.spawn(meta_group::follow_local(Arc::clone(shared)));
        tasks.spawn(meta_group::follow_others(Arc::clone(shared)));
        // Why before the others start: until a node is admitted none of its replicas votes, and after a power
        // loss everywhere the small shards would wait for the largest index.
        tasks.spawn(admission::register(Arc::clone(shared), seeds));
        tasks.spawn(report::report(Arc::clone(shared)));
        // Why now: the meta group may be led here long before the last replica was started.
        tasks.spawn(controller::control(Arc::clone(shared)));
        replicas::start_others(shared, residents).await;
    }

    /// Waits until the node was shut down, or cannot go on and says why.
    pub async fn stopped(self) -> Result<(), Error> {
        self.ended(true).await
    }

    /// Stops at once, handing nothing over, as a crash would; for tests of failover.
    pub async fn kill(self) {
        self.shutdown.cancel();
        let _ = self.ended(false).await;
    }

    async fn ended(mut self, hand_over: bool) -> Result<(), Error> {
        let stop = self.shared.stop.clone();
        tokio::select! {
            () = self.shutdown.cancelled() => if hand_over { drain::hand_over(&self.shared).await },
            () = stop.cancelled() => {}
        }
        stop.cancel();
        replicas::stop_all(&self.shared).await;
        let joined = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(END_PATIENCE, joined).await.is_err() {
            tracing::warn!("not all that runs here ends: it may wait for a disk that hangs");
            self.tasks.abort_all();
        }
        tracing::info!(node = self.shared.name(), "node stopped");
        match Arc::try_unwrap(self.shared) {
            Ok(shared) => shared.fatal.into_inner().map_or(Ok(()), Err),
            Err(shared) => match shared.fatal.get() {
                Some(error) => Err(Error::Ended(error.to_string())),
                None => Ok(()),
            },
        }
    }

    fn share(mut config: Config, identity: &Identity, listen: SocketAddr) -> Result<Shared, Error> {
        config.listen = listen;
        if config.allow_drills {
            let dirs = config.data_dirs.iter().map(std::path::PathBuf::as_path);
            fault::wipe_marked(dirs)
                .map_err(|error| Error::Directory(format!("wipe for a drill: {error}")))?;
        }
        let fill_bytes_per_s = Some(u64::from(config.fill_mib_s) << 20);
        let has_others = config.data_dirs.len() > 1;
        let options = DiskOptions { fill_bytes_per_s, has_others, ..DiskOptions::default() };
        let disks = disks::Disks::open(&config, &options)?;
        let of_one = |dir: &disks::DataDir| (dir.disk_id, Lookups::new(disks.dirs.len()));
        let lookups = disks.dirs.iter().map(of_one).collect();
        let known = Arc::new(Known::new(disks.cluster));
        let own = config.advertised();
        let seeds = if config.join.is_empty() { vec![own] } else { config.join.clone() };
        let meta_client = MetaClient::new(ClientConfig {
            seeds,
            identity: identity.clone(),
            name: config.name.clone(),
            bind: config.bind,
        });
        let meta_client = meta_client.map_err(|error| Error::Identity(error.to_string()))?;
        let gates = fault::Gates::default();
        let inner = GrpcTransport::new(identity.clone(), config.bind, known.resolver(), lane_of);
        let transport = fault::Cuttable { inner, gate: gates.peers.clone() };
        Ok(Shared {
            lookups,
            in_flight: Semaphore::new(config.in_flight_mib as usize * 1024),
            config,
            disks,
            replicas: Default::default(),
            known,
            transport: Arc::new(transport),
            meta_client,
            reports: Mutex::default(),
            outlook: Mutex::default(),
            admitted: Default::default(),
            draining: Default::default(),
            n_chunks_read: Default::default(),
            n_chunk_bytes_read: Default::default(),
            gates,
            started: Instant::now(),
            run_id: disks::random_u64()?,
            stop: CancellationToken::new(),
            fatal: OnceLock::new(),
        })
    }
}

fn identity(config: &Config) -> Result<Identity, Error> {
    let identity = Identity::load(&config.identity_dir)
        .map_err(|error| Error::Identity(format!("{error}: see `rookery ctl cert`")))?;
    let peer = identity.peer();
    if peer.name != config.name || peer.role != api::tls::Role::Node {
        return Err(Error::Identity(format!(
            "the certificate is for {}, not for node {}: issue one for it, or set `name`",
            peer.dns_name(),
            config.name
        )));
    }
    Ok(identity)
}

async fn listen(address: SocketAddr, setting: &'static str) -> Result<TcpListener, Error> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|error| Error::Listen { address, setting, reason: error.to_string() })
}

fn local(listener: &TcpListener, asked: SocketAddr) -> SocketAddr {
    listener.local_addr().unwrap_or(asked)
}

/// Which requests must not wait behind bodies.
fn lane_of(kind: u8) -> Lane {
    if replica::is_bulk(kind) { Lane::Bulk } else { Lane::Prompt }
}

async fn serve(shared: Arc<Shared>, listener: TcpListener, identity: Identity) {
    let services = Services {
        mail: Arc::new(mail::Mail(Arc::clone(&shared))),
        peer: Arc::new(peer::Peers(Arc::clone(&shared))),
        meta: Arc::new(meta_group::MetaGroup(Arc::clone(&shared))),
        admin: Arc::new(admin::Admin { shared: Arc::clone(&shared), founding: Default::default() }),
        onward: Onward { resolver: shared.known.resolver(), bind: shared.config.bind },
        drill: shared.config.allow_drills.then(|| Drill {
            gate: shared.gates.all.clone(),
            fault: Arc::new(fault::Faults {
                shared: Arc::clone(&shared),
                lasting: Default::default(),
            }),
        }),
    };
    let stop = shared.stop.clone();
    let served = api::serve::serve(listener, identity, services, stop.cancelled_owned());
    if let Err(error) = served.await {
        shared.fail(Error::Serve(error));
    }
    // A server that ended takes the node with it.
    shared.stop.cancel();
}
