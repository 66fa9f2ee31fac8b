//! What a drill may do to this node, if it was started for that. Everything is bounded in time and ends
//! by itself: a drill that dies leaves nothing broken behind.

mod process;
mod rot;
mod wipe;

use std::sync::Arc;
use std::time::Duration;

use api::fault::{Fault, FaultHandler, Gate};
use api::meta::MetaError;
use api::peer::{BoxFuture, PeerError, PeerRequest, PeerResponse, PeerTransport};
use api::placement::DiskId;
use async_trait::async_trait;
use replica::Disk;
use tokio::sync::Mutex;

pub(crate) use self::wipe::wipe_marked;
use crate::shared::Shared;

/// How long after its answer a process ends or falls silent, so that the answer gets out.
const LAST_WORDS: Duration = Duration::from_millis(50);

/// How long a connection lives over which nothing comes, about: what waits for more than that is told.
const BROKEN_AFTER: Duration = Duration::from_secs(2);

/// What cuts this node off.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gates {
    /// Other nodes.
    pub peers: Gate,
    /// Everybody who is connected.
    pub all: Gate,
}

/// Service fault.
pub(crate) struct Faults {
    pub shared: Arc<Shared>,
    /// One fault of a kind that has an end at a time: the end of one is not the end of another.
    pub lasting: Arc<Mutex<()>>,
}

impl Faults {
    fn disk(&self, disk: DiskId) -> Result<&Arc<Disk>, MetaError> {
        let found = self.shared.disks.disk(disk);
        found.ok_or_else(|| MetaError::Refused(format!("no disk {disk} in use here")))
    }

    /// Begins something that ends after this time, whoever asked for it.
    fn last(
        &self,
        duration: Duration,
        begin: impl FnOnce() + Send + 'static,
        end: impl FnOnce() + Send + 'static,
    ) -> Result<(), MetaError> {
        let busy = || MetaError::Refused("another fault has not ended yet".into());
        let lasting = Arc::clone(&self.lasting).try_lock_owned().map_err(|_| busy())?;
        tokio::spawn(async move {
            // Why: who is cut off cannot say that it is.
            tokio::time::sleep(LAST_WORDS).await;
            begin();
            tokio::time::sleep(duration).await;
            end();
            drop(lasting);
        });
        Ok(())
    }

    fn partition(&self, duration: Duration, peers_only: bool) -> Result<(), MetaError> {
        let gates = self.shared.gates.clone();
        let ending = gates.clone();
        self.last(
            duration,
            move || {
                gates.peers.set_closed(true);
                gates.all.set_closed(!peers_only);
            },
            move || {
                ending.peers.set_closed(false);
                ending.all.set_closed(false);
            },
        )
    }

    fn fill(&self, disk: DiskId, duration: Duration) -> Result<(), MetaError> {
        let disk = Arc::clone(self.disk(disk)?);
        let ending = Arc::clone(&disk);
        self.last(duration, move || disk.pretend_full(true), move || ending.pretend_full(false))
    }
}

#[async_trait]
impl FaultHandler for Faults {
    async fn inflict(&self, node: &str, fault: Fault) -> Result<u32, MetaError> {
        if node != self.shared.name() {
            let name = self.shared.name();
            return Err(MetaError::Refused(format!("this is node {name}, not {node}")));
        }
        if fault != Fault::Probe {
            tracing::warn!(?fault, "hurt by a drill");
        }
        match fault {
            Fault::Probe => {}
            Fault::Crash => after_answer(process::abort),
            Fault::Restart => after_answer(process::terminate),
            Fault::Pause(duration) => {
                process::pause(duration, LAST_WORDS).map_err(MetaError::Refused)?;
            }
            Fault::Partition { duration, peers_only } => self.partition(duration, peers_only)?,
            Fault::FillDisk { disk, duration } => self.fill(disk, duration)?,
            Fault::WipeDisk(disk) => {
                self.disk(disk)?;
                let mut dirs = self.shared.disks.dirs.iter();
                let dir = dirs.find(|dir| dir.disk_id == disk).map(|dir| dir.path.clone());
                let marked = dir.map_or(Ok(()), |dir| wipe::mark(&dir));
                let words = |error| MetaError::Unavailable(format!("mark disk {disk}: {error}"));
                marked.map_err(words)?;
                after_answer(process::abort);
            }
            Fault::Rot { disk, n_bits, seed } => {
                let mut dirs = self.shared.disks.dirs.iter();
                let dir = dirs.find(|dir| dir.disk_id == disk).map(|dir| dir.path.clone());
                let journal = rot::journal_of(&dir.unwrap_or_default());
                let on = Arc::clone(self.disk(disk)?);
                let turning =
                    tokio::task::spawn_blocking(move || rot::turn(&on, &journal, n_bits, seed));
                let turned = turning.await.map_err(|_| MetaError::Unavailable("panic".into()))?;
                return turned.map_err(|error| MetaError::Unavailable(format!("rot: {error}")));
            }
        }
        Ok(0)
    }
}

fn after_answer(end: fn()) {
    tokio::spawn(async move {
        tokio::time::sleep(LAST_WORDS).await;
        end();
    });
}

/// Over a cut wire nothing is heard until whoever waits gives up, or the connection counts as broken.
pub(crate) async fn silence(deadline: Duration) {
    tokio::time::sleep(deadline.min(BROKEN_AFTER)).await;
}

/// The way to other nodes, while nobody cut it.
pub(crate) struct Cuttable<T> {
    pub inner: T,
    pub gate: Gate,
}

impl<T: PeerTransport> PeerTransport for Cuttable<T> {
    fn call(&self, request: PeerRequest) -> BoxFuture<'static, Result<PeerResponse, PeerError>> {
        if !self.gate.is_closed() {
            return self.inner.call(request);
        }
        // Nothing comes back over a cut wire, and nobody is told.
        Box::pin(async move {
            silence(request.deadline).await;
            Err(PeerError::Deadline)
        })
    }
}
