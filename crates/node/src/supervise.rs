//! Watches over the disks: one that failed loses its replicas for good, and the others go on. A replica
//! whose core died is started again by crate `replica` itself.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::replicas::stop_one;
use crate::shared::Shared;

/// How often to look.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Supervises until the node stops.
pub(crate) async fn supervise(shared: Arc<Shared>) {
    let mut failed = BTreeSet::new();
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        for dir in &shared.disks.dirs {
            let poisoned = dir.disk.as_ref().is_none_or(|disk| disk.is_poisoned());
            if poisoned && failed.insert(dir.disk_id) {
                tracing::error!(disk = %dir.disk_id, path = %dir.path.display(), "disk failed");
            }
        }
        for running in shared.replicas.all() {
            let (shard, replica_id) = (running.replica.shard(), running.replica.replica_id());
            if failed.contains(&running.disk_id) {
                tracing::error!(%shard, replica_id, disk = %running.disk_id, "replica lost its disk");
                stop_one(&shared, &running).await;
            }
        }
    }
}
