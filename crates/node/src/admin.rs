//! What operators ask of this node.

use std::sync::Arc;
use std::time::{Duration, Instant};

use api::admin::{AdminHandler, ClusterInit, MoveReplica, NodeStatus, ReplicaCopies, Status};
use api::meta::{MetaError, Report};
use api::placement::{Disk, DiskId, DiskState, META_SHARD, Node};
use async_trait::async_trait;
use mailbox::{Digest, ShardId};
use replica::Role;
use tokio::sync::Mutex;

use crate::controller;
use crate::founding::{self, wait_until};
use crate::meta::{Command, Outcome, plan};
use crate::recover;
use crate::refuse;
use crate::report;
use crate::scrub;
use crate::shared::{Shared, lock};

/// A node that did not report for so long counts as unreachable.
const REPORT_AGE_MAX: Duration = Duration::from_secs(4);
/// How long a transfer of leadership may take.
const TRANSFER_PATIENCE: Duration = Duration::from_secs(3);

/// Service admin.
pub(crate) struct Admin {
    pub shared: Arc<Shared>,
    /// One founding at a time.
    pub founding: Mutex<()>,
}

impl Admin {
    fn myself(&self) -> NodeStatus {
        let mut node = self.shared.describe();
        if let Some(known) = self.shared.known.placement().node(&node.name) {
            remember_failed(&mut node.disks, &known.disks);
        }
        NodeStatus {
            node,
            reachable: true,
            version: report::VERSION.to_owned(),
            uptime_ms: report::uptime_ms(&self.shared),
            replicas: report::replicas(&self.shared),
            scrubs: scrub::report(&self.shared),
            told: self.shared.disks.report(),
            age_ms: 0,
        }
    }

    fn other(&self, node: &Node) -> NodeStatus {
        let reports = lock(&self.shared.reports);
        let fresh = |at: &Instant| at.elapsed() < REPORT_AGE_MAX;
        let (at, report) = match reports.get(&node.name) {
            Some((at, report)) => (Some(*at), report.clone()),
            None => (None, Report::default()),
        };
        let known = &node.disks;
        let mut node = node.clone();
        for disk in &mut node.disks {
            if let Some(told) = report.disks.iter().find(|told| told.disk_id == disk.disk_id) {
                disk.clone_from(told);
            }
        }
        remember_failed(&mut node.disks, known);
        NodeStatus {
            node,
            reachable: at.as_ref().is_some_and(fresh),
            version: report.version,
            uptime_ms: report.uptime_ms,
            replicas: report.replicas,
            scrubs: report.scrubs,
            told: report.disks,
            age_ms: at.map_or(u64::MAX, |at| at.elapsed().as_millis() as u64),
        }
    }
}

/// A disk that failed once has failed, whatever its node says of it now: it may not have taken the marker.
fn remember_failed(told: &mut [Disk], known: &[Disk]) {
    for disk in told {
        let is_this = |one: &&Disk| one.disk_id == disk.disk_id;
        if known.iter().find(is_this).is_some_and(|one| one.state == DiskState::Poisoned) {
            disk.state = DiskState::Poisoned;
        }
    }
}

#[async_trait]
impl AdminHandler for Admin {
    async fn status(&self, local: bool) -> Result<Status, MetaError> {
        let placement = self.shared.known.placement();
        let placement = (placement.version > 0).then_some(placement);
        if local {
            return Ok(Status { placement, nodes: vec![self.myself()], ..Status::default() });
        }
        if placement.is_none() && self.shared.known.cluster().is_some() {
            // Why: it would look as if there were no cluster. Somebody else knows, or soon this node.
            let text = "the node has just started and asks for the placement of its cluster";
            return Err(MetaError::Unavailable(text.into()));
        }
        let Some(placement) = placement else {
            let mut nodes = self.shared.known.waiting();
            nodes.retain(|node| node.name != self.shared.name());
            let waits = |node| NodeStatus { node, reachable: true, ..NodeStatus::default() };
            let mut nodes: Vec<NodeStatus> = nodes.into_iter().map(waits).collect();
            nodes.push(self.myself());
            return Ok(Status { nodes, ..Status::default() });
        };
        // Reports go to the leader; without one, this node tells what it knows itself.
        if let Err(MetaError::NotLeader { leader: Some(leader) }) = self.shared.meta_leader()
            && leader != self.shared.name()
        {
            return Err(MetaError::NotLeader { leader: Some(leader) });
        }
        let me = self.shared.name();
        let status = |node: &Node| if node.name == me { self.myself() } else { self.other(node) };
        let nodes = placement.nodes.iter().map(status).collect();
        let outlook = lock(&self.shared.outlook).clone();
        let (replacements, waiting) = (outlook.replacements, outlook.waiting);
        Ok(Status { placement: Some(placement), nodes, replacements, waiting })
    }

    async fn cluster_init(&self, init: ClusterInit) -> Result<(), MetaError> {
        let _one = self.founding.lock().await;
        founding::found(&self.shared, init).await
    }

    async fn transfer_leader(&self, shard: ShardId, to: &str) -> Result<(), MetaError> {
        let no_shard = || MetaError::Refused(format!("no shard {shard} here"));
        let placement = self.shared.known.placement();
        let placed = placement.shard(shard).ok_or_else(no_shard)?;
        let Some(running) = self.shared.replicas.of_shard(shard) else {
            return Err(MetaError::NotLeader { leader: placed.leader.clone() });
        };
        let status = running.replica.status();
        if status.role != Role::Leader {
            let leader = status.leader.map(|(_, member)| member.node);
            // Who asks again after a lost answer finds it done.
            return match leader.as_deref() == Some(to) {
                true => Ok(()),
                false => Err(MetaError::NotLeader { leader }),
            };
        }
        let target = status.voters.iter().find(|(_, member)| member.node == to);
        let Some((target, _)) = target else {
            return Err(MetaError::Refused(format!("node {to} has no voter of shard {shard}")));
        };
        if *target == running.replica.replica_id() {
            return Ok(());
        }
        running.replica.transfer_leader(Some(*target)).await.map_err(refuse::meta)?;
        let deadline = tokio::time::Instant::now() + TRANSFER_PATIENCE;
        let done = wait_until(deadline, || {
            let leader = running.replica.status().leader;
            leader.is_some_and(|(id, _)| id == *target).then_some(())
        });
        done.await.ok_or_else(|| MetaError::Unavailable(format!("node {to} did not take over")))
    }

    async fn drain(&self, node: &str, undo: bool) -> Result<(), MetaError> {
        let command = Command::SetDraining(node.to_owned(), !undo);
        self.shared.propose_meta(&command).await.map(drop)
    }

    async fn add_shard(&self, n_replicas: u32) -> Result<ShardId, MetaError> {
        self.shared.meta_leader()?;
        let placement = self.shared.known.placement();
        // Why waited for: whoever began to lead a moment ago has not heard of all that are there.
        let all_told = || report::fresh(&self.shared).len() >= placement.nodes.len();
        let _ =
            wait_until(tokio::time::Instant::now() + report::FRESH, || all_told().then_some(()))
                .await;
        let told = report::fresh(&self.shared);
        let seats =
            plan::further_shard(&placement, &told, n_replicas).map_err(MetaError::Refused)?;
        match self.shared.propose_meta(&Command::CreateShard(seats)).await? {
            Outcome::Shard(shard) if shard != META_SHARD => Ok(shard),
            other => Err(MetaError::Unavailable(format!("{other:?} instead of a shard"))),
        }
    }

    async fn copies(
        &self,
        shard: ShardId,
        digests: Vec<Digest>,
    ) -> Result<Vec<ReplicaCopies>, MetaError> {
        scrub::copies(&self.shared, shard, digests).await
    }

    async fn remove_node(&self, node: &str) -> Result<(), MetaError> {
        self.shared.propose_meta(&Command::RemoveNode(node.to_owned())).await.map(drop)
    }

    async fn retire_disk(&self, disk: DiskId) -> Result<(), MetaError> {
        let placement = self.shared.known.placement();
        let disks = || placement.nodes.iter().flat_map(|node| &node.disks);
        if disks().any(|one| one.disk_id == disk && one.state == DiskState::Retired) {
            return Ok(());
        }
        let command = Command::SetDiskState(disk, DiskState::Draining);
        self.shared.propose_meta(&command).await.map(drop)
    }

    async fn scrub_disk(&self, disk: DiskId) -> Result<u64, MetaError> {
        let found = self.shared.disks.disk(disk);
        let found = found.ok_or_else(|| {
            let name = self.shared.name();
            MetaError::Refused(format!("no disk {disk} in use on {name}"))
        })?;
        if found.is_poisoned() {
            return Err(MetaError::Refused(format!("disk {disk} has failed: replace it")));
        }
        Ok(found.hurry_scrub())
    }

    async fn move_replica(&self, to_move: MoveReplica) -> Result<(), MetaError> {
        self.shared.meta_leader()?;
        let placement = self.shared.known.placement();
        let command = plan::relocation(&placement, &to_move).map_err(MetaError::Refused)?;
        match command {
            Some(command) => self.shared.propose_meta(&command).await.map(drop),
            None => Ok(()),
        }
    }

    async fn set(&self, name: &str, value: Option<&str>) -> Result<(), MetaError> {
        controller::check_setting(name, value).map_err(MetaError::Refused)?;
        let command = Command::SetSetting(name.to_owned(), value.map(str::to_owned));
        self.shared.propose_meta(&command).await.map(drop)
    }

    async fn recover_shard(&self, shard: ShardId, node: &str) -> Result<(), MetaError> {
        match shard {
            META_SHARD => recover::meta(&self.shared, node).await,
            shard => recover::shard(&self.shared, shard, node).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_came_back_after_it_failed_is_told_as_failed() {
        let disk = |id: u8, state| Disk {
            disk_id: DiskId([id; 16]),
            start_count: 1,
            size_bytes: 0,
            free_bytes: 0,
            state,
            path: String::new(),
            start_id: 0,
            previous_start_id: 0,
            n_synced: None,
        };
        let (failed, ok) = (DiskState::Poisoned, DiskState::Ok);
        let mut told = [disk(1, ok), disk(2, ok), disk(3, failed), disk(4, ok)];
        remember_failed(&mut told, &[disk(1, failed), disk(2, ok), disk(3, ok)]);
        assert_eq!(told.map(|disk| disk.state), [failed, ok, failed, ok]);
    }
}
