//! Verifies what lies on the disks, all the time, and tells what came of it.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use api::admin::{ChunkCopy, ReplicaCopies};
use api::meta::{DiskScrub, MetaError};
use mailbox::{Digest, ShardId};
use replica::ScrubStatus;

use crate::refuse;
use crate::replicas::Running;
use crate::shared::Shared;

/// How long it may take to end.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// Scrubs every disk, each at its own pace, until the node stops.
pub(crate) async fn scrub(shared: Arc<Shared>) {
    let bytes_per_s = u64::from(shared.config.scrub_mib_s) << 20;
    let disks: Vec<_> = shared.disks.dirs.iter().filter_map(|dir| dir.disk.clone()).collect();
    let scrubs: Vec<_> =
        disks.iter().map(|disk| tokio::spawn(disk.clone().scrub(bytes_per_s))).collect();
    shared.stop.cancelled().await;
    disks.iter().for_each(|disk| disk.stop_scrub());
    // Why not for ever: one whose disk hangs does not end.
    drop(tokio::time::timeout(END_PATIENCE, futures_util::future::join_all(scrubs)).await);
}

/// How it stands on each disk.
pub(crate) fn report(shared: &Shared) -> Vec<DiskScrub> {
    let replicas = shared.replicas.all();
    let disks = shared.disks.dirs.iter().filter_map(|dir| Some((dir.disk_id, dir.disk.as_ref()?)));
    let one = |(disk_id, disk): (_, &Arc<replica::Disk>)| {
        let ScrubStatus {
            verified_bytes,
            n_damaged,
            n_repaired,
            n_unrepairable,
            oldest_unverified_ms,
            n_passes,
            ..
        } = disk.scrub_status();
        let here = replicas.iter().filter(|running| running.disk_id == disk_id);
        DiskScrub {
            disk_id,
            verified_bytes,
            n_damaged,
            n_repaired,
            n_unrepairable,
            oldest_unverified_ms,
            n_passes,
            n_differing: here.map(|running| running.replica.status().n_differing).sum(),
            unanswered_ms: u64::try_from(disk.unanswered().as_millis()).unwrap_or(u64::MAX),
        }
    };
    disks.map(one).collect()
}

/// The same as metrics.
pub(crate) fn metrics(shared: &Shared, out: &mut String) {
    let scrubs = report(shared);
    type Value = fn(&DiskScrub) -> u64;
    let metrics: [(&str, &str, &str, Value); 7] = [
        ("verified_bytes_total", "counter", "Bytes verified.", |one| one.verified_bytes),
        ("damaged_total", "counter", "Damaged places found.", |one| one.n_damaged),
        ("repaired_total", "counter", "Those of them that are healed.", |one| one.n_repaired),
        ("unrepairable", "gauge", "Damaged bodies that no peer has.", |one| one.n_unrepairable),
        (
            "oldest_unverified_seconds",
            "gauge",
            "How long ago the byte that waits for longest was verified.",
            |one| one.oldest_unverified_ms / 1000,
        ),
        ("passes_total", "counter", "Whole passes over the disk.", |one| one.n_passes),
        (
            "differing_replicas",
            "gauge",
            "Members of shards led from here whose rows differ from the leader's.",
            |one| one.n_differing,
        ),
    ];
    for (name, kind, help, value) in metrics {
        let name = format!("rookery_scrub_{name}");
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for one in &scrubs {
            let (disk, value) = (one.disk_id, value(one));
            let _ = writeln!(out, "{name}{{disk=\"{disk}\"}} {value}");
        }
    }
}

/// Where the replicas of a shard here have copies of chunks. Each copy is read.
pub(crate) async fn copies(
    shared: &Shared,
    shard: ShardId,
    digests: Vec<Digest>,
) -> Result<Vec<ReplicaCopies>, MetaError> {
    let all = shared.replicas.all();
    let here: Vec<Arc<Running>> =
        all.into_iter().filter(|running| running.replica.shard() == shard).collect();
    let digests = Arc::new(digests);
    let mut found = Vec::with_capacity(here.len());
    for running in here {
        let (replica, digests) = (running.replica.clone(), Arc::clone(&digests));
        let read = tokio::task::spawn_blocking(move || replica.copies(&digests)).await;
        let read = read.map_err(|error| MetaError::Unavailable(error.to_string()))?;
        let copy = |copy: replica::Copy| {
            let place = copy.place?;
            Some(ChunkCopy {
                place: (place.segment.0, place.offset),
                is_good: copy.is_good,
                verified_at: copy.verified_at,
            })
        };
        found.push(ReplicaCopies {
            replica_id: running.replica.replica_id(),
            disk_id: running.disk_id,
            copies: read.map_err(refuse::meta)?.into_iter().map(copy).collect(),
        });
    }
    Ok(found)
}
