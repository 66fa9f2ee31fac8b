//! Requests between nodes: order, side by side, deadlines, reconnection.

use std::sync::Arc;
use std::time::Duration;

use api::peer::{PeerError, PeerRequest, PeerTransport};
use api::peer_grpc::{GrpcTransport, Lane};
use api::tls::{Identity, Role};
use bytes::Bytes;
use futures_util::future::join_all;
use mailbox::ShardId;
use tokio::time::timeout;

use crate::cluster::{Cluster, PATIENCE};

const BULK: u8 = 9;
const HELD: u8 = 8;

/// A transport for which every name is n1's address.
pub fn transport(cluster: &Cluster, identity: Identity) -> GrpcTransport {
    let address = cluster.seeds()[0].clone();
    let lane = |kind| if kind == BULK { Lane::Bulk } else { Lane::Prompt };
    GrpcTransport::new(identity, None, Arc::new(move |_| Some(address.clone())), lane)
}

fn node_transport(cluster: &Cluster) -> GrpcTransport {
    transport(cluster, cluster.authority.identity("n9", Role::Node))
}

/// The number travels as the replica that sends.
pub fn request(node: &str, shard: u32, number: u64) -> PeerRequest {
    PeerRequest {
        node: node.to_owned(),
        shard: ShardId(shard),
        from_replica: number,
        to_replica: 5,
        to_disk: [6; 16],
        kind: 1,
        meta: Bytes::from_static(b"meta"),
        bodies: Vec::new(),
        deadline: PATIENCE,
    }
}

#[tokio::test]
async fn bodies_come_back_as_they_went() {
    let cluster = Cluster::start(1);
    let transport = node_transport(&cluster);
    let bodies = vec![Bytes::from(vec![1; 3 << 20]), Bytes::new(), Bytes::from(vec![2; 20_000])];
    for kind in [1, BULK] {
        let sent = PeerRequest { kind, bodies: bodies.clone(), ..request("n1", 1, 1) };
        let response = transport.call(sent).await.unwrap();
        assert_eq!((response.meta, response.bodies), (Bytes::from_static(b"meta"), bodies.clone()));
    }
    let refused = PeerRequest { to_replica: 0, ..request("n1", 1, 1) };
    let error = transport.call(refused).await.unwrap_err();
    assert_eq!(error, PeerError::Refused("no such replica".into()));
    let huge = PeerRequest { bodies: vec![Bytes::from(vec![0; 17 << 20])], ..request("n1", 1, 1) };
    assert!(matches!(transport.call(huge).await, Err(PeerError::Refused(_))));
}

#[tokio::test]
async fn requests_of_a_shard_are_begun_in_the_order_they_were_sent() {
    let cluster = Cluster::start(1);
    let transport = node_transport(&cluster);
    let calls = (0..2_000).map(|i| transport.call(request("n1", (i % 4) as u32, i)));
    for answer in join_all(calls.collect::<Vec<_>>()).await {
        answer.unwrap();
    }
    let seen = cluster.node("n1").seen.lock().unwrap().clone();
    assert_eq!(seen.len(), 2_000);
    for shard in 0..4 {
        let numbers: Vec<u64> =
            seen.iter().filter(|(of, _)| of.0 == shard).map(|(_, number)| *number).collect();
        assert!(numbers.is_sorted(), "shard {shard}");
    }
}

#[tokio::test]
async fn a_request_that_waits_holds_up_no_other() {
    let cluster = Cluster::start(1);
    let transport = node_transport(&cluster);
    cluster.node("n1").held.send_replace(Some(HELD));
    let mut held = transport.call(PeerRequest { kind: HELD, ..request("n1", 1, 1) });
    transport.call(request("n1", 2, 2)).await.unwrap();
    transport.call(request("n1", 1, 3)).await.unwrap();
    assert!(futures_util::poll!(&mut held).is_pending());
    cluster.node("n1").held.send_replace(None);
    held.await.unwrap();
}

#[tokio::test]
async fn a_deadline_is_kept() {
    let cluster = Cluster::start(1);
    let transport = node_transport(&cluster);
    cluster.node("n1").held.send_replace(Some(HELD));
    let deadline = Duration::from_millis(50);
    let answer = transport.call(PeerRequest { kind: HELD, deadline, ..request("n1", 1, 1) }).await;
    assert_eq!(answer.unwrap_err(), PeerError::Deadline);
}

#[tokio::test]
async fn a_peer_that_comes_back_is_found_again() {
    let cluster = Cluster::start(1);
    let transport = node_transport(&cluster);
    cluster.node("n1").held.send_replace(Some(HELD));
    let held = transport.call(PeerRequest { kind: HELD, ..request("n1", 1, 1) });
    transport.call(request("n1", 1, 2)).await.unwrap();
    cluster.kill("n1");
    let told = timeout(Duration::from_secs(2), held).await.expect("a broken connection is noticed");
    assert!(matches!(told, Err(PeerError::Unreachable(_))));
    assert!(matches!(transport.call(request("n1", 1, 3)).await, Err(PeerError::Unreachable(_))));
    cluster.run("n1");
    let found = async {
        while transport.call(request("n1", 1, 4)).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(2), found).await.expect("found within the longest pause");
}

/// It failed once and nobody asked for it since: the first who does must not hear of that.
#[tokio::test]
async fn nobody_hears_of_a_failure_of_long_ago() {
    let cluster = Cluster::start(1);
    let transport = node_transport(&cluster);
    cluster.kill("n1");
    assert!(matches!(transport.call(request("n1", 1, 1)).await, Err(PeerError::Unreachable(_))));
    cluster.run("n1");
    tokio::time::pause();
    // Longer than any pause before an attempt; then everybody has a turn to notice.
    tokio::time::advance(Duration::from_secs(1)).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    tokio::time::resume();
    transport.call(request("n1", 1, 2)).await.unwrap();
}
