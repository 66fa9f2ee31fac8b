//! What this node tells the meta group's leader about itself, and what that leader makes of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use api::meta::{ReplicaReport, ReplicaState, Report};
use api::placement::{Disk, DiskId, DiskState, Placement};
use mailbox::{RowDigest, ShardId};
use replica::{Role, Status};

use crate::meta::Command;
use crate::replicas::{Running, are_to_start};
use crate::shared::{Shared, lock};
use crate::{admission, marks, scrub};

/// Of this program.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// How often a node reports.
const REPORT_EVERY: Duration = Duration::from_millis(1_000);
/// How often while shards have no known leader yet, or replicas here do not follow one.
const REPORT_SOON: Duration = Duration::from_millis(100);
/// How long one report may take.
const PATIENCE: Duration = Duration::from_millis(800);
/// After so long without an answer of a majority a leader leads nobody.
const ALONE_MS: u64 = 3_000;
/// A report older than this says nothing about leaders, nor that its node runs.
pub(crate) const FRESH: Duration = Duration::from_secs(3);

/// Reports, and as leader of the meta group acts on reports, until the node stops.
pub(crate) async fn report(shared: Arc<Shared>) {
    loop {
        let placement = shared.known.placement();
        let begun = placement.shards.iter().all(|shard| shard.leader.is_some());
        // Looked at before the report, so that one more tells when all of them follow.
        let settled = !are_to_start(&shared)
            && shared.replicas.all().iter().all(|running| is_settled(running));
        // Why admitted: until then the cluster does not know the disks this node has now.
        if placement.version > 0 && shared.is_admitted() {
            admission::renew(&shared).await;
            report_once(&shared).await;
        }
        let pause = if begun && settled { REPORT_EVERY } else { REPORT_SOON };
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// It follows or leads, or never will again.
fn is_settled(running: &Running) -> bool {
    let status = running.replica.status();
    status.role == Role::Stopped || status.leader.is_some() && !status.is_unconfirmed
}

/// The last word of a node that goes down.
///
/// Why: what is put back later may be older than this by less than the time between two marks.
pub(crate) async fn report_last(shared: &Arc<Shared>, patience: Duration) {
    if shared.known.placement().version == 0 || !shared.is_admitted() {
        return;
    }
    let report = Report { is_last: true, ..present(shared) };
    let told = async {
        match shared.meta_leader() {
            Ok(_) => marks::note(shared, &report).await,
            Err(_) => shared.meta_client.report(&report, patience).await.map(drop),
        }
    };
    match tokio::time::timeout(patience, told).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "last report not taken"),
        Err(_) => tracing::debug!("last report not taken in time"),
    }
}

fn present(shared: &Shared) -> Report {
    Report {
        node: shared.config.name.clone(),
        disks: shared.disks.report(),
        replicas: replicas(shared),
        scrubs: scrub::report(shared),
        run_id: shared.run_id,
        placement_version: shared.known.placement().version,
        is_last: false,
        version: VERSION.to_owned(),
        uptime_ms: uptime_ms(shared),
    }
}

/// Time since this node started.
pub(crate) fn uptime_ms(shared: &Shared) -> u64 {
    u64::try_from(shared.started.elapsed().as_millis()).unwrap_or(u64::MAX)
}

async fn report_once(shared: &Arc<Shared>) {
    let report = present(shared);
    if shared.meta_leader().is_ok() {
        lock(&shared.reports).insert(report.node.clone(), (Instant::now(), report));
        act(shared).await;
        return;
    }
    match shared.meta_client.report(&report, PATIENCE).await {
        // Why: a replica of the meta group that was put out is not told, and nor is who asks this node
        // itself for the placement.
        Ok(Some(newer)) => shared.known.learn(newer),
        Ok(None) => {}
        Err(error) => tracing::debug!(%error, "report not taken"),
    }
}

/// Notes leaders, poisoned disks and full ones where the placement does not have them.
async fn act(shared: &Arc<Shared>) {
    let placement = shared.known.placement();
    lock(&shared.reports).retain(|name, _| placement.node(name).is_some());
    let reports = fresh(shared);
    let mut commands = Vec::new();
    let leaders = new_leaders(&placement, &reports);
    if !leaders.is_empty() {
        commands.push(Command::NoteLeaders(leaders));
    }
    let disks = reports
        .iter()
        .flat_map(|report| report.disks.iter().map(move |disk| (report.node.as_str(), disk)));
    for (node, disk) in disks {
        let mut known = placement.nodes.iter().flat_map(|node| &node.disks);
        let known = known.find(|known| known.disk_id == disk.disk_id);
        if disk.state == DiskState::Poisoned
            && known.is_some_and(|known| known.state != DiskState::Poisoned)
        {
            tracing::error!(node, disk = %disk.disk_id, path = disk.path, "disk poisoned");
            commands.push(Command::SetDiskState(disk.disk_id, DiskState::Poisoned));
        }
        if known.is_some_and(|known| known.is_full() != disk.is_full()) {
            // Why not of a failed one: what it says of its space is nothing.
            if disk.state != DiskState::Poisoned {
                tell_space(node, disk);
            }
            commands.push(Command::NoteSpace(disk.disk_id, disk.free_bytes));
        }
    }
    for command in commands {
        if let Err(error) = shared.propose_meta(&command).await {
            tracing::debug!(%error, "report not acted on");
        }
    }
}

/// A disk became full, or has room again.
fn tell_space(node: &str, disk: &Disk) {
    let (id, path, free_bytes) = (disk.disk_id, &disk.path, disk.free_bytes);
    match disk.is_full() {
        true => tracing::warn!(node, disk = %id, path, free_bytes, "disk is full"),
        false => tracing::info!(node, disk = %id, path, free_bytes, "disk has room again"),
    }
}

/// Leaves out what a node says of others' disks: it would be believed that they are poisoned or full, or
/// have what they do not have. Disks that nobody has in the placement stay.
pub(crate) fn keep_own_disks(report: &mut Report, placement: &Placement) {
    let Report { node, disks, .. } = report;
    disks.retain(|disk| {
        let is_this = |known: &Disk| known.disk_id == disk.disk_id;
        let owner = placement.nodes.iter().find(|node| node.disks.iter().any(is_this));
        owner.is_none_or(|owner| owner.name == *node)
    });
}

/// Whether a report is of the process that the cluster took for its node, or of one that this leader may not
/// have heard of yet.
pub(crate) fn is_of_now(report: &Report, placement: &Placement) -> bool {
    let taken = placement.node(&report.node);
    placement.version < report.placement_version
        || taken.is_none_or(|node| node.run_id == report.run_id)
}

/// What nodes said lately.
pub(crate) fn fresh(shared: &Shared) -> Vec<Report> {
    let placement = shared.known.placement();
    let reports = lock(&shared.reports);
    let fresh = reports.values().filter(|(at, _)| at.elapsed() < FRESH);
    // Why again: another process may have been taken since. What the one before has is not on these disks.
    let fresh = fresh.filter(|(_, report)| is_of_now(report, &placement));
    fresh.map(|(_, report)| report.clone()).collect()
}

/// Leaders that the placement does not name; of two that say so the later term counts.
fn new_leaders(placement: &Placement, reports: &[Report]) -> Vec<(ShardId, String)> {
    let mut leaders: BTreeMap<ShardId, (u64, &str)> = BTreeMap::new();
    for report in reports {
        for replica in report.replicas.iter().filter(|r| r.state == ReplicaState::Leader) {
            let latest = leaders.entry(replica.shard).or_insert((0, &report.node));
            if replica.term >= latest.0 {
                *latest = (replica.term, &report.node);
            }
        }
    }
    let is_new = |shard: ShardId, leader: &str| {
        let known = placement.shard(shard);
        known.is_some_and(|known| {
            known.leader.as_deref() != Some(leader)
                && known.replicas.iter().any(|replica| replica.node == leader)
        })
    };
    let news = leaders.into_iter().filter(|(shard, (_, leader))| is_new(*shard, leader));
    news.map(|(shard, (_, leader))| (shard, leader.to_owned())).collect()
}

/// How the replicas here are.
pub(crate) fn replicas(shared: &Shared) -> Vec<ReplicaReport> {
    // Order: what is started meanwhile is there twice then, never not at all.
    let to_start = shared.replicas.starting();
    let mut told: Vec<_> = shared.replicas.all().iter().map(|running| one(running)).collect();
    for (shard, replica_id, disk_id) in to_start {
        if !told.iter().any(|one| (one.shard, one.replica_id) == (shard, replica_id)) {
            told.push(starting(shard, replica_id, disk_id));
        }
    }
    told
}

/// One that lives here and was not started yet. Why a missing chunk: what it lacks is not known yet, and
/// nobody is to count on it.
fn starting(shard: ShardId, replica_id: u64, disk_id: DiskId) -> ReplicaReport {
    ReplicaReport {
        shard,
        replica_id,
        disk_id,
        state: ReplicaState::Starting,
        term: 0,
        leader: None,
        last_log: 0,
        committed: 0,
        applied: 0,
        digest: [0; 32],
        n_missing_chunks: 1,
        n_chunks: 0,
        chunk_bytes: 0,
        followers: Vec::new(),
        voters: Vec::new(),
        learners: Vec::new(),
        is_joint: false,
        missing_bytes: 0,
        received_bytes: 0,
        is_recovered: false,
    }
}

fn one(running: &Running) -> ReplicaReport {
    let status = running.replica.status();
    ReplicaReport {
        shard: running.replica.shard(),
        replica_id: running.replica.replica_id(),
        disk_id: running.disk_id,
        state: state(&status),
        term: status.term,
        leader: status.leader.map(|(_, member)| member.node),
        last_log: status.last_log_index,
        committed: status.committed,
        applied: status.applied,
        digest: digest_bytes(&status.digest),
        n_missing_chunks: match status.is_incomplete || status.is_starting {
            true => status.missing_chunks.max(1),
            false => 0,
        },
        n_chunks: 0,
        chunk_bytes: 0,
        followers: status.matched.into_iter().collect(),
        voters: status.voters.into_keys().collect(),
        learners: status.learners.into_keys().collect(),
        is_joint: status.is_joint,
        missing_bytes: status.missing_bytes,
        received_bytes: status.received_bytes,
        is_recovered: running.is_recovered.load(Ordering::Relaxed),
    }
}

/// A leader that no majority has answered for long.
fn is_alone(status: &Status) -> bool {
    status.voters.len() > 1 && status.quorum_age_ms.is_none_or(|age| age > ALONE_MS)
}

fn state(status: &Status) -> ReplicaState {
    match status.role {
        // Why not failed: it would be replaced, and has all it had.
        Role::Stopped if status.is_starting => ReplicaState::Starting,
        Role::Stopped => ReplicaState::Failed,
        _ if status.is_unconfirmed => ReplicaState::Starting,
        // Why: nobody but itself takes it for the leader any more.
        Role::Leader if is_alone(status) => ReplicaState::Candidate,
        Role::Leader => ReplicaState::Leader,
        Role::Follower => ReplicaState::Follower,
        Role::Candidate => ReplicaState::Candidate,
        Role::Learner if status.voters.is_empty() => ReplicaState::Starting,
        Role::Learner => ReplicaState::Learner,
    }
}

/// The four lanes, as their hexadecimal form shows them.
fn digest_bytes(digest: &RowDigest) -> [u8; 32] {
    let text = digest.to_string();
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).unwrap_or_default();
        *byte = u8::from_str_radix(pair, 16).unwrap_or_default();
    }
    bytes
}

#[cfg(test)]
mod tests {
    use api::placement::Node;

    use super::*;

    fn disk(n: u8) -> Disk {
        Disk {
            disk_id: DiskId([n; 16]),
            start_count: 1,
            size_bytes: 100,
            free_bytes: 50,
            state: DiskState::Poisoned,
            path: String::new(),
            start_id: 0,
            previous_start_id: 0,
            n_synced: Some(1),
        }
    }

    #[test]
    fn a_node_is_believed_of_its_own_disks_only() {
        let node = |name: &str, n: u8| Node {
            name: name.to_owned(),
            disks: vec![disk(n)],
            ..Node::default()
        };
        let nodes = vec![node("n1", 1), node("n2", 2)];
        let placement = Placement { nodes, ..Placement::default() };
        let disks = [1, 2, 3].map(disk).to_vec();
        let mut report = Report { node: "n1".to_owned(), disks, ..Report::default() };
        keep_own_disks(&mut report, &placement);
        assert_eq!(report.disks, [disk(1), disk(3)]);
    }

    #[test]
    fn a_report_of_a_process_before_the_one_that_was_taken_counts_no_more() {
        let node = Node { name: "n1".to_owned(), run_id: 2, ..Node::default() };
        let placement = Placement { version: 7, nodes: vec![node], ..Placement::default() };
        let report = |name: &str, run_id, placement_version| {
            let node = name.to_owned();
            Report { node, run_id, placement_version, ..Report::default() }
        };
        assert!(is_of_now(&report("n1", 2, 7), &placement));
        assert!(!is_of_now(&report("n1", 1, 6), &placement));
        assert!(!is_of_now(&report("n1", 1, 7), &placement));
        assert!(is_of_now(&report("n1", 3, 8), &placement), "this leader is behind");
        assert!(is_of_now(&report("n2", 1, 7), &placement));
    }

    #[test]
    fn who_is_started_again_has_not_failed() {
        let stopped =
            |is_starting| Status { role: Role::Stopped, is_starting, ..Status::default() };
        assert_eq!(state(&stopped(true)), ReplicaState::Starting);
        assert_eq!(state(&stopped(false)), ReplicaState::Failed);
    }
}
