//! What a drill may do to a node. Every fault is bounded in time and ends by itself.

mod client;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

pub use self::client::FaultClient;
use crate::meta::MetaError;
use crate::placement::DiskId;

/// Limit: no fault lasts longer, whatever is asked for.
pub const FAULT_MAX: Duration = Duration::from_secs(60);

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: only whether the node may be drilled.
    Probe,
    /// The process aborts without a word to anybody.
    Crash,
    /// The process ends in order, as at SIGTERM.
    Restart,
    /// The process is stopped as by SIGSTOP, and goes on by itself.
    Pause(Duration),
    /// Nothing gets in or out.
    Partition {
        /// For how long.
        duration: Duration,
        /// Only other nodes are cut off: frontends and operators are not.
        peers_only: bool,
    },
    /// The process aborts, and at its next start finds the disk empty.
    WipeDisk(DiskId),
    /// Bits of sealed journal segments are turned over.
    Rot {
        /// Which disk.
        disk: DiskId,
        /// How many, each in another place.
        n_bits: u32,
        /// Decides where.
        seed: u64,
    },
    /// The disk counts as full.
    FillDisk {
        /// Which.
        disk: DiskId,
        /// For how long.
        duration: Duration,
    },
}

/// A node that can be hurt.
#[async_trait]
pub trait FaultHandler: Send + Sync + 'static {
    /// Hurts this node, which must be called `node`; how many bits were turned over.
    async fn inflict(&self, node: &str, fault: Fault) -> Result<u32, MetaError>;
}

/// Cuts a server off from those who are connected, as a dead cable does: nothing is refused, nothing
/// comes through. Cheap to clone; open unless somebody closes it.
#[derive(Clone, Debug)]
pub struct Gate {
    closed: Arc<watch::Sender<bool>>,
}

impl Default for Gate {
    fn default() -> Self {
        Self { closed: Arc::new(watch::Sender::new(false)) }
    }
}

impl Gate {
    /// Closes or opens it.
    pub fn set_closed(&self, closed: bool) {
        self.closed.send_replace(closed);
    }

    /// Whether nothing comes through.
    pub fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Waits until it is open.
    pub async fn opened(&self) {
        let mut closed = self.closed.subscribe();
        // Why: an error means that nobody can close it any more.
        let _ = closed.wait_for(|closed| !closed).await;
    }
}
