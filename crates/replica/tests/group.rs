//! Three replicas in one process, over real files.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use mailbox::{ChunkRef, Digest, Rows, Source, StoredChunk};
use replica::{LATER_BUILD, Machine, MachineApplied, ProposeError, Role};
use support::{Net, Node, Notes, converged, leader, options, put, start, start_with, three, until};

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

/// A build that does not know every command there is.
struct Older;

impl Machine for Older {
    fn apply(&self, rows: &mut Rows<'_>, command: &[u8], inline: &[ChunkRef]) -> MachineApplied {
        assert!(!command.ends_with(b"=later"), "{LATER_BUILD}");
        Notes.apply(rows, command, inline)
    }

    fn is_chunk_live(&self, rows: &dyn Source, digest: &Digest) -> bool {
        Notes.is_chunk_live(rows, digest)
    }
}

/// An upgrade, node by node, in which what is new is used too early: nobody who does not know it
/// makes something else of it.
#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_know_a_command_stops_there_until_it_does() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let mut nodes = three(&net, dir.path()).await;
    put(&nodes, "a=1", vec![]).await;
    converged(&nodes).await;
    let lead = leader(&nodes).await;
    for at in (0..3).filter(|at| *at != lead) {
        start_other(&mut nodes, at, &net, dir.path(), Arc::new(Older)).await;
    }
    assert_eq!(put(&nodes[lead..=lead], "a=later", vec![]).await, b"1");
    for at in (0..3).filter(|at| *at != lead) {
        let replica = nodes[at].replica.clone();
        let said = move || replica.status().failed.is_some_and(|why| why.contains(LATER_BUILD));
        until(said, "it says why it does not go on").await;
        let row = nodes[at].replica.local_view();
        let row = row.map(|view| view.read(|rows, _| rows.row(b"a")));
        assert!(!matches!(row, Ok(Ok(Some(ref value))) if value != b"1"), "{row:?}");
        start_other(&mut nodes, at, &net, dir.path(), Arc::new(Notes)).await;
    }
    assert_eq!(put(&nodes, "a=4", vec![]).await, b"later");
    converged(&nodes).await;
}

/// Another build in the place of one.
async fn start_other(
    nodes: &mut Vec<Node>,
    at: usize,
    net: &Net,
    dir: &Path,
    machine: Arc<dyn Machine>,
) {
    let old = nodes.remove(at);
    let id = old.id;
    old.stop(net).await;
    nodes.insert(at, start_with(net, dir, id, (options(), machine)).await);
}
