//! Probes and metrics over plain HTTP.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use replica::Role;
use tokio::net::TcpListener;

use crate::scrub;
use crate::shared::Shared;

/// Serves until the node stops.
pub(crate) async fn serve(shared: Arc<Shared>, listener: TcpListener) {
    let stop = shared.stop.clone();
    let router = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(shared);
    let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = served.await {
        tracing::warn!(%error, "probes and metrics not served any more");
    }
}

/// The process runs and has a usable disk.
async fn healthz(State(shared): State<Arc<Shared>>) -> (StatusCode, &'static str) {
    let mut disks = shared.disks.dirs.iter().filter_map(|dir| dir.disk.as_ref());
    match disks.any(|disk| !disk.is_poisoned()) {
        true => (StatusCode::OK, "ok\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "no usable disk\n"),
    }
}

/// It may be counted on: admitted, not going down, and every replica knows a leader.
async fn readyz(State(shared): State<Arc<Shared>>) -> (StatusCode, &'static str) {
    let leaderless =
        shared.replicas.all().iter().any(|running| running.replica.status().leader.is_none());
    match (shared.is_draining(), shared.is_admitted(), leaderless) {
        (false, true, false) => (StatusCode::OK, "ok\n"),
        (true, _, _) => (StatusCode::SERVICE_UNAVAILABLE, "going down\n"),
        (_, false, _) => (StatusCode::SERVICE_UNAVAILABLE, "not in a cluster\n"),
        (_, _, true) => (StatusCode::SERVICE_UNAVAILABLE, "a shard has no leader\n"),
    }
}

async fn metrics(State(shared): State<Arc<Shared>>) -> String {
    let mut out = String::with_capacity(4096);
    let replicas: Vec<_> = shared.replicas.all();
    let statuses: Vec<_> =
        replicas.iter().map(|r| (r.replica.shard(), r.replica.status())).collect();
    let n_led = statuses.iter().filter(|(_, status)| status.role == Role::Leader).count();
    gauge(&mut out, "rookery_node_shards_led", "Shards this node leads.");
    let _ = writeln!(out, "rookery_node_shards_led {n_led}");
    gauge(&mut out, "rookery_node_replicas", "Replicas that run here.");
    let _ = writeln!(out, "rookery_node_replicas {}", replicas.len());
    gauge(&mut out, "rookery_replica_applied_index", "Last entry applied.");
    for (shard, status) in &statuses {
        let _ =
            writeln!(out, "rookery_replica_applied_index{{shard=\"{shard}\"}} {}", status.applied);
    }
    gauge(&mut out, "rookery_replica_lag_entries", "Entries committed and not applied yet.");
    for (shard, status) in &statuses {
        let lag = status.committed.saturating_sub(status.applied);
        let _ = writeln!(out, "rookery_replica_lag_entries{{shard=\"{shard}\"}} {lag}");
    }
    let n_chunks = shared.n_chunks_read.load(Ordering::Relaxed);
    let _ = writeln!(
        out,
        "# HELP rookery_node_chunks_read_total Chunks of bodies that frontends read here.\n\
         # TYPE rookery_node_chunks_read_total counter\n\
         rookery_node_chunks_read_total {n_chunks}"
    );
    gauge(&mut out, "rookery_disk_poisoned", "1 after a write or sync failed.");
    gauge(&mut out, "rookery_disk_free_bytes", "Free bytes of the disk.");
    let _ = writeln!(out, "# TYPE rookery_journal_syncs_total counter");
    for dir in &shared.disks.dirs {
        let id = dir.disk_id;
        let poisoned = dir.disk.as_ref().is_none_or(|disk| disk.is_poisoned());
        let _ = writeln!(out, "rookery_disk_poisoned{{disk=\"{id}\"}} {}", u8::from(poisoned));
        if let Some(usage) = dir.disk.as_ref().and_then(|disk| disk.usage().ok()) {
            let (free, syncs) = (usage.free_bytes, usage.n_syncs);
            let _ = writeln!(out, "rookery_disk_free_bytes{{disk=\"{id}\"}} {free}");
            let _ = writeln!(out, "rookery_journal_syncs_total{{disk=\"{id}\"}} {syncs}");
        }
    }
    scrub::metrics(&shared, &mut out);
    out
}

fn gauge(out: &mut String, name: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge");
}
