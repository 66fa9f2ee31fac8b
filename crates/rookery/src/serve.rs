//! `rookery node` and `rookery frontend`: configuration, signals, and the process around the library.

use std::num::NonZero;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use admin::process::ALIVE;
use anyhow::{Context as _, Result};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{demo, descriptors, logging};

/// How long to wait, when everything else has ended, for work that cannot be interrupted, such as an index
/// that is being made: what is not done by then is as after a kill.
const END_PATIENCE: Duration = Duration::from_millis(500);

/// `rookery node`
#[derive(Args)]
pub struct NodeArgs {
    /// Configuration file (TOML)
    #[arg(long)]
    config: PathBuf,
    /// Nodes of the cluster to join, host:port, separated by commas; replaces the file's `join`
    #[arg(long, value_delimiter = ',')]
    join: Vec<String>,
    /// Let `rookery drill` hurt this node: crash it, cut it off, wipe a disk of it
    #[arg(long)]
    allow_drills: bool,
}

/// `rookery frontend`
#[derive(Args)]
pub struct FrontendArgs {
    /// Configuration file (TOML)
    #[arg(long)]
    config: PathBuf,
}

/// Runs a node until it is told to end.
pub fn node(args: NodeArgs) -> Result<ExitCode> {
    let mut config = node::Config::load(&args.config)
        .with_context(|| format!("serve: {}", args.config.display()))?;
    if !args.join.is_empty() {
        config.join = args.join;
    }
    config.allow_drills |= args.allow_drills;
    keep_private();
    logging::start();
    descriptors::raise(0);
    run(async move |shutdown| {
        let node = node::Node::start(config, shutdown).await.context("serve")?;
        node.stopped().await.context("serve")
    })
}

/// Runs a frontend until it is told to end.
pub fn frontend(args: FrontendArgs) -> Result<ExitCode> {
    let text = std::fs::read_to_string(&args.config)
        .with_context(|| format!("serve: read {}", args.config.display()))?;
    let config = frontend::Config::from_toml(&text)
        .with_context(|| format!("serve: {}", args.config.display()))?;
    logging::start();
    descriptors::raise(config.connections_max.into());
    run(async move |shutdown| {
        let frontend = frontend::Frontend::start(&config, shutdown).await.context("serve")?;
        frontend.stopped().await;
        Ok(())
    })
}

/// What a node writes is mail, and hashes of passwords: nobody else on the machine reads it.
fn keep_private() {
    // SAFETY: umask(2) takes a number and gives one, and no other thread runs yet.
    unsafe { libc::umask(0o077) };
}

/// Runs a service on all cores, or as many as `TOKIO_WORKER_THREADS` says, until SIGTERM or SIGINT cancelled
/// its token and it ended.
fn run(service: impl AsyncFnOnce(CancellationToken) -> Result<()>) -> Result<ExitCode> {
    let runtime = runtime().context("start runtime")?;
    let ended = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
        let told = shutdown.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => info!("told to end by SIGTERM"),
                _ = interrupt.recv() => info!("told to end by SIGINT"),
            }
            told.cancel();
        });
        end_with_demo(shutdown.clone());
        service(shutdown).await.map(|()| ExitCode::SUCCESS)
    });
    runtime.shutdown_timeout(END_PATIENCE);
    ended
}

/// A demo's process ends when the demo does, also when that was killed and could end nobody.
fn end_with_demo(shutdown: CancellationToken) {
    let Some(path) = std::env::var_os(ALIVE) else { return };
    std::thread::spawn(move || {
        match demo::alive::wait_for_end(&path) {
            Ok(()) => info!("told to end: the demo is gone"),
            Err(error) => warn!(%error, "not known whether the demo runs"),
        }
        shutdown.cancel();
    });
}

/// Why another kind for one thread: where no task can be another thread's, to wake one costs less.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let n_workers = match std::env::var("TOKIO_WORKER_THREADS") {
        Ok(n) => n.parse().ok(),
        Err(_) => std::thread::available_parallelism().ok().map(NonZero::get),
    };
    let mut runtime = match n_workers {
        Some(1) => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    runtime.enable_all().build()
}
