//! Probes and metrics over plain HTTP.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use replica::{Role, Status};
use tokio::net::TcpListener;

use crate::replicas::are_to_start;
use crate::shared::Shared;

/// Serves until the node stops.
pub(crate) async fn serve(shared: Arc<Shared>, listener: TcpListener) {
    let stop = shared.stop.clone();
    let router = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(shared);
    let served = api::probes::serve(listener, router, stop.cancelled_owned());
    if let Err(error) = served.await {
        tracing::warn!(%error, "probes and metrics not served any more");
    }
}

/// The process runs and has a usable disk.
async fn healthz(State(shared): State<Arc<Shared>>) -> (StatusCode, &'static str) {
    match shared.disks.dirs.iter().any(|dir| !dir.has_failed()) {
        true => (StatusCode::OK, "ok\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "no usable disk\n"),
    }
}

/// It may be counted on: admitted, not going down, and every replica it is to have was started, is led, and
/// has everything. Kubernetes evicts no pod of a set while another one of it says no here: what this node
/// lacks must not be taken from the next one.
async fn readyz(State(shared): State<Arc<Shared>>) -> (StatusCode, &'static str) {
    let starts = are_to_start(&shared);
    // One that stopped for good is replaced, and says nothing of its shard.
    let leaderless = shared.replicas.all().iter().any(|running| {
        let status = running.replica.status();
        status.role != Role::Stopped && !status.is_led()
    });
    // Order: what only has to be started is there, and not being made.
    let is_counted_on = shared.is_admitted() && !shared.is_draining();
    if is_counted_on && !starts && lacks_copies(&shared) {
        return (StatusCode::SERVICE_UNAVAILABLE, "copies are being made\n");
    }
    match (shared.is_draining(), shared.is_admitted(), leaderless) {
        (true, _, _) => (StatusCode::SERVICE_UNAVAILABLE, "going down\n"),
        _ if starts => (StatusCode::SERVICE_UNAVAILABLE, "replicas are started\n"),
        (false, true, false) => (StatusCode::OK, "ok\n"),
        (_, false, _) => (StatusCode::SERVICE_UNAVAILABLE, "not in a cluster\n"),
        (_, _, true) => (StatusCode::SERVICE_UNAVAILABLE, "a shard has no leader\n"),
    }
}

/// Whether a replica that is placed here is not there yet, or not whole.
fn lacks_copies(shared: &Shared) -> bool {
    let running = shared.replicas.all();
    shared.known.placement().shards.iter().flat_map(|shard| &shard.replicas).any(|placed| {
        let is_whole = |status: &Status| status.role != Role::Learner && !status.is_incomplete;
        let here = running.iter().find(|one| one.replica.replica_id() == placed.replica_id);
        placed.node == shared.config.name
            && !here.is_some_and(|one| is_whole(&one.replica.status()))
    })
}

async fn metrics(State(shared): State<Arc<Shared>>) -> String {
    crate::metrics::text(&shared).await
}
