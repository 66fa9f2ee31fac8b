//! A replica that came by rows alone takes the bodies at the rate its disk is given.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use mailbox::StoredChunk;
use replica::DiskOptions;
use support::{Net, Node, Notes, converged, leader, options, put, start_with, three, until};

const N_BODIES: u8 = 40;
const BODY_BYTES: usize = 200_000;

fn body(seed: u8) -> StoredChunk {
    StoredChunk::raw(Bytes::from(vec![seed; BODY_BYTES]))
}

/// Two nodes that have bodies, and one that was away and has to get them at this rate.
async fn late(net: &Net, dir: &Path, fill_bytes_per_s: u64) -> (Vec<Node>, Node) {
    let mut nodes = three(net, dir).await;
    put(&nodes, "first=1", vec![]).await;
    let at = (leader(&nodes).await + 1) % nodes.len();
    let away = nodes.remove(at);
    let id = away.id;
    away.stop(net).await;
    for i in 0..N_BODIES {
        put(&nodes, &format!("k{i}=v{i}"), vec![body(i)]).await;
    }
    converged(&nodes).await;
    for node in &nodes {
        node.replica.checkpoint(0).await.unwrap();
        assert!(node.disk.checkpoint_bytes(node.id) > 0);
    }
    let least = u64::from(N_BODIES);
    until(|| nodes.iter().all(|node| node.replica.status().purged >= least), "logs are cut").await;
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
