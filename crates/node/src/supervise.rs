//! Watches over replicas and disks: a replica that died is started again, a disk that failed loses its
//! replicas for good, and the others go on.

use std::sync::Arc;
use std::time::Duration;

use replica::Role;

use crate::replicas::{start_one, stop_one};
use crate::shared::Shared;

/// How often to look.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Supervises until the node stops.
pub(crate) async fn supervise(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        for running in shared.replicas.all() {
            let (shard, replica_id) = (running.replica.shard(), running.replica.replica_id());
            let Some(disk) = shared.disks.disk(running.disk_id) else { continue };
            if disk.is_poisoned() {
                tracing::error!(%shard, replica_id, disk = %running.disk_id, "replica lost its disk");
                stop_one(&shared, &running).await;
                continue;
            }
            let status = running.replica.status();
            if status.role == Role::Stopped && !shared.stop.is_cancelled() {
                let why = status.failed.unwrap_or_default();
                tracing::error!(%shard, replica_id, why, "replica died, starts again");
                stop_one(&shared, &running).await;
                start_one(&shared, shard, replica_id, disk).await;
            }
        }
    }
}
