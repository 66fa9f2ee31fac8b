//! The meta group at this node: its rows as placement, proposals to it, and service meta.

use std::sync::Arc;
use std::time::{Duration, Instant};

use api::meta::{MemberChange, MetaError, MetaHandler, Newer, Placements, Report};
use api::placement::{
    ClusterId, DiskId, META_SHARD, Node, Placement, Replica as Placed, ReplicaRole, Shard,
};
use async_trait::async_trait;
use replica::{Role, Status};

use crate::meta::{self, Command, Outcome};
use crate::replicas::Running;
use crate::shared::{Shared, lock};
use crate::{marks, members, refuse, report};

/// How often a node without a meta replica looks whether it has one now.
const LOOK_EVERY: Duration = Duration::from_millis(100);

impl Shared {
    /// The replica of the meta group here.
    pub fn meta_replica(&self) -> Option<Arc<Running>> {
        self.replicas.of_shard(META_SHARD)
    }

    /// The replica of the meta group here, if it leads; otherwise where to go.
    pub fn meta_leader(&self) -> Result<Arc<Running>, MetaError> {
        let Some(running) = self.meta_replica() else {
            let placement = self.known.placement();
            let leader = placement.shard(META_SHARD).and_then(|shard| shard.leader.clone());
            // Why: this node lost its replica, and with it whoever would tell it of another leader.
            // Whoever asks, itself first of all, must go on to the others.
            let leader = leader.filter(|leader| leader != self.name());
            return Err(MetaError::NotLeader { leader });
        };
        let status = running.replica.status();
        if status.role == Role::Leader {
            return Ok(running);
        }
        Err(MetaError::NotLeader { leader: status.leader.map(|(_, member)| member.node) })
    }

    /// Changes the cluster, if this node leads the meta group.
    pub async fn propose_meta(&self, command: &Command) -> Result<Outcome, MetaError> {
        let running = self.meta_leader()?;
        let bytes = mailbox::codec::encode(command);
        let response = running.replica.propose(bytes, Vec::new()).await.map_err(refuse::meta)?;
        self.learn_local(&running).await;
        match mailbox::codec::decode(&response) {
            Ok(Outcome::Refused(why)) => Err(MetaError::Refused(why)),
            Ok(Outcome::NoCluster) => Err(MetaError::NoCluster),
            Ok(outcome) => Ok(outcome),
            Err(error) => Err(MetaError::Unavailable(error.to_string())),
        }
    }

    /// Takes the placement from the rows here; before there is one, what is known of the group itself,
    /// so that its other members hear of it.
    pub async fn learn_local(&self, running: &Running) {
        let Ok(view) = running.replica.local_view() else { return };
        match view.apart(|view| view.read(|rows, _| meta::placement(rows))).await {
            Some(Ok(Some(placement))) => self.known.learn(Arc::new(placement)),
            Some(Ok(None)) => {
                let status = running.replica.status();
                if let Some(cluster) = self.known.cluster()
                    && !status.voters.is_empty()
                {
                    self.known.learn(Arc::new(self.provisional(cluster, &status)));
                }
            }
            Some(Err(error)) => tracing::warn!(%error, "placement not read"),
            None => tracing::warn!("placement not read"),
        }
    }

    /// The meta group alone, at version 0.
    fn provisional(&self, cluster: ClusterId, status: &Status) -> Placement {
        let replicas: Vec<Placed> = status
            .voters
            .iter()
            .map(|(replica_id, member)| Placed {
                replica_id: *replica_id,
                node: member.node.clone(),
                disk_id: DiskId(member.disk_id),
                role: ReplicaRole::Voter,
                replaces: None,
            })
            .collect();
        let described = |placed: &Placed| match placed.node == self.config.name {
            true => Some(self.describe()),
            false => self.known.node(&placed.node),
        };
        let mut nodes: Vec<Node> = replicas.iter().filter_map(described).collect();
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        let n_wanted = replicas.len() as u32;
        let (shard, leader, forced, outcasts) = (META_SHARD, None, None, Vec::new());
        let shards = vec![Shard { shard, replicas, leader, n_wanted, forced, outcasts }];
        Placement { cluster, nodes, shards, ..Placement::default() }
    }
}

/// Keeps the placement as the local meta replica has it, while there is one.
pub(crate) async fn follow_local(shared: Arc<Shared>) {
    while !shared.stop.is_cancelled() {
        let Some(running) = shared.meta_replica() else {
            tokio::time::sleep(LOOK_EVERY).await;
            continue;
        };
        let mut status = running.replica.watch_status();
        let mut seen = None;
        loop {
            let now = {
                let status = status.borrow_and_update();
                (status.applied, status.voters.len())
            };
            if seen.replace(now) != Some(now) {
                shared.learn_local(&running).await;
            }
            tokio::select! {
                () = shared.stop.cancelled() => return,
                changed = status.changed() => if changed.is_err() { break },
            }
            if status.borrow().role == Role::Stopped {
                tokio::time::sleep(LOOK_EVERY).await;
                break;
            }
        }
    }
}

/// Keeps the placement as any other node has it.
pub(crate) async fn follow_others(shared: Arc<Shared>) {
    let mut placements = shared.meta_client.placement();
    loop {
        let placement = Arc::clone(&placements.borrow_and_update());
        if placement.version > 0 {
            shared.known.learn(placement);
        }
        tokio::select! {
            () = shared.stop.cancelled() => return,
            changed = placements.changed() => if changed.is_err() { return },
        }
    }
}

/// Service meta.
pub(crate) struct MetaGroup(pub Arc<Shared>);

impl MetaGroup {
    fn formed(&self) -> Result<Arc<Placement>, MetaError> {
        let placement = self.0.known.placement();
        if placement.version > 0 { Ok(placement) } else { Err(MetaError::NoCluster) }
    }

    /// Why a node is not taken yet: another process goes by its name and told of itself a moment ago, from
    /// other disks. Were the second one taken, the disks of the first would count as lost while it runs.
    fn runs_elsewhere(&self, node: &Node) -> Option<String> {
        let reports = lock(&self.0.reports);
        let (at, report) = reports.get(&node.name)?;
        let has = |id: DiskId| node.disks.iter().any(|disk| disk.disk_id == id);
        let is_same =
            report.run_id == node.run_id || report.disks.iter().any(|disk| has(disk.disk_id));
        let runs = !report.is_last && at.elapsed() < report::FRESH;
        let name = &node.name;
        (runs && !is_same)
            .then(|| format!("another process is node {name}, on other disks: stop one of the two"))
    }
}

#[async_trait]
impl MetaHandler for MetaGroup {
    async fn placement(&self) -> Result<Arc<Placement>, MetaError> {
        self.formed()
    }

    async fn watch_placement(&self, after_version: u64) -> Result<Placements, MetaError> {
        let watched = (self.0.known.watch(), after_version);
        Ok(Box::pin(futures_util::stream::unfold(watched, |(mut watch, after)| async move {
            let newer = watch.wait_for(|placement| placement.version > after).await;
            let placement = Arc::clone(&*newer.ok()?);
            let version = placement.version;
            Some((placement, (watch, version)))
        })))
    }

    async fn register_node(
        &self,
        _from: &str,
        node: Node,
        cluster: Option<ClusterId>,
    ) -> Result<Arc<Placement>, MetaError> {
        let known = &self.0.known;
        if let (Some(theirs), Some(ours)) = (cluster, known.cluster())
            && theirs != ours
        {
            return Err(MetaError::Refused(format!(
                "its disks belong to cluster {theirs}, this is cluster {ours}: \
                 name empty directories in data_dirs, or the right nodes in join"
            )));
        }
        let placement = known.placement();
        if placement.version > 0 {
            known.heard(&node);
            self.0.meta_leader()?;
            if let Some(why) = self.runs_elsewhere(&node) {
                return Err(MetaError::Unavailable(why));
            }
            self.0.propose_meta(&Command::RegisterNode(node)).await?;
            return Ok(known.placement());
        }
        known.wait_for_cluster(node);
        match (placement.cluster == ClusterId::default(), known.cluster()) {
            (false, _) => Ok(placement),
            (true, Some(_)) => Err(MetaError::Unavailable("the meta group is not up yet".into())),
            (true, None) => Err(MetaError::NoCluster),
        }
    }

    async fn report(&self, from: &str, mut report: Report) -> Result<Newer, MetaError> {
        self.0.meta_leader()?;
        let placement = self.0.known.placement();
        report::keep_own_disks(&mut report, &placement);
        let known = report.placement_version;
        // Why not refused: it hears what it does not know yet, and does what is to be done.
        if report::is_of_now(&report, &placement) {
            if report.is_last {
                marks::note(&self.0, &report).await?;
            }
            lock(&self.0.reports).insert(from.to_owned(), (Instant::now(), report));
        }
        let placement = self.0.known.placement();
        Ok((placement.version > known).then_some(placement))
    }

    async fn change_members(&self, change: MemberChange) -> Result<(), MetaError> {
        members::change(&self.0, change).await
    }
}
