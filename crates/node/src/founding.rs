//! How a cluster begins: once, when an operator says so, on the disks the operator names.
//!
//! The node that is asked begins the meta group; the other members hear of it when they register next,
//! and start their replicas. The group's first command holds everything else, so a founding that was
//! cut short is either gone on with or has not happened.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use api::admin::ClusterInit;
use api::meta::MetaError;
use api::placement::{ClusterId, DiskId, META_SHARD, Node, Placement};
use replica::{Member, Role};
use tokio::time::{Instant, timeout_at};

use crate::disks;
use crate::meta::command::Seat;
use crate::meta::{Command, plan};
use crate::refuse;
use crate::replicas::{Running, start_one};
use crate::shared::Shared;

/// How long to wait for nodes that were named and did not register yet.
const NODES_PATIENCE: Duration = Duration::from_millis(1_500);
/// How long all of it may take; the caller gives up at five seconds.
const PATIENCE: Duration = Duration::from_millis(4_500);
/// How often to look whether something came true.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The first replica of the meta group.
const FIRST_REPLICA: u64 = 1;

/// Forms the cluster, or goes on forming it.
pub(crate) async fn found(shared: &Arc<Shared>, init: ClusterInit) -> Result<(), MetaError> {
    let deadline = Instant::now() + PATIENCE;
    if shared.known.placement().version > 0 {
        return Err(refused("a cluster exists already"));
    }
    if init.n_shards == 0 {
        return Err(refused("a cluster has at least one data shard"));
    }
    let running = shared.meta_replica();
    // Why: whoever asks goes from node to node; only one of them may begin, whichever is asked first.
    let first = init.disks.iter().map(|(name, _)| name.as_str()).min();
    if running.is_none() && first != Some(shared.name()) {
        return Err(MetaError::NotLeader { leader: first.map(str::to_owned) });
    }
    let nodes = named_nodes(shared, &init).await?;
    let running = match running {
        Some(running) => running,
        None => start_meta(shared, &nodes, init.n_replicas).await?,
    };
    give_members(shared, &running, &nodes, init.n_replicas).await?;
    let leads = wait_until(deadline, || {
        let status = running.replica.status();
        (status.role == Role::Leader || status.leader.is_some()).then_some(status.role)
    });
    match leads.await {
        Some(Role::Leader) => {}
        Some(_) => shared.meta_leader().map(drop)?,
        None => return Err(MetaError::Unavailable("the meta group has no leader yet".into())),
    }
    propose(shared, &running, nodes, init).await?;
    // Why not an error: the cluster is formed, and its shards come up by themselves.
    let _ = wait_until(deadline, || all_lead(&shared.known.placement()).then_some(())).await;
    Ok(())
}

/// The nodes the operator named, with the disks that were named, this one first.
async fn named_nodes(shared: &Shared, init: &ClusterInit) -> Result<Vec<Node>, MetaError> {
    let me = shared.name();
    let mut named: BTreeMap<&str, Vec<DiskId>> = BTreeMap::new();
    for (name, disk) in &init.disks {
        named.entry(name).or_default().extend(disk);
    }
    let deadline = Instant::now() + NODES_PATIENCE;
    let mut nodes = Vec::with_capacity(named.len());
    for (name, disks) in named {
        let found = wait_until(deadline, || match name == me {
            true => Some(shared.describe()),
            false => shared.known.node(name),
        });
        let Some(mut node) = found.await else {
            let text = format!("node {name} is not known here: start it with this node in `join`");
            return Err(MetaError::Unavailable(text));
        };
        if let Some(missing) =
            disks.iter().find(|id| !node.disks.iter().any(|disk| disk.disk_id == **id))
        {
            return Err(refused(&format!("node {name} has no disk {missing}")));
        }
        node.disks.retain(|disk| disks.is_empty() || disks.contains(&disk.disk_id));
        nodes.push(node);
    }
    nodes.sort_by_key(|node| (node.name != me, node.name.clone()));
    Ok(nodes)
}

/// Starts the first replica of the meta group.
async fn start_meta(
    shared: &Arc<Shared>,
    nodes: &[Node],
    n_replicas: u32,
) -> Result<Arc<Running>, MetaError> {
    if let Some(cluster) = shared.known.cluster() {
        let text = format!("this node's disks belong to cluster {cluster} already");
        return Err(refused(&text));
    }
    let unavailable = |error: &dyn std::fmt::Display| MetaError::Unavailable(error.to_string());
    let cluster = ClusterId(disks::random().map_err(|error| unavailable(&error))?);
    let seats = plan::founding(cluster, nodes.to_vec(), 1, n_replicas).meta;
    let first = seats.first().filter(|first| first.node == shared.name());
    let first = first.ok_or_else(|| refused("no usable disk of this node was named"))?;
    let disk = shared.disks.disk(first.disk_id).ok_or_else(|| refused("no usable disk here"))?;
    // Durability: the disks say which cluster they belong to before its first replica begins.
    shared.join_cluster(cluster).map_err(|error| unavailable(&error))?;
    shared.admitted.store(true, Ordering::Release);
    let running = start_one(shared, META_SHARD, FIRST_REPLICA, disk).await;
    running.ok_or_else(|| unavailable(&"the meta replica does not start"))
}

/// Gives the meta group its members, if it has none yet. Only the first replica does that: another one
/// without members has not heard of them yet.
async fn give_members(
    shared: &Arc<Shared>,
    running: &Running,
    nodes: &[Node],
    n_replicas: u32,
) -> Result<(), MetaError> {
    let status = running.replica.status();
    let has_members = !status.voters.is_empty() || status.last_log_index > 0;
    if has_members || running.replica.replica_id() != FIRST_REPLICA {
        return Ok(());
    }
    let cluster = shared.known.cluster().ok_or(MetaError::NoCluster)?;
    let seats = plan::founding(cluster, nodes.to_vec(), 1, n_replicas).meta;
    let own = seats.first().is_some_and(|seat| seat.disk_id == running.disk_id);
    if !own {
        return Err(refused("the founding that was begun named another disk of this node first"));
    }
    let member = |seat: &Seat| Member { node: seat.node.clone(), disk_id: seat.disk_id.0 };
    let members = (FIRST_REPLICA..).zip(&seats).map(|(id, seat)| (id, member(seat))).collect();
    running.replica.initialize(members).await.map_err(refuse::meta)?;
    shared.learn_local(running).await;
    tracing::info!(%cluster, "cluster begun");
    Ok(())
}

/// The group's first command. Its own members are what they are by now.
async fn propose(
    shared: &Shared,
    running: &Running,
    nodes: Vec<Node>,
    init: ClusterInit,
) -> Result<(), MetaError> {
    let cluster = shared.known.cluster().ok_or(MetaError::NoCluster)?;
    let mut founding = plan::founding(cluster, nodes, init.n_shards, init.n_replicas);
    let members = running.replica.status().voters;
    let seat = |member: Member| Seat { node: member.node, disk_id: DiskId(member.disk_id) };
    founding.meta = members.into_values().map(seat).collect();
    founding.settings = init.settings;
    shared.propose_meta(&Command::Initialize(Box::new(founding))).await.map(drop)
}

fn all_lead(placement: &Placement) -> bool {
    placement.version > 0 && placement.shards.iter().all(|shard| shard.leader.is_some())
}

/// Looks until something is there, or the deadline has come.
pub(crate) async fn wait_until<T>(
    deadline: Instant,
    mut look: impl FnMut() -> Option<T>,
) -> Option<T> {
    let looking = async {
        loop {
            match look() {
                Some(found) => return found,
                None => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    };
    timeout_at(deadline, looking).await.ok()
}

fn refused(reason: &str) -> MetaError {
    MetaError::Refused(reason.to_owned())
}
