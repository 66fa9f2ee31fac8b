//! `rookery ctl node`: nodes come, are emptied, and leave.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail};
use api::admin::MoveReplica;
use api::placement::{DiskState, Placement, Replica, Shard};
use clap::Subcommand;
use comfy_table::Table;
use comfy_table::presets::NOTHING;

use crate::cluster;
use crate::follow::{self, Left};
use crate::shard;
use crate::show::say;
use crate::target::Target;

/// `rookery ctl node`
#[derive(Subcommand)]
pub(crate) enum NodeVerb {
    /// Show nodes with what they carry
    List,
    /// Give a node that was started with `join` its share of the replicas
    Add {
        /// Its name
        name: String,
    },
    /// Move leaderships and replicas away from a node, and wait until it is empty
    Drain {
        /// Its name
        name: String,
        /// Begin, and do not wait
        #[arg(long)]
        no_wait: bool,
    },
    /// Let a drained node take replicas again
    Undrain {
        /// Its name
        name: String,
    },
    /// Let a drained node leave for good; its disks never come back
    Remove {
        /// Its name
        name: String,
    },
}

/// Does what the command line says.
pub(crate) async fn run(target: &Target, verb: NodeVerb) -> Result<()> {
    match verb {
        NodeVerb::List => list(target).await,
        NodeVerb::Add { name } => add(target, &name).await,
        NodeVerb::Drain { name, no_wait } => {
            target.admin()?.drain(&name, false).await.context("drain")?;
            if no_wait {
                say(format_args!(
                    "{name} is being emptied: `rookery ctl cluster status` shows how far it is"
                ));
                return Ok(());
            }
            emptied(target, &name).await.with_context(|| {
                format!(
                    "{name} stays drained, and is emptied as soon as that can be done; `rookery ctl \
                     node undrain {name}` calls it off"
                )
            })?;
            say(format_args!("{name} is empty"));
            Ok(())
        }
        NodeVerb::Undrain { name } => {
            target.admin()?.drain(&name, true).await.context("undrain")?;
            say(format_args!("{name} takes replicas again"));
            Ok(())
        }
        NodeVerb::Remove { name } => {
            let status = cluster::status(target).await?;
            let placement = status.known()?;
            if placement.node(&name).is_none() {
                let names: Vec<&str> = placement.nodes.iter().map(|n| n.name.as_str()).collect();
                bail!("no node {name}; there are {}", names.join(", "));
            }
            target.admin()?.remove_node(&name).await.context("remove node")?;
            say(format_args!("{name} has left: stop it; its disks are refused from now on"));
            Ok(())
        }
    }
}

async fn list(target: &Target) -> Result<()> {
    let status = cluster::status(target).await?;
    let placement = status.known()?;
    let replicas = || placement.shards.iter().flat_map(|shard| &shard.replicas);
    let carried = follow::count(replicas().map(|one| one.node.as_str()));
    let led = placement.shards.iter().filter_map(|shard| shard.leader.as_deref());
    let led = follow::count(led);
    let mut table = Table::new();
    table.load_preset(NOTHING);
    table.set_header(["node", "address", "zone", "state", "disks", "replicas", "leads"]);
    for node in &placement.nodes {
        let name = node.name.as_str();
        let state = match (status.is_reachable(name), node.draining) {
            (false, _) => "AWAY",
            (true, true) => "draining",
            (true, false) => "up",
        };
        let usable = node.disks.iter().filter(|disk| disk.state == DiskState::Ok).count();
        table.add_row([
            name.to_owned(),
            node.address.clone(),
            node.zone.clone(),
            state.to_owned(),
            usable.to_string(),
            carried.get(name).copied().unwrap_or_default().to_string(),
            led.get(name).copied().unwrap_or_default().to_string(),
        ]);
    }
    say(table);
    Ok(())
}

/// Waits for the node, then moves replicas to it one by one until none carries two more than it.
async fn add(target: &Target, name: &str) -> Result<()> {
    let known = |status: &cluster::ClusterStatus| {
        let placement = status.known()?;
        Ok(match placement.node(name) {
            Some(_) if status.is_reachable(name) => Left::Done,
            _ => {
                Left::Still(format!("waiting for {name}: start it with `join` naming this cluster"))
            }
        })
    };
    // Why at last: what the cluster waits for meanwhile may be this very node.
    follow::until_at_last(target, known).await?;
    loop {
        let status = cluster::status(target).await?;
        let placement = status.known()?;
        let Some(to_move) = share(placement, name)? else { break };
        say(format_args!("shard {} moves from {} to {name}", to_move.shard, to_move.from));
        let old = shard::leaves(placement, &to_move);
        target.admin()?.move_replica(&to_move).await.context("move replica")?;
        follow::until(target, |status| shard::moved(status.known()?, &to_move, old)).await?;
    }
    say(format_args!("{name} has its share"));
    Ok(())
}

/// The next replica that should lie on this node; `None` when it carries as much as the others, or as much
/// as it can without a shard being in fewer zones for it.
fn share(placement: &Placement, name: &str) -> Result<Option<MoveReplica>> {
    let node = placement.node(name).context("the node has left")?;
    if node.draining || !node.disks.iter().any(|disk| disk.state == DiskState::Ok) {
        bail!("{name} takes no replicas: it is drained or has no usable disk");
    }
    let replicas = || placement.shards.iter().flat_map(|shard| &shard.replicas);
    let carried = follow::count(replicas().map(|one| one.node.as_str()));
    let load = |node: &str| carried.get(node).copied().unwrap_or_default();
    let open = placement.shards.iter().filter(|shard| {
        !shard.replicas.iter().any(|one| one.node == name || one.replaces.is_some())
    });
    // A node without a zone is one of its own.
    let zone_of = |node: &str| match placement.node(node) {
        Some(node) if !node.zone.is_empty() => node.zone.clone(),
        _ => format!("/{node}"),
    };
    let keeps_zones = |shard: &Shard, one: &Replica| {
        let others = || shard.replicas.iter().filter(|other| other.replica_id != one.replica_id);
        let n_with = |node: &str| {
            let zones = others().map(|other| zone_of(&other.node)).chain([zone_of(node)]);
            zones.collect::<BTreeSet<_>>().len()
        };
        n_with(name) >= n_with(&one.node)
    };
    // Why the later replicas first: the first one is where the shard is led.
    let moves = open.flat_map(|shard| {
        let ranked = shard.replicas.iter().enumerate();
        let may_move = ranked.filter(move |(_, one)| keeps_zones(shard, one));
        may_move.map(move |(rank, one)| (shard.shard, rank, one))
    });
    let best = moves.max_by_key(|(shard, rank, one)| (load(&one.node), *rank, shard.0));
    Ok(best.filter(|(_, _, one)| load(&one.node) > load(name) + 1).map(|(shard, _, one)| {
        MoveReplica { shard, from: one.node.clone(), to: name.to_owned(), disk: None }
    }))
}

async fn emptied(target: &Target, name: &str) -> Result<()> {
    let left = |status: &cluster::ClusterStatus| {
        let placement = status.known()?;
        if placement.node(name).is_some_and(|node| !node.draining) {
            bail!("{name} is not drained any more");
        }
        let replicas = placement.shards.iter().flat_map(|shard| &shard.replicas);
        let n_left = replicas.filter(|one| one.node == name).count();
        Ok(match n_left {
            0 => Left::Done,
            n => Left::Still(format!("{name} has {n} replicas left")),
        })
    };
    follow::until(target, left).await
}

#[cfg(test)]
mod tests {
    use api::placement::{Disk, DiskId, Node, ReplicaRole};
    use mailbox::ShardId;

    use super::*;

    fn node(name: &str, zone: &str) -> Node {
        let disk = Disk {
            disk_id: DiskId([0; 16]),
            start_count: 1,
            size_bytes: 1 << 40,
            free_bytes: 1 << 39,
            state: DiskState::Ok,
            path: String::new(),
            start_id: 0,
            previous_start_id: 0,
            n_synced: None,
        };
        Node { name: name.into(), zone: zone.into(), disks: vec![disk], ..Node::default() }
    }

    /// Shards on n1, n2 and n3, and a fourth node that has nothing yet.
    fn placement(zones: [&str; 4]) -> Placement {
        let names = ["n1", "n2", "n3", "n4"];
        let replica = |replica_id: u64, node: &str| Replica {
            replica_id,
            node: node.into(),
            disk_id: DiskId([0; 16]),
            role: ReplicaRole::Voter,
            replaces: None,
        };
        let shard = |shard: u32| Shard {
            shard: ShardId(shard),
            replicas: (1..).zip(&names[..3]).map(|(id, node)| replica(id, node)).collect(),
            leader: None,
            n_wanted: 3,
            forced: None,
            outcasts: Vec::new(),
        };
        let nodes = names.iter().zip(zones).map(|(name, zone)| node(name, zone)).collect();
        Placement { version: 1, nodes, shards: (0..4).map(shard).collect(), ..Placement::default() }
    }

    #[test]
    fn a_new_node_takes_its_share_and_leaves_each_shard_in_as_many_zones() {
        let from = |zones| share(&placement(zones), "n4").unwrap().map(|to_move| to_move.from);
        assert_eq!(from(["", "", "", ""]).as_deref(), Some("n3"));
        assert_eq!(from(["a", "b", "c", "d"]).as_deref(), Some("n3"));
        // Only what lies in its own zone can come.
        assert_eq!(from(["a", "b", "c", "a"]).as_deref(), Some("n1"));
        assert_eq!(from(["a", "b", "c", "b"]).as_deref(), Some("n2"));
        // Where zones are too few, none becomes fewer.
        assert_eq!(from(["a", "a", "b", "b"]).as_deref(), Some("n3"));
        assert_eq!(from(["a", "a", "a", "b"]).as_deref(), Some("n3"));
    }
}
