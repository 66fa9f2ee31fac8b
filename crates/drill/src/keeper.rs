//! Starts again what died, as a supervisor does, where the drill knows how: on a cluster with a
//! `cluster.json`. Elsewhere systemd or Kubernetes does it.

use std::path::Path;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use admin::cluster_file::{ClusterFile, Process};
use admin::process::{find, spawn};
use anyhow::{Context as _, Result};

/// How often to look.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long a process stays dead, as in `deploy/systemd` (RestartSec).
const RESTART_AFTER: Duration = Duration::from_secs(1);
/// How long what does not start is tried again after the drill.
const LAST_PATIENCE: Duration = Duration::from_secs(10);

/// Watches over the nodes of a cluster file until it is dropped.
pub(crate) struct Keeper {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Begins to watch.
    pub fn start(file: &Path) -> Result<Self> {
        let cluster = ClusterFile::read(file)?;
        let over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&over);
        let thread = std::thread::Builder::new().name("keeper".into());
        let thread = thread.spawn(move || keep(cluster, &stop)).context("start keeper")?;
        Ok(Self { over, thread: Some(thread) })
    }
}

impl Drop for Keeper {
    /// Nothing that died is left dead.
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn keep(cluster: ClusterFile, over: &AtomicBool) {
    let mut nodes: Vec<Kept> = cluster
        .processes
        .into_iter()
        .filter(|process| process.role == "node")
        .map(|process| Kept { process, child: None, dead_since: None })
        .collect();
    let mut over_since = None;
    loop {
        nodes.iter_mut().for_each(Kept::look);
        if over.load(Ordering::Relaxed) {
            let waited = over_since.get_or_insert_with(Instant::now).elapsed();
            if waited > LAST_PATIENCE || nodes.iter().all(|node| node.dead_since.is_none()) {
                return;
            }
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

struct Kept {
    process: Process,
    child: Option<Child>,
    dead_since: Option<Instant>,
}

impl Kept {
    fn look(&mut self) {
        if let Some(child) = &mut self.child {
            // Why not by its name: between fork and the new program it has none of its own yet.
            if matches!(child.try_wait(), Ok(None)) {
                return;
            }
            self.child = None;
        }
        if let Some(pid) = find(&self.process) {
            self.process.pid = pid;
            self.dead_since = None;
            return;
        }
        if self.dead_since.get_or_insert_with(Instant::now).elapsed() < RESTART_AFTER {
            return;
        }
        match spawn(&self.process) {
            Ok(child) => {
                self.process.pid = child.id();
                self.child = Some(child);
                self.dead_since = None;
            }
            Err(error) => tracing::error!(node = self.process.name, %error, "not started again"),
        }
    }
}
