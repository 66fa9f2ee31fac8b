//! What all parts of a node know: who it is, its disks, its replicas, and the newest placement.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use api::meta::{MetaClient, Report};
use api::placement::{ClusterId, Disk, DiskId, Node, Placement};
use api::{Resolver, peer::PeerTransport};
use mailbox::ChunkRef;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::controller::Outlook;
use crate::disks::Disks;
use crate::error::Error;
use crate::fault::Gates;
use crate::lookup::Lookups;
use crate::replicas::Replicas;

/// One running node.
pub(crate) struct Shared {
    pub config: Config,
    pub disks: Disks,
    pub replicas: Replicas,
    pub known: Arc<Known>,
    pub transport: Arc<dyn PeerTransport>,
    pub meta_client: MetaClient,
    /// Questions for which much is looked through, on each disk.
    pub lookups: BTreeMap<DiskId, Lookups>,
    /// KiB of requests under way.
    pub in_flight: Semaphore,
    /// How the nodes are; kept by the leader of the meta group.
    pub reports: Mutex<BTreeMap<String, (Instant, Report)>>,
    /// What the controller does, where it runs.
    pub outlook: Mutex<Outlook>,
    /// The cluster took this node since it started, so new replicas may begin here.
    pub admitted: AtomicBool,
    /// Leaderships are being handed over.
    pub draining: AtomicBool,
    /// Chunks of bodies that frontends read here.
    pub n_chunks_read: AtomicU64,
    /// Their octets, uncompressed.
    pub n_chunk_bytes_read: AtomicU64,
    /// Closed while a drill cuts this node off.
    pub gates: Gates,
    pub started: Instant,
    /// Random; tells this run from the ones before.
    pub run_id: u64,
    /// Ends everything; what cannot go on puts its reason into `fatal` first.
    pub stop: CancellationToken,
    pub fatal: OnceLock<Error>,
}

/// The newest placement, and who else there is.
pub(crate) struct Known {
    cluster: Mutex<Option<ClusterId>>,
    placement: watch::Sender<Arc<Placement>>,
    /// Nodes that registered before there was a cluster.
    waiting: Mutex<BTreeMap<String, Node>>,
    /// Where nodes said they are, until the cluster takes note of them.
    heard: Mutex<BTreeMap<String, Heard>>,
}

/// Where a node said it is.
struct Heard {
    address: String,
    /// The run of which the placement told then. Once it tells of another one, that is the later word.
    instead_of: u64,
    at: Instant,
}

/// How long that is believed. Who is not taken registers again and again; who is refused goes away.
const HEARD_FOR: Duration = Duration::from_secs(60);

impl Known {
    pub fn new(cluster: Option<ClusterId>) -> Self {
        Self {
            cluster: Mutex::new(cluster),
            placement: watch::Sender::new(Arc::default()),
            waiting: Mutex::default(),
            heard: Mutex::default(),
        }
    }

    /// The cluster this node's disks belong to.
    pub fn cluster(&self) -> Option<ClusterId> {
        *lock(&self.cluster)
    }

    pub fn set_cluster(&self, cluster: ClusterId) {
        *lock(&self.cluster) = Some(cluster);
    }

    pub fn placement(&self) -> Arc<Placement> {
        Arc::clone(&self.placement.borrow())
    }

    pub fn watch(&self) -> watch::Receiver<Arc<Placement>> {
        self.placement.subscribe()
    }

    /// Takes a placement that is newer, unless it is another cluster's.
    pub fn learn(&self, placement: Arc<Placement>) {
        if self.cluster().is_some_and(|ours| ours != placement.cluster) {
            tracing::warn!(cluster = %placement.cluster, "placement of another cluster not taken");
            return;
        }
        self.placement.send_if_modified(|current| {
            let first = current.cluster == ClusterId::default();
            let newer = first || placement.version > current.version;
            if newer && placement.cluster != ClusterId::default() {
                *current = placement;
                return true;
            }
            false
        });
    }

    pub fn wait_for_cluster(&self, node: Node) {
        lock(&self.waiting).insert(node.name.clone(), node);
    }

    /// Nodes that registered before there was a cluster.
    pub fn waiting(&self) -> Vec<Node> {
        lock(&self.waiting).values().cloned().collect()
    }

    /// A node that is placed, or waits to be.
    pub fn node(&self, name: &str) -> Option<Node> {
        let placed = self.placement.borrow().node(name).cloned();
        placed.or_else(|| lock(&self.waiting).get(name).cloned())
    }

    /// A node that is placed says where it is now; its certificate proved its name. Why also from who does
    /// not lead: after most nodes moved, nobody is elected before they find each other.
    pub fn heard(&self, node: &Node) {
        let placement = self.placement();
        let Some(placed) = placement.node(&node.name) else { return };
        // Why the disks: another process may go by its name while it runs.
        let is_placed =
            |disk: &Disk| placed.disks.iter().any(|other| other.disk_id == disk.disk_id);
        if placed.run_id != node.run_id && node.disks.iter().any(is_placed) {
            let (address, instead_of) = (node.address.clone(), placed.run_id);
            let heard = Heard { address, instead_of, at: Instant::now() };
            lock(&self.heard).insert(node.name.clone(), heard);
        }
    }

    fn address(&self, name: &str) -> Option<String> {
        let node = self.node(name)?;
        let heard = lock(&self.heard);
        let is_later =
            |heard: &&Heard| heard.instead_of == node.run_id && heard.at.elapsed() < HEARD_FOR;
        let later = heard.get(name).filter(is_later);
        Some(later.map_or(node.address, |heard| heard.address.clone()))
    }

    /// Finds addresses for outgoing connections.
    pub fn resolver(self: &Arc<Self>) -> Resolver {
        let known = Arc::clone(self);
        Arc::new(move |name| known.address(name))
    }
}

impl Shared {
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// How this node describes itself.
    pub fn describe(&self) -> Node {
        Node {
            name: self.config.name.clone(),
            node_id: self.disks.node_id,
            address: self.config.advertised(),
            zone: self.config.zone.clone(),
            disks: self.disks.introduce(),
            draining: false,
            run_id: self.run_id,
        }
    }

    /// This node cannot go on.
    pub fn fail(&self, error: Error) {
        tracing::error!(%error, "node stops");
        let _ = self.fatal.set(error);
        self.stop.cancel();
    }

    /// Notes on the disks which cluster they belong to; before the first replica of it begins.
    pub fn join_cluster(&self, cluster: ClusterId) -> Result<(), Error> {
        if self.known.cluster() == Some(cluster) {
            return Ok(());
        }
        self.disks.join(cluster)?;
        self.known.set_cluster(cluster);
        Ok(())
    }

    /// A frontend reads this chunk here.
    pub fn count_read(&self, chunk: &ChunkRef) {
        self.n_chunks_read.fetch_add(1, Ordering::Relaxed);
        self.n_chunk_bytes_read.fetch_add(chunk.raw_len.into(), Ordering::Relaxed);
    }

    pub fn is_admitted(&self) -> bool {
        self.admitted.load(Ordering::Acquire)
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }
}

/// Locks; what a panic left behind is still whole, since no section here can stop half way.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use api::placement::DiskState;

    use super::*;

    fn node(disk: u8, run_id: u64, address: &str) -> Node {
        let disk = Disk {
            disk_id: DiskId([disk; 16]),
            start_count: 1,
            size_bytes: 0,
            free_bytes: 0,
            state: DiskState::Ok,
            path: "a".into(),
            start_id: 0,
            previous_start_id: 0,
            n_synced: None,
        };
        let (name, address) = ("n1".into(), address.into());
        Node { name, address, disks: vec![disk], run_id, ..Node::default() }
    }

    #[test]
    fn a_node_that_moved_is_found_before_the_cluster_takes_note_of_it() {
        let known = Arc::new(Known::new(None));
        let learn = |version, node: Node| {
            let cluster = ClusterId([1; 16]);
            let nodes = vec![node];
            known.learn(Arc::new(Placement { version, cluster, nodes, ..Placement::default() }));
        };
        let address = || known.resolver()("n1");
        known.heard(&node(1, 2, "new:1"));
        assert_eq!(address(), None);
        learn(1, node(1, 1, "old:1"));
        assert_eq!(address().as_deref(), Some("old:1"));
        known.heard(&node(2, 2, "another:1"));
        assert_eq!(address().as_deref(), Some("old:1"), "its disks are others");
        known.heard(&node(1, 2, "new:1"));
        assert_eq!(address().as_deref(), Some("new:1"));
        learn(2, node(1, 1, "old:1"));
        assert_eq!(address().as_deref(), Some("new:1"), "nothing new is known of it");
        learn(3, node(1, 3, "newest:1"));
        assert_eq!(address().as_deref(), Some("newest:1"));
    }
}
