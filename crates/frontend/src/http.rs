//! Probes and metrics over HTTP.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::shared::Shared;

/// Serves until told to stop.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken) {
    let router = Router::new()
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state((shared, stop.clone()));
    let serving = api::probes::serve(listener, router, stop.cancelled_owned());
    if let Err(error) = serving.await {
        tracing::error!(%error, "probes are not served any more");
    }
}

async fn metrics(State((shared, _)): State<(Arc<Shared>, CancellationToken)>) -> String {
    shared.metrics.text()
}

/// Ready: the cluster can be reached and this process is not on its way out.
async fn ready(
    State((shared, stop)): State<(Arc<Shared>, CancellationToken)>,
) -> (StatusCode, &'static str) {
    if stop.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "going down\n")
    } else if shared.store.ready().await {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "cluster not reachable\n")
    }
}
