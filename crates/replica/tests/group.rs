//! Three replicas in one process, over real files.

#![allow(clippy::unwrap_used)]

mod support;

use bytes::Bytes;
use mailbox::StoredChunk;
use replica::{ProposeError, Role};
use support::{Net, converged, leader, put, start, three, until};

fn body(seed: u8, len: usize) -> StoredChunk {
    StoredChunk::raw(Bytes::from(vec![seed; len]))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_read_and_is_everywhere() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let nodes = three(&net, dir.path()).await;
    assert_eq!(put(&nodes, "a=1", vec![]).await, b"");
    assert_eq!(put(&nodes, "a=2", vec![body(1, 20_000)]).await, b"1");
    let at = leader(&nodes).await;
    let view = nodes[at].replica.read().await.unwrap();
    assert_eq!(view.read(|rows, _| rows.row(b"a")), Ok(Some(b"2".to_vec())));
    let chunk = body(1, 20_000).chunk;
    let found = view.read(|_, bodies| bodies.chunk(&chunk)).unwrap();
    assert_eq!(found, Some(body(1, 20_000).bytes));
    converged(&nodes).await;
    let other = &nodes[(at + 1) % 3].replica;
    let refused = other.propose(b"a=3".to_vec(), vec![]).await;
    assert_eq!(refused, Err(ProposeError::NotLeader { leader: Some(nodes[at].member()) }));
    assert!(matches!(other.read().await, Err(ProposeError::NotLeader { .. })));
    // A view stays what it was.
    put(&nodes, "a=4", vec![]).await;
    assert_eq!(view.read(|rows, _| rows.row(b"a")), Ok(Some(b"2".to_vec())));
}

#[tokio::test(flavor = "multi_thread")]
async fn others_go_on_without_the_leader_and_it_catches_up() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let mut nodes = three(&net, dir.path()).await;
    for i in 0..20 {
        put(&nodes, &format!("k{i}=before"), vec![body(i, 5_000)]).await;
    }
    let at = leader(&nodes).await;
    let gone = nodes.remove(at);
    let id = gone.id;
    net.cut(&gone.name, true);
    let begin = std::time::Instant::now();
    put(&nodes, "k0=after", vec![]).await;
    eprintln!("new leader after {:?}", begin.elapsed());
    net.cut(&gone.name, false);
    gone.stop(&net).await;
    nodes.push(start(&net, dir.path(), id).await);
    put(&nodes, "k1=after", vec![]).await;
    let all = converged(&nodes).await;
    assert_eq!(all.iter().filter(|status| status.role == Role::Leader).count(), 1);
    let view = nodes[2].replica.local_view().unwrap();
    let row = |key: &[u8]| view.read(|rows, _| rows.row(key)).unwrap();
    assert_eq!(row(b"k0"), Some(b"after".to_vec()));
    assert_eq!(row(b"k19"), Some(b"before".to_vec()));
}

/// Its followers hear it, and so would wait for it for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_hears_nobody_is_replaced() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let mut nodes = three(&net, dir.path()).await;
    put(&nodes, "a=1", vec![]).await;
    let at = leader(&nodes).await;
    let deaf = nodes.remove(at);
    net.deafen(&deaf.name, true);
    assert_eq!(put(&nodes, "a=2", vec![]).await, b"1");
    let refused = deaf.replica.read().await;
    assert!(refused.is_err(), "it reads nothing any more");
    net.deafen(&deaf.name, false);
    nodes.push(deaf);
    assert_eq!(put(&nodes, "a=3", vec![]).await, b"2");
    converged(&nodes).await;
}

/// The journal refuses a request before it is queued; the entry was in the log's memory already.
#[tokio::test(flavor = "multi_thread")]
async fn an_entry_the_journal_refuses_leaves_nothing_behind() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let nodes = vec![start(&net, dir.path(), 1).await];
    let members = nodes.iter().map(|node| (node.id, node.member())).collect();
    nodes[0].replica.initialize(members).await.unwrap();
    put(&nodes, "a=1", vec![]).await;
    let max = nodes[0].disk.journal().request_bytes_max() as usize;
    let many = (0..=max / 200_000).map(|seed| body(seed as u8, 200_000)).collect();
    assert!(nodes[0].replica.propose(b"a=2".to_vec(), many).await.is_err());
    assert_eq!(put(&nodes, "a=3", vec![]).await, b"1");
    converged(&nodes).await;
}

/// It knows only the members of before, and of those there is nobody left to ask.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_was_away_while_the_members_changed_votes_for_the_new_ones() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let mut nodes = three(&net, dir.path()).await;
    put(&nodes, "a=1", vec![]).await;
    converged(&nodes).await;
    let lead = leader(&nodes).await;
    let away = nodes.remove((lead + 1) % 3);
    let away_id = away.id;
    away.stop(&net).await;
    nodes.push(start(&net, dir.path(), 4).await);
    let lead = leader(&nodes).await;
    let (lead_id, replica) = (nodes[lead].id, nodes[lead].replica.clone());
    replica.add_learner(4, nodes[2].member()).await.unwrap();
    replica.change_members([away_id, lead_id, 4].into()).await.unwrap();
    drop(replica);
    assert_eq!(put(&nodes, "a=2", vec![]).await, b"1");
    let fourth = nodes.pop().unwrap();
    until(
        || fourth.replica.status().applied == fourth.replica.status().last_log_index,
        "it has all",
    )
    .await;
    for gone in nodes.drain(..) {
        gone.stop(&net).await;
    }
    let both = [start(&net, dir.path(), away_id).await, fourth];
    assert_eq!(put(&both, "a=3", vec![]).await, b"2");
    assert!(!both[0].replica.status().is_unconfirmed);
    converged(&both).await;
}
