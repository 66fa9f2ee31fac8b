//! How a node gets into its cluster: it says who it is until the meta group has taken note.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use api::client::ClientConfig;
use api::meta::{MetaClient, MetaError};
use api::placement::Placement;
use api::tls::Identity;

use crate::error::Error;
use crate::shared::Shared;

/// Pause between two attempts.
const ATTEMPT_EVERY: Duration = Duration::from_millis(200);
/// How long one attempt may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// A person is told when a formed cluster has not taken this node for so long,
const WARN_AFTER: Duration = Duration::from_secs(5);
/// and again whenever it was so long since.
const WARN_AGAIN_AFTER: Duration = Duration::from_secs(300);

/// The nodes named in `join`, each to be asked by itself: before there is a cluster, each of them has
/// to know who waits.
pub(crate) fn seed_clients(
    shared: &Shared,
    identity: &Identity,
) -> Result<Vec<MetaClient>, api::client::Error> {
    let config = |seed: &String| ClientConfig {
        seeds: vec![seed.clone()],
        identity: identity.clone(),
        name: shared.config.name.clone(),
        bind: shared.config.bind,
    };
    shared.config.join.iter().map(|seed| MetaClient::new(config(seed))).collect()
}

/// Registers, until the cluster took this node or refused it.
pub(crate) async fn register(shared: Arc<Shared>, seeds: Vec<MetaClient>) {
    let mut warn_at = Instant::now() + WARN_AFTER;
    while !shared.stop.is_cancelled() {
        let formed = shared.known.placement().version > 0 || seeds.is_empty();
        let all: &[MetaClient] =
            if formed { std::slice::from_ref(&shared.meta_client) } else { &seeds };
        let attempts = all.iter().map(|client| attempt(&shared, client));
        for result in futures_util::future::join_all(attempts).await {
            match result {
                Ok(placement) => {
                    if admit(&shared, placement) {
                        return;
                    }
                }
                Err(MetaError::Refused(why)) => return shared.fail(Error::Refused(why)),
                // Nobody has to be told that the operator did not form the cluster yet.
                Err(error @ MetaError::NoCluster) => tracing::debug!(%error, "not registered yet"),
                Err(error) if Instant::now() < warn_at => {
                    tracing::debug!(%error, "not registered yet");
                }
                Err(error) => {
                    warn_at = Instant::now() + WARN_AGAIN_AFTER;
                    tracing::warn!(%error, "the cluster has not taken this node yet");
                }
            }
        }
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = tokio::time::sleep(ATTEMPT_EVERY) => {}
        }
    }
}

/// Registers again if the cluster took another process for this node since. If that one runs on copies of
/// these disks, this one is refused and stops: two must not vote under the same ids. If the meta group lost
/// its majority, and with it what was noted of this start, it is taken.
pub(crate) async fn renew(shared: &Shared) {
    // Why a later one: whoever is admitted knows the placement in which it is this process.
    let placement = shared.known.placement();
    if placement.node(shared.name()).is_none_or(|node| node.run_id == shared.run_id) {
        return;
    }
    match attempt(shared, &shared.meta_client).await {
        Ok(placement) => shared.known.learn(Arc::new(placement)),
        Err(MetaError::Refused(why)) => {
            let name = shared.name();
            shared.fail(Error::Refused(format!("another process is node {name} by now: {why}")));
        }
        Err(error) => tracing::debug!(%error, "not registered again yet"),
    }
}

async fn attempt(shared: &Shared, client: &MetaClient) -> Result<Placement, MetaError> {
    client.register_node(&shared.describe(), shared.known.cluster(), PATIENCE).await
}

/// Takes what the cluster answered; whether that was the last word.
fn admit(shared: &Shared, placement: Placement) -> bool {
    let formed = placement.version > 0;
    let of_us = |node: &str| node == shared.config.name;
    let is_member =
        placement.shards.iter().any(|shard| shard.replicas.iter().any(|r| of_us(&r.node)));
    if !formed && !is_member {
        return false;
    }
    // Durability: the disks say which cluster they belong to before any replica of it begins here.
    if let Err(error) = shared.join_cluster(placement.cluster) {
        shared.fail(error);
        return true;
    }
    // Why this run: what was known before it does not tell of disks that are new.
    let own = placement.node(shared.name()).filter(|node| node.run_id == shared.run_id);
    if let Some(node) = own.filter(|_| formed) {
        shared.disks.leave_out(&node.disks);
    }
    if formed && let Err(error) = shared.disks.admit(placement.cluster) {
        shared.fail(error);
        return true;
    }
    // Invariant: who is admitted knows this placement or a later one.
    shared.known.learn(Arc::new(placement));
    shared.admitted.store(true, Ordering::Release);
    if formed {
        tracing::info!("cluster joined");
    }
    formed
}
