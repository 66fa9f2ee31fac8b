//! Marks: the meta group remembers how much is on each disk, so that a disk which is put back to an
//! earlier state is known when its node registers, also if all its peers were restarted meanwhile and
//! remember nothing.
//!
//! The leader takes them from the nodes' reports; a node that goes down is asked for once more.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use api::meta::{MetaError, Report};
use api::placement::{DiskId, META_SHARD, Placement};
use replica::View;

use crate::meta::{self, Command};
use crate::report;
use crate::shared::Shared;

/// How often. An older copy of a disk passes for the disk if it was taken within this time and the age
/// of a report before everything was lost. One entry for all disks: an idle cluster writes no more for
/// it than for the probes of its disks, which come as often.
const MARK_EVERY: Duration = Duration::from_secs(10);
/// Limit: disks in one entry, some 30 KiB.
const MARKS_MAX: usize = 1024;

/// Marks while this node leads the meta group, until it stops.
pub(crate) async fn mark(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = tokio::time::sleep(MARK_EVERY) => {}
        }
        let reports = report::fresh(&shared);
        if shared.meta_leader().is_err() || !is_understood(&shared.known.placement(), &reports) {
            continue;
        }
        if let Err(error) = note_all(&shared, reports.iter()).await {
            tracing::debug!(%error, "disks not marked");
        }
    }
}

/// What one node's disks have, at once.
pub(crate) async fn note(shared: &Arc<Shared>, report: &Report) -> Result<(), MetaError> {
    let mut reports = report::fresh(shared);
    reports.push(report.clone());
    if !is_understood(&shared.known.placement(), &reports) {
        return Ok(());
    }
    note_all(shared, std::iter::once(report)).await
}

/// Whether all that keep the meta group's rows know marks: with one that does not, its rows would
/// differ from then on.
fn is_understood(placement: &Placement, reports: &[Report]) -> bool {
    let seats = placement.shard(META_SHARD).into_iter().flat_map(|shard| &shard.replicas);
    let nodes: BTreeSet<&str> = seats.map(|seat| seat.node.as_str()).collect();
    let mut keepers = reports.iter().filter(|report| nodes.contains(report.node.as_str()));
    keepers.all(|report| report.disks.iter().any(|disk| disk.n_synced.is_some()))
}

async fn note_all(
    shared: &Arc<Shared>,
    reports: impl Iterator<Item = &Report>,
) -> Result<(), MetaError> {
    let view = shared.meta_leader()?.replica.local_view();
    let view = view.map_err(|error| MetaError::Unavailable(error.to_string()))?;
    let told = reports.flat_map(|report| &report.disks);
    let told: Vec<(DiskId, u64)> =
        told.filter_map(|disk| Some((disk.disk_id, disk.n_synced?))).collect();
    let read = move |view: &View| {
        view.read(|rows, _| {
            let is_new = |(disk_id, now): &(DiskId, u64)| {
                meta::mark(rows, *disk_id).is_none_or(|marked| marked < *now)
            };
            told.into_iter().filter(is_new).collect::<Vec<_>>()
        })
    };
    let news = view.apart(read).await;
    let news = news.ok_or_else(|| MetaError::Unavailable("its rows could not be read".into()))?;
    let news = news.map_err(|error| MetaError::Unavailable(error.to_string()))?;
    for marks in news.chunks(MARKS_MAX) {
        shared.propose_meta(&Command::NoteMarks(marks.to_vec())).await?;
    }
    Ok(())
}
