//! Forced recovery: a shard whose majority is lost for good goes on with what one replica has. Only an
//! operator begins it. The placement notes it first, so that the lost replicas are out of it for ever; then
//! the node does what the placement says, again and again until it is done.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use api::meta::MetaError;
use api::placement::{META_SHARD, Placement};
use mailbox::command::Renumber;
use mailbox::{Command as MailCommand, LogTime, Outcome as MailOutcome, Request, ShardId};
use replica::{Error, Forced, Member, Role};
use tokio::time::Instant;

use crate::founding::wait_until;
use crate::meta::Command;
use crate::replicas::{Running, start_one, stop_one};
use crate::shared::Shared;

/// How long a replica that was stopped may hold on to its place.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// How long the meta group may take to have a leader again.
const LEAD_PATIENCE: Duration = Duration::from_secs(5);
/// How long a meta group that has a majority may take to answer.
const ASK_PATIENCE: Duration = Duration::from_secs(3);
/// Pause before somebody who still holds the replica is looked for again.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Does what is left to do for replicas here that are to stand alone.
pub(crate) async fn follow(shared: &Arc<Shared>, placement: &Placement) {
    for shard in &placement.shards {
        let Some(id) = shard.forced else { continue };
        let placed = shard.replicas.iter().find(|one| one.replica_id == id);
        if placed.is_none_or(|placed| placed.node != shared.name()) {
            continue;
        }
        let Some(running) = shared.replicas.exactly(shard.shard, id) else { continue };
        let status = running.replica.status();
        let is_alone = status.voters.keys().eq([&id]);
        if !is_alone {
            match force(shared, &running).await {
                Ok(forced) => told(shard.shard, id, forced),
                Err(error) => tracing::warn!(shard = %shard.shard, %error, "not recovered yet"),
            }
        } else if status.role == Role::Leader && !running.is_recovered.load(Ordering::Relaxed) {
            match renumber(&running).await {
                Ok(()) => running.is_recovered.store(true, Ordering::Relaxed),
                Err(error) => tracing::warn!(shard = %shard.shard, error, "not renumbered yet"),
            }
        }
    }
}

fn told(shard: ShardId, replica_id: u64, forced: Forced) {
    let Forced { last_log_index, lacked_bodies } = forced;
    tracing::warn!(%shard, replica_id, last_log_index, lacked_bodies,
        "replica stands alone by force; what only others had is lost");
}

/// Stops a replica, makes it the only voter, and starts it again.
async fn force(shared: &Arc<Shared>, running: &Arc<Running>) -> Result<Forced, Error> {
    let (shard, id) = (running.replica.shard(), running.replica.replica_id());
    let Some(disk) = shared.disks.disk(running.disk_id) else {
        return Err(Error::Dead { replica: id });
    };
    stop_one(shared, running).await;
    let member = Member { node: shared.name().to_owned(), disk_id: running.disk_id.0 };
    let deadline = Instant::now() + STOP_PATIENCE;
    let forced = loop {
        match disk.force_alone(id, shard, member.clone()).await {
            // Why again: somebody still holds the old core, for a moment.
            Err(Error::Running { .. }) if Instant::now() < deadline => {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            done => break done,
        }
    };
    start_one(shared, shard, id, disk).await;
    forced
}

/// Gives every mailbox a new UIDVALIDITY; the meta group has none.
async fn renumber(running: &Running) -> Result<(), String> {
    if running.replica.shard() == META_SHARD {
        return Ok(());
    }
    let mut after = None;
    loop {
        let request = Request {
            session: None,
            sequence: 0,
            lowest_unanswered: 0,
            expires: LogTime(u64::MAX),
            command: MailCommand::Renumber(Renumber { after }),
        };
        let command = mailbox::codec::encode(&request);
        let response = running.replica.propose(command, Vec::new()).await;
        let response = response.map_err(|error| error.to_string())?;
        match mailbox::codec::decode(&response) {
            Ok(MailOutcome::Renumbered { next: None }) => return Ok(()),
            Ok(MailOutcome::Renumbered { next }) => after = next,
            other => return Err(format!("{other:?}")),
        }
    }
}

/// A data shard: asked of the meta group's leader, who knows whether a majority is there.
pub(crate) async fn shard(
    shared: &Arc<Shared>,
    shard: ShardId,
    node: &str,
) -> Result<(), MetaError> {
    shared.meta_leader()?;
    let placement = shared.known.placement();
    let placed = placement.shard(shard).ok_or_else(|| refused(format!("no shard {shard}")))?;
    if let Some(leader) = crate::controller::leader(shared, &placement, shard) {
        return Err(refused(format!("shard {shard} is led by {leader}: nothing is lost")));
    }
    let here = placed.replicas.iter().find(|one| one.node == node);
    let here = here.ok_or_else(|| refused(format!("{node} has no replica of shard {shard}")))?;
    let command = Command::ForceShard(shard, here.replica_id);
    shared.propose_meta(&command).await.map(drop)
}

/// The meta group: asked of the node whose replica is to stand alone, since nobody leads.
pub(crate) async fn meta(shared: &Arc<Shared>, node: &str) -> Result<(), MetaError> {
    if node != shared.name() {
        return Err(refused(format!("this is {}, not {node}", shared.name())));
    }
    let running = shared.meta_replica();
    let running = running.ok_or_else(|| refused(format!("{node} has no replica of it")))?;
    // Why not its status: a replica takes for the leader whom it last heard of.
    let (me, cluster) = (shared.describe(), shared.known.cluster());
    if shared.meta_client.register_node(&me, cluster, ASK_PATIENCE).await.is_ok() {
        return Err(refused("the meta group has a majority: nothing is lost".into()));
    }
    let status = running.replica.status();
    let id = running.replica.replica_id();
    let before: BTreeSet<u64> = status.voters.keys().copied().collect();
    let forced = force(shared, &running).await;
    let forced = forced.map_err(|error| MetaError::Unavailable(error.to_string()))?;
    told(META_SHARD, id, forced);
    tracing::warn!(?before, "the other replicas of the meta group are out of it");
    let leads = || shared.meta_leader().is_ok().then_some(());
    let led = wait_until(Instant::now() + LEAD_PATIENCE, leads).await;
    led.ok_or_else(|| MetaError::Unavailable("the meta group has no leader yet".into()))?;
    shared.propose_meta(&Command::ForceShard(META_SHARD, id)).await?;
    shared.propose_meta(&Command::RecoveredShard(META_SHARD, id)).await.map(drop)
}

fn refused(reason: String) -> MetaError {
    MetaError::Refused(reason)
}
