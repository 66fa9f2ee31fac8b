//! What a node tells of itself, in the text format of Prometheus: all samples of a family behind its
//! head. Labels are shards, replicas and disks, never accounts.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::time::Duration;

use api::placement::{DiskId, ReplicaRole, Shard};
use mailbox::ShardId;
use replica::{Role, Status, Usage, View};

use crate::meta;
use crate::replicas::Running;
use crate::scrub;
use crate::shared::Shared;

/// How long what the meta group remembers is waited for.
const MARKS_PATIENCE: Duration = Duration::from_secs(1);

/// One sample: its label, if it has one, and its value.
type Sample = (Option<(&'static str, String)>, u64);

/// A replica: two of one shard may be here while one takes the place of the other.
type Key = (ShardId, u64);

struct Page(String);

/// All of it.
pub(crate) async fn text(shared: &Shared) -> String {
    let marks = marks(shared).await;
    let mut page = Page(String::with_capacity(8192));
    page.one("rookery_node_admitted", "1 when the cluster took this node.", shared.is_admitted());
    page.one("rookery_node_draining", "1 when it hands its shards over.", shared.is_draining());
    let free_kib = shared.in_flight.available_permits() as u64;
    page.one(
        "rookery_node_request_room_kib",
        "Room for requests; at 0 they are refused.",
        free_kib,
    );
    let n_chunks = shared.n_chunks_read.load(Ordering::Relaxed);
    let help = "Chunks of bodies that frontends read here.";
    let sample = std::iter::once((None, n_chunks));
    page.family("rookery_node_chunks_read_total", "counter", help, sample);
    let n_bytes = shared.n_chunk_bytes_read.load(Ordering::Relaxed);
    let help = "Octets of those chunks, uncompressed.";
    let sample = std::iter::once((None, n_bytes));
    page.family("rookery_node_chunk_bytes_read_total", "counter", help, sample);
    replicas(&mut page, shared);
    copies(&mut page, shared);
    disks(&mut page, shared, marks);
    pinned(&mut page, shared);
    scrub::metrics(shared, &mut page.0);
    page.0
}

fn replicas(page: &mut Page, shared: &Shared) {
    let all = shared.replicas.all();
    let key = |one: &Running| (one.replica.shard(), one.replica.replica_id());
    let statuses: Vec<(Key, Status)> =
        all.iter().map(|one| (key(one), one.replica.status())).collect();
    let n_led = statuses.iter().filter(|(_, status)| status.role == Role::Leader).count();
    page.one("rookery_node_shards_led", "Shards this node leads.", n_led as u64);
    page.one("rookery_node_replicas", "Replicas that run here.", statuses.len() as u64);
    let mut each = |name: &str, kind: &str, help: &str, value: fn(&Status) -> u64| {
        page.head(name, kind, help);
        for (key, status) in &statuses {
            page.of_replica(name, *key, value(status));
        }
    };
    each("rookery_replica_leads", "gauge", "1 when it leads.", |it| {
        (it.role == Role::Leader).into()
    });
    let help = "1 when it leads a majority, or heard its leader lately.";
    each("rookery_replica_has_leader", "gauge", help, |it| it.is_led().into());
    each("rookery_replica_applied_index", "counter", "Last entry applied.", |it| it.applied);
    each("rookery_replica_lag_entries", "gauge", "Entries committed and not applied yet.", |it| {
        it.committed.saturating_sub(it.applied)
    });
    each("rookery_replica_log_entries", "gauge", "Entries kept in the log.", |it| {
        it.last_log_index.saturating_sub(it.purged)
    });
    each("rookery_replica_incomplete", "gauge", "1 when bodies may be missing here.", |it| {
        it.is_incomplete.into()
    });
    each("rookery_replica_unconfirmed", "gauge", "1 when it may not vote yet.", |it| {
        it.is_unconfirmed.into()
    });
    failed(page, shared);
}

/// Of each replica that is here or is to be: one that runs no more or was never started too.
fn failed(page: &mut Page, shared: &Shared) {
    let mut failed: BTreeMap<Key, bool> = BTreeMap::new();
    for one in shared.replicas.all() {
        let key = (one.replica.shard(), one.replica.replica_id());
        failed.insert(key, one.replica.status().failed.is_some());
    }
    for shard in &shared.known.placement().shards {
        let here = shard.replicas.iter().filter(|placed| placed.node == shared.config.name);
        for placed in here {
            let (key, disk) = ((shard.shard, placed.replica_id), shared.disks.disk(placed.disk_id));
            let is_lost = disk.is_none_or(|disk| disk.is_poisoned())
                || shared.replicas.exactly(key.0, key.1).is_none()
                    && shared.replicas.did_not_start(key);
            *failed.entry(key).or_default() |= is_lost;
        }
    }
    let name = "rookery_replica_failed";
    page.head(name, "gauge", "1 when it does not run.");
    for (key, is_failed) in failed {
        page.of_replica(name, key, is_failed.into());
    }
}

/// Of the shards that are led from here: how many copies there are, and how far the last one is behind.
fn copies(page: &mut Page, shared: &Shared) {
    let (all, placement) = (shared.replicas.all(), shared.known.placement());
    let led: Vec<(String, &Shard, Status)> = all
        .iter()
        .map(|one| (one.replica.shard(), one.replica.status()))
        .filter(|(_, status)| status.role == Role::Leader)
        .filter_map(|(id, status)| Some((id.to_string(), placement.shard(id)?, status)))
        .collect();
    let mut each = |name: &str, help: &str, value: fn(&Shard, &Status) -> u64| {
        let samples = led
            .iter()
            .map(|(id, shard, status)| (Some(("shard", id.clone())), value(shard, status)));
        page.family(name, "gauge", help, samples);
    };
    let help = "Copies that it is to have; told by its leader.";
    each("rookery_shard_copies_wanted", help, |shard, _| shard.n_wanted.into());
    let help = "Copies that vote, be their nodes here or away; told by its leader.";
    each("rookery_shard_copies", help, |shard, _| voters(shard).count() as u64);
    let help = "Entries that the copy furthest behind lacks; told by the leader.";
    each("rookery_shard_copies_lag_entries", help, |shard, status| {
        voters(shard).map(|id| lag(id, status)).max().unwrap_or(0)
    });
}

fn voters(shard: &Shard) -> impl Iterator<Item = u64> {
    let placed = shard.replicas.iter().filter(|one| one.role == ReplicaRole::Voter);
    placed.map(|one| one.replica_id)
}

fn lag(replica: u64, status: &Status) -> u64 {
    // The leader has what it has.
    let is_self = status.leader.as_ref().is_some_and(|(leader, _)| *leader == replica);
    let matched = status.matched.get(&replica).copied().unwrap_or(0);
    if is_self { 0 } else { status.last_log_index.saturating_sub(matched) }
}

fn disks(page: &mut Page, shared: &Shared, marks: Option<Vec<Sample>>) {
    let dirs = &shared.disks.dirs;
    let poisoned = dirs
        .iter()
        .map(|dir| (Some(("disk", dir.disk_id.to_string())), u64::from(dir.has_failed())));
    let help = "1 after a write or sync failed, or when the disk could not be opened.";
    page.family("rookery_disk_poisoned", "gauge", help, poisoned);
    let usages: Vec<(String, Usage)> = dirs
        .iter()
        .filter_map(|dir| Some((dir.disk_id.to_string(), dir.disk.as_ref()?.usage().ok()?)))
        .collect();
    let mut each = |name: &str, kind: &str, help: &str, value: fn(&Usage) -> u64| {
        let sample = |(disk, usage): &(String, Usage)| (Some(("disk", disk.clone())), value(usage));
        page.family(name, kind, help, usages.iter().map(sample));
    };
    each("rookery_disk_free_bytes", "gauge", "Free bytes of the disk.", |it| it.free_bytes);
    each("rookery_disk_bytes", "gauge", "All bytes of the disk.", |it| it.total_bytes);
    each("rookery_journal_bytes", "gauge", "Bytes in segments.", |it| it.n_bytes);
    each("rookery_journal_segments", "gauge", "Segments.", |it| it.n_segments);
    each("rookery_journal_queued_bytes", "gauge", "Bytes that wait for the disk.", |it| {
        it.queued_bytes
    });
    each("rookery_journal_syncs_total", "counter", "Completed syncs.", |it| it.n_syncs);
    each("rookery_journal_records_total", "counter", "Records written.", |it| it.n_records);
    each("rookery_journal_written_bytes_total", "counter", "Bytes written.", |it| {
        it.n_bytes_written
    });
    let synced = dirs.iter().filter_map(|dir| {
        Some((Some(("disk", dir.disk_id.to_string())), dir.disk.as_ref()?.n_synced()))
    });
    let help = "Batches in the journal that are synced, since the disk was new.";
    page.family("rookery_journal_batches_total", "counter", help, synced);
    if let Some(marks) = marks {
        let help = "Batches the cluster knows each disk to have; with fewer it is refused.";
        page.family("rookery_disk_marked_batches", "counter", help, marks.into_iter());
    }
    let pending = dirs.iter().filter_map(|dir| {
        let pending = dir.disk.as_ref()?.sync_pending().as_millis();
        let pending = u64::try_from(pending).unwrap_or(u64::MAX);
        Some((Some(("disk", dir.disk_id.to_string())), pending))
    });
    let help = "How long the sync under way takes already, in milliseconds.";
    page.family("rookery_disk_sync_pending_ms", "gauge", help, pending);
}

/// What the log of each replica on the disks here, be it running or not, keeps of its disk's journal.
fn pinned(page: &mut Page, shared: &Shared) {
    let name = "rookery_journal_pinned_bytes";
    let help = "Bytes of the journal that cannot come free before this replica's log is cut.";
    page.head(name, "gauge", help);
    for disk in shared.disks.dirs.iter().filter_map(|dir| dir.disk.as_ref()) {
        for (replica, shard) in disk.replicas() {
            page.of_replica(name, (shard, replica), disk.pinned_bytes(replica));
        }
    }
}

/// Where the meta group has a replica: what it remembers of all disks.
async fn marks(shared: &Shared) -> Option<Vec<Sample>> {
    let view = shared.meta_replica()?.replica.local_view().ok()?;
    let placement = shared.known.placement();
    let read = move |view: &View| {
        let disks = placement.nodes.iter().flat_map(|node| &node.disks);
        let marks = view.read(|rows, _| {
            let mark = |id: DiskId| Some((Some(("disk", id.to_string())), meta::mark(rows, id)?));
            disks.filter_map(|disk| mark(disk.disk_id)).collect::<Vec<Sample>>()
        });
        marks.unwrap_or_default()
    };
    // Why not for longer: what else there is to tell is told while the disk they are on hangs.
    tokio::time::timeout(MARKS_PATIENCE, view.apart(read)).await.ok().flatten()
}

impl Page {
    fn one(&mut self, name: &str, help: &str, value: impl Into<u64>) {
        self.family(name, "gauge", help, std::iter::once((None, value.into())));
    }

    // Writing to a string does not fail, here and below.
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn of_replica(&mut self, name: &str, (shard, replica): Key, value: u64) {
        let labels = format!("shard=\"{shard}\",replica=\"{replica}\"");
        let _ = writeln!(self.0, "{name}{{{labels}}} {value}");
    }

    fn family(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        samples: impl Iterator<Item = Sample>,
    ) {
        self.head(name, kind, help);
        for (label, value) in samples {
            let _ = match label {
                Some((label, of)) => writeln!(self.0, "{name}{{{label}=\"{of}\"}} {value}"),
                None => writeln!(self.0, "{name} {value}"),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_replicas_of_one_shard_are_two_samples() {
        let mut page = Page(String::new());
        for replica in [4, 9] {
            page.of_replica("it", (ShardId(1), replica), 7);
        }
        let lines = "it{shard=\"1\",replica=\"4\"} 7\nit{shard=\"1\",replica=\"9\"} 7\n";
        assert_eq!(page.0, lines);
    }
}
