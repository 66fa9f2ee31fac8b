//! A replica that came by rows alone takes the bodies at the rate its disk is given.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::peer::{BoxFuture, PeerError, PeerRequest, PeerResponse, PeerTransport};
use bytes::Bytes;
use mailbox::StoredChunk;
use replica::{Disk, DiskOptions};
use support::{
    Net, Node, Notes, converged, leader, options, put, start_by, start_with, three, until,
};

const N_BODIES: u8 = 40;
const BODY_BYTES: usize = 200_000;

fn body(seed: u8) -> StoredChunk {
    StoredChunk::raw(Bytes::from(vec![seed; BODY_BYTES]))
}

/// A network that brings 64 KiB a second: what takes longer than somebody waits for it does not come.
struct Slow(Arc<dyn PeerTransport>);

impl PeerTransport for Slow {
    fn call(&self, request: PeerRequest) -> BoxFuture<'static, Result<PeerResponse, PeerError>> {
        let deadline = request.deadline;
        let call = self.0.call(request);
        Box::pin(async move {
            let response = call.await?;
            let n_bytes = response.bodies.iter().map(Bytes::len).sum::<usize>() as u64;
            let takes = Duration::from_millis(n_bytes * 1000 / (64 << 10));
            if takes > deadline { Err(PeerError::Deadline) } else { Ok(response) }
        })
    }
}

/// Two nodes of which the logs are cut, and the id of one that was away meanwhile and does not run.
async fn away(net: &Net, dir: &Path, bodies: impl Fn(u8) -> Vec<StoredChunk>) -> (Vec<Node>, u64) {
    let mut nodes = three(net, dir).await;
    put(&nodes, "first=1", vec![]).await;
    let at = (leader(&nodes).await + 1) % nodes.len();
    let away = nodes.remove(at);
    let id = away.id;
    away.stop(net).await;
    for i in 0..N_BODIES {
        put(&nodes, &format!("k{i}=v{i}"), bodies(i)).await;
    }
    converged(&nodes).await;
    for node in &nodes {
        node.replica.checkpoint(0).await.unwrap();
        assert!(node.disk.checkpoint_bytes(node.id) > 0);
    }
    let least = u64::from(N_BODIES);
    until(|| nodes.iter().all(|node| node.replica.status().purged >= least), "logs are cut").await;
    (nodes, id)
}

/// Two nodes that have bodies, and one that was away and has to get them at this rate.
async fn late(net: &Net, dir: &Path, fill_bytes_per_s: u64) -> (Vec<Node>, Node) {
    let (nodes, id) = away(net, dir, |i| vec![body(i)]).await;
    let options = DiskOptions { fill_bytes_per_s: Some(fill_bytes_per_s), ..options() };
    let late = start_with(net, dir, id, (options, Arc::new(Notes))).await;
    until(|| late.replica.status().is_incomplete, "rows came").await;
    (nodes, late)
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_come_at_the_rate_that_was_set_and_progress_is_told() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let (nodes, late) = late(&net, dir.path(), 4 << 20).await;
    let began = Instant::now();
    let mut halfway = false;
    let whole = || {
        let status = late.replica.status();
        halfway |= status.received_bytes > 0 && status.missing_bytes > 0;
        !status.is_incomplete
    };
    until(whole, "all bodies came").await;
    // 8 MB at 4 MiB/s.
    let took = began.elapsed();
    assert!(took > Duration::from_millis(1_800), "it took only {took:?}");
    assert!(halfway, "progress was never told");
    assert!(late.replica.status().received_bytes >= u64::from(N_BODIES) * BODY_BYTES as u64);
    let view = late.replica.local_view().unwrap();
    for i in 0..N_BODIES {
        let found = view.read(|_, bodies| bodies.chunk(&body(i).chunk)).unwrap();
        assert_eq!(found, Some(body(i).bytes), "body {i}");
    }
    drop(nodes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_still_filled_writes_checkpoints_and_stops_at_once() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    // A minute for the first request alone.
    let (mut nodes, late) = late(&net, dir.path(), 64 << 10).await;
    until(|| late.replica.status().received_bytes > 0, "bodies come").await;
    nodes.push(late);
    put(&nodes, "meanwhile=1", vec![]).await;
    let late = nodes.pop().unwrap();
    late.replica.checkpoint(0).await.unwrap();
    assert!(late.replica.status().is_incomplete);
    let began = Instant::now();
    late.stop(&net).await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_body_that_is_missing_comes_over_a_slow_network() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let one = |i: u8| if i == 0 { vec![body(0)] } else { Vec::new() };
    let (nodes, id) = away(&net, dir.path(), one).await;
    let name = format!("n{id}");
    let disk = Disk::open(&dir.path().join(&name), options()).unwrap();
    let late = start_by(&net, disk, id, Arc::new(Slow(net.of(&name)))).await;
    let digest = body(0).chunk.digest;
    let is_whole = || !late.replica.status().is_incomplete;
    until(|| late.replica.stored_chunk(&digest).is_some() && is_whole(), "it came").await;
    drop(nodes);
}
