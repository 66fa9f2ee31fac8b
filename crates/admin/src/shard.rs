//! `rookery ctl shard`: shards and where their replicas lie.

use anyhow::{Context as _, Result, bail};
use api::admin::MoveReplica;
use api::placement::{DiskId, META_SHARD, Placement, ReplicaRole};
use clap::Subcommand;
use mailbox::ShardId;

use crate::cluster::{self, ClusterStatus};
use crate::follow::{self, Left};
use crate::show::say;
use crate::target::Target;

/// Copies of a shard unless somebody wants others: one may be lost, and two are still a majority.
const REPLICAS: u32 = 3;

/// `rookery ctl shard`
#[derive(Subcommand)]
pub(crate) enum ShardVerb {
    /// Show shards, their leaders and replicas
    List,
    /// Add a shard where there is room; new accounts are placed on it too
    Add {
        /// Replicas it shall have
        #[arg(long, default_value_t = REPLICAS)]
        replicas: u32,
    },
    /// Move a replica of a shard to another node, and wait until it votes there
    Move {
        /// Number of the shard; 0 is the meta group
        shard: u32,
        /// Node that has the replica
        #[arg(long)]
        from: String,
        /// Node that shall have it
        #[arg(long)]
        to: String,
        /// On which of its disks, by id; otherwise the one that carries least
        #[arg(long)]
        disk: Option<String>,
        /// Begin, and do not wait
        #[arg(long)]
        no_wait: bool,
    },
    /// Give up a majority that is lost for good: one replica goes on alone with what it has
    Recover {
        /// Numbers of the shards, 0 (the meta group) first if it is among them
        #[arg(required = true)]
        shards: Vec<u32>,
        /// Node whose replicas go on
        #[arg(long)]
        node: String,
        /// What only the lost replicas had is lost; every mailbox gets a new UIDVALIDITY. Without this,
        /// only what is known is shown
        #[arg(long)]
        i_accept_data_loss: bool,
    },
}

/// Does what the command line says.
pub(crate) async fn run(target: &Target, verb: ShardVerb) -> Result<()> {
    match verb {
        ShardVerb::List => {
            let status = cluster::status(target).await?;
            let placement = status.known()?;
            say(status.shard_table(placement));
            Ok(())
        }
        ShardVerb::Add { replicas } => {
            let takes = cluster::status(target).await?.n_taking_replicas()?;
            cluster::check_copies(replicas, takes)?;
            let shard = target.admin()?.add_shard(replicas).await.context("add shard")?;
            let led = |status: &ClusterStatus| {
                let placement = status.known()?;
                let led = placement.shard(shard).is_some_and(|shard| shard.leader.is_some());
                Ok(if led { Left::Done } else { Left::Still(format!("shard {shard} begins")) })
            };
            follow::until(target, led).await?;
            say(format_args!("shard {shard} is there"));
            Ok(())
        }
        ShardVerb::Move { shard, from, to, disk, no_wait } => {
            let disk = disk.map(|disk| disk.parse::<DiskId>()).transpose().context("--disk")?;
            let to_move = MoveReplica { shard: ShardId(shard), from, to, disk };
            let old = leaves(cluster::status(target).await?.known()?, &to_move);
            target.admin()?.move_replica(&to_move).await.context("move replica")?;
            if no_wait {
                say(format_args!(
                    "shard {shard} moves: `rookery ctl cluster status` shows how far it is"
                ));
                return Ok(());
            }
            follow::until(target, |status| moved(status.known()?, &to_move, old)).await?;
            say(format_args!("shard {shard} has its replica on {}", to_move.to));
            Ok(())
        }
        ShardVerb::Recover { shards, node, i_accept_data_loss } => {
            for shard in shards {
                recover(target, ShardId(shard), &node, i_accept_data_loss).await?;
            }
            Ok(())
        }
    }
}

/// The replica that is to leave its node, before the move begins.
pub(crate) fn leaves(placement: &Placement, to_move: &MoveReplica) -> Option<u64> {
    let mut replicas = placement.shard(to_move.shard)?.replicas.iter();
    let old = replicas.find(|one| one.node == to_move.from && one.replaces.is_none())?;
    Some(old.replica_id)
}

/// What is left of a move of the replica `old` that was begun; an error when it was called off.
pub(crate) fn moved(
    placement: &Placement,
    to_move: &MoveReplica,
    old: Option<u64>,
) -> Result<Left> {
    let MoveReplica { shard: id, from, to, disk } = to_move;
    let replicas = &placement.shard(*id).context("the shard is gone")?.replicas;
    if replicas.iter().any(|one| one.role == ReplicaRole::Learner) {
        return Ok(Left::Still(format!("shard {id} moves")));
    }
    let stays = replicas.iter().any(|one| Some(one.replica_id) == old);
    // Why the disk: one that was asked for and died meanwhile has nothing.
    let is_there = replicas.iter().any(|one| {
        one.node == *to
            && Some(one.replica_id) != old
            && disk.is_none_or(|disk| one.disk_id == disk)
    });
    match (is_there, stays) {
        (true, false) => Ok(Left::Done),
        (true, true) => bail!(
            "shard {id} has a replica on {to} in the place of another one, and keeps the one on {from}: \
             see `ctl cluster status`"
        ),
        (false, _) => bail!(
            "the move of shard {id} from {from} to {to} was called off, because {to} or its disk takes \
             no replicas any more: see `ctl cluster status`"
        ),
    }
}

async fn recover(target: &Target, shard: ShardId, node: &str, accepted: bool) -> Result<()> {
    let status = cluster::status(target).await?;
    let is_alone = status.known()?.shard(shard).is_some_and(|shard| shard.replicas.len() == 1);
    if is_alone && status.leads(shard) == Some(node) {
        say(format_args!("shard {shard} goes on with the replica on {node} already"));
        return Ok(());
    }
    say(status.losses(shard, node)?);
    if !accepted {
        bail!(
            "nothing was done: repeat it with --i-accept-data-loss when the others are lost for good"
        );
    }
    target.admin()?.recover_shard(shard, node).await.context("recover shard")?;
    // Why at last: what the cluster waits for meanwhile is this very shard, and the ones after it.
    follow::until_at_last(target, |status| {
        let placement = status.known()?;
        let open = placement.shard(shard).is_none_or(|shard| shard.forced.is_some());
        Ok(match (open, status.leads(shard)) {
            (false, Some(leader)) if leader == node => Left::Done,
            _ => Left::Still(format!("shard {shard} recovers")),
        })
    })
    .await?;
    say(format_args!("shard {shard} goes on with the replica on {node}"));
    say("  wipe the disks of the lost nodes before they come back");
    say("  restart the frontends, so that no open session goes on with old UIDs");
    say("  its other replicas are made anew as soon as there are disks for them");
    if shard == META_SHARD {
        // Why: only the lost majority had taken them, and who was taken registers no more.
        say("  restart nodes that run and are not listed by `ctl cluster status`");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use api::placement::{Replica, Shard};

    use super::*;

    fn placement(replicas: &[(&str, ReplicaRole)]) -> Placement {
        let replica = |(at, (node, role)): (usize, &(&str, ReplicaRole))| Replica {
            replica_id: at as u64 + 1,
            node: (*node).to_owned(),
            disk_id: DiskId([at as u8; 16]),
            role: *role,
            replaces: None,
        };
        let shard = Shard {
            shard: ShardId(1),
            replicas: replicas.iter().enumerate().map(replica).collect(),
            leader: None,
            n_wanted: 3,
            forced: None,
            outcasts: Vec::new(),
        };
        Placement { version: 1, shards: vec![shard], ..Placement::default() }
    }

    /// Who waits for a move hears of its end, whichever it is.
    #[test]
    fn a_move_ends_done_or_called_off() {
        use ReplicaRole::{Learner, Voter};
        let to_move =
            MoveReplica { shard: ShardId(1), from: "n1".into(), to: "n4".into(), disk: None };
        let left = |replicas: &[_]| moved(&placement(replicas), &to_move, Some(1));
        let (n1, n2, n3) = (("n1", Voter), ("n2", Voter), ("n3", Voter));
        assert!(matches!(left(&[n1, n2, n3, ("n4", Learner)]).unwrap(), Left::Still(_)));
        let done = placement(&[n2, n3, ("n4", Voter)]);
        assert_eq!(leaves(&done, &to_move), None);
        assert!(matches!(moved(&done, &to_move, Some(9)).unwrap(), Left::Done));
        let elsewhere = MoveReplica { disk: Some(DiskId([9; 16])), ..to_move.clone() };
        assert!(moved(&done, &elsewhere, Some(9)).is_err(), "on another disk");
        let said = left(&[n1, n2, ("n4", Voter)]).err().unwrap().to_string();
        assert!(said.contains("in the place of another one"), "{said}");
        assert_eq!(leaves(&placement(&[n1, n2, n3]), &to_move), Some(1));
        // On one node from disk to disk.
        let back = MoveReplica { to: "n1".into(), ..to_move.clone() };
        assert!(moved(&placement(&[n1, n2, n3]), &back, Some(1)).is_err());
        let said = left(&[n1, n2, n3]).err().unwrap().to_string();
        assert!(said.starts_with("the move of shard 1 from n1 to n4 was called off"), "{said}");
    }
}
