//! Where replicas go: on different nodes, in different zones where there are enough, on the disks
//! that carry least, and with the preferred leaders spread.

use std::collections::{BTreeMap, BTreeSet};

use api::admin::MoveReplica;
use api::meta::Report;
use api::placement::{ClusterId, DiskId, DiskState, Node, Placement, ReplicaRole};

use super::command::{Command, Founding, Seat};

/// Replicas of a shard when nobody says otherwise.
pub const REPLICAS_DEFAULT: u32 = 3;

/// Replicas each shard can have: the greatest odd number that is neither above what is wanted nor above
/// the number of nodes. An even one survives no more than the odd one below it.
pub fn n_replicas(wanted: u32, n_nodes: usize) -> usize {
    let wanted = if wanted == 0 { REPLICAS_DEFAULT } else { wanted } as usize;
    let most = wanted.min(n_nodes).max(1);
    most - usize::from(most.is_multiple_of(2))
}

/// All a cluster of these nodes begins with.
pub fn founding(cluster: ClusterId, nodes: Vec<Node>, n_shards: u32, wanted: u32) -> Founding {
    let n = n_replicas(wanted, nodes.len());
    let able: Vec<Node> = nodes.iter().filter(|node| first_seat(node).is_some()).cloned().collect();
    // Why with a count of its own: the meta group takes little. The first node by name comes first.
    let meta = Load::default().seats(&able, n);
    let mut load = Load::default();
    let shards = (0..n_shards).map(|_| load.seats(&able, n)).collect();
    Founding { cluster, nodes, meta, shards, settings: BTreeMap::new() }
}

/// Where a further shard goes; why not when too few nodes take replicas. Who said nothing lately begins no
/// shard, and without its first replica there would never be one.
pub fn further_shard(
    placement: &Placement,
    told: &[Report],
    wanted: u32,
) -> Result<Vec<Seat>, String> {
    let has_room = |node: &Node, id: DiskId| {
        let told = told.iter().filter(|report| report.node == node.name);
        let mut disks = told.flat_map(|report| &report.disks);
        disks.any(|disk| disk.disk_id == id && disk.state == DiskState::Ok && !disk.is_full())
    };
    let mut open = placement.nodes.clone();
    for node in &mut open {
        let mut disks = std::mem::take(&mut node.disks);
        disks.retain(|disk| has_room(node, disk.disk_id));
        node.disks = disks;
    }
    open.retain(|node| first_seat(node).is_some());
    let (n, n_open) = (n_replicas(wanted, usize::MAX), open.len());
    if n_open < n {
        return Err(format!(
            "{n} replicas need as many nodes, and {n_open} take some: the others are away, drained or full"
        ));
    }
    Ok(Load::of(placement).seats(&open, n))
}

/// How a replica moves as an operator wants it: `None` when it is on its way already, and why not when
/// it cannot.
pub fn relocation(placement: &Placement, to_move: &MoveReplica) -> Result<Option<Command>, String> {
    let MoveReplica { shard: id, from, to, disk } = to_move;
    let shard = placement.shard(*id).ok_or_else(|| format!("no shard {id}"))?;
    let old = shard.replicas.iter().find(|one| one.node == *from && one.replaces.is_none());
    let node = placement.node(to).ok_or_else(|| format!("no node {to}"))?;
    if let Some(on_its_way) = shard.replicas.iter().find(|one| one.role == ReplicaRole::Learner) {
        let same = on_its_way.node == *to && on_its_way.replaces == old.map(|one| one.replica_id);
        let text = format!("shard {id} has a change under way: see `rookery ctl cluster status`");
        return if same { Ok(None) } else { Err(text) };
    }
    let old = old.ok_or_else(|| format!("node {from} has no replica of shard {id}"))?;
    if from != to && shard.replicas.iter().any(|one| one.node == *to) {
        return Err(format!("node {to} has a replica of shard {id} already"));
    }
    let usable = node.disks.iter().filter(|one| one.state == DiskState::Ok && !node.draining);
    let wanted = usable.filter(|one| one.disk_id != old.disk_id);
    let mut wanted = wanted.filter(|one| disk.is_none_or(|disk| one.disk_id == disk));
    let load = Load::of(placement);
    let best = wanted.by_ref().min_by_key(|one| load.disks.get(&one.disk_id).copied());
    let best = best.ok_or_else(|| format!("node {to} has no other disk that takes replicas"))?;
    let seat = Seat { node: to.clone(), disk_id: best.disk_id };
    Ok(Some(Command::PlaceReplica(*id, seat, Some(old.replica_id))))
}

fn first_seat(node: &Node) -> Option<Seat> {
    let mut usable = node.disks.iter().filter(|disk| disk.state == DiskState::Ok);
    let disk = usable.next().filter(|_| !node.draining)?;
    Some(Seat { node: node.name.clone(), disk_id: disk.disk_id })
}

/// What is placed already.
#[derive(Default)]
struct Load {
    replicas: BTreeMap<String, u32>,
    preferred: BTreeMap<String, u32>,
    disks: BTreeMap<DiskId, u32>,
}

impl Load {
    fn of(placement: &Placement) -> Self {
        let mut load = Self::default();
        for shard in placement.shards.iter().skip(1) {
            for (rank, replica) in shard.replicas.iter().enumerate() {
                load.count(&replica.node, replica.disk_id, rank == 0);
            }
        }
        load
    }

    fn count(&mut self, node: &str, disk_id: DiskId, preferred: bool) {
        *self.replicas.entry(node.to_owned()).or_default() += 1;
        *self.preferred.entry(node.to_owned()).or_default() += u32::from(preferred);
        *self.disks.entry(disk_id).or_default() += 1;
    }

    fn seats(&mut self, nodes: &[Node], n: usize) -> Vec<Seat> {
        let mut chosen: Vec<&Node> = Vec::with_capacity(n);
        let mut zones = BTreeSet::new();
        while chosen.len() < n {
            let free = nodes.iter().filter(|node| !chosen.iter().any(|c| c.name == node.name));
            let of = |counts: &BTreeMap<String, u32>, node: &Node| {
                counts.get(&node.name).copied().unwrap_or_default()
            };
            let Some(node) = free.min_by_key(|node| {
                let shared_zone = !node.zone.is_empty() && zones.contains(&node.zone);
                (shared_zone, of(&self.replicas, node), of(&self.preferred, node), &node.name)
            }) else {
                break;
            };
            zones.insert(node.zone.clone());
            chosen.push(node);
        }
        // The one that is preferred least so far is preferred here.
        chosen.sort_by_key(|node| self.preferred.get(&node.name).copied().unwrap_or_default());
        let mut seats = Vec::with_capacity(n);
        for node in chosen {
            let usable = node.disks.iter().filter(|disk| disk.state == DiskState::Ok);
            let least = usable.min_by_key(|disk| {
                (self.disks.get(&disk.disk_id).copied().unwrap_or_default(), disk.disk_id)
            });
            if let Some(disk) = least {
                self.count(&node.name, disk.disk_id, seats.is_empty());
                seats.push(Seat { node: node.name.clone(), disk_id: disk.disk_id });
            }
        }
        seats
    }
}
