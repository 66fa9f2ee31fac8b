//! Kills at random moments: what a disk looked like in the middle of the work is started again, and
//! everything acknowledged before is there.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use mailbox::StoredChunk;
use support::{Net, leader, put, start, until};

const ROUNDS: u64 = 6;

/// Copies a directory that is written to meanwhile; files that vanish are left out, as a kill at
/// that moment would have them gone or not.
fn image(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    let Ok(items) = std::fs::read_dir(from) else { return };
    for item in items.flatten() {
        let path = to.join(item.file_name());
        if item.path().is_dir() {
            image(&item.path(), &path);
        } else {
            drop(std::fs::copy(item.path(), path));
        }
    }
}

fn body(i: u64) -> StoredChunk {
    StoredChunk::raw(Bytes::from(i.to_be_bytes().repeat(500)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_moment_loses_nothing_acknowledged() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let node = start(&net, dir.path(), 1).await;
    node.replica.initialize(BTreeMap::from([(1, node.member())])).await.unwrap();
    let nodes = vec![node];
    leader(&nodes).await;
    let acknowledged = Arc::new(Mutex::new(0));
    let writer = {
        let (replica, acknowledged) = (nodes[0].replica.clone(), acknowledged.clone());
        tokio::spawn(async move {
            for i in 1.. {
                let command = format!("k{}={i}", i % 40);
                if replica.propose(command.into(), vec![body(i)]).await.is_err() {
                    return;
                }
                *acknowledged.lock().unwrap() = i;
            }
        })
    };
    let mut reached = 0;
    for round in 0..ROUNDS {
        let target = reached + 30 + 17 * round;
        until(|| *acknowledged.lock().unwrap() >= target, "more is acknowledged").await;
        if round % 2 == 1 {
            nodes[0].replica.checkpoint(5).await.unwrap();
        }
        reached = *acknowledged.lock().unwrap();
        let copy = dir.path().join(format!("round{round}"));
        for part in ["index", "checkpoints", "journal"] {
            image(&dir.path().join("n1").join(part), &copy.join("n1").join(part));
        }
        check(&copy, reached).await;
    }
    nodes[0].replica.shutdown().await.unwrap();
    drop(tokio::time::timeout(Duration::from_secs(10), writer).await.unwrap());
}

/// What an index is built from is here and whole: the replica is not given up for what may pass.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_cannot_be_built_now_is_built_later() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let node = start(&net, dir.path(), 1).await;
    node.replica.initialize(BTreeMap::from([(1, node.member())])).await.unwrap();
    let nodes = vec![node];
    put(&nodes, "k=1", vec![body(1)]).await;
    nodes[0].replica.checkpoint(0).await.unwrap();
    for node in nodes {
        node.stop(&net).await;
    }
    let home = dir.path().join("n1");
    let index = home.join("index/1");
    std::fs::remove_dir_all(&index).unwrap();
    std::fs::write(&index, b"in the way").unwrap();
    let disk = replica::Disk::open(&home, support::options()).unwrap();
    let failed = support::try_start(&net, disk.clone(), "n1", 1).await.err().unwrap();
    assert!(!matches!(failed, replica::Error::Lost { .. }), "{failed}");
    std::fs::remove_file(&index).unwrap();
    support::try_start(&net, disk, "n1", 1).await.unwrap();
}

async fn check(dir: &Path, acknowledged: u64) {
    let net = Net::default();
    let nodes = vec![start(&net, dir, 1).await];
    put(&nodes, "after=1", vec![]).await;
    let view = nodes[0].replica.read().await.unwrap();
    for i in acknowledged.saturating_sub(39).max(1)..=acknowledged {
        let row = view.read(|rows, _| rows.row(format!("k{}", i % 40).as_bytes())).unwrap();
        let found: u64 = String::from_utf8(row.unwrap()).unwrap().parse().unwrap();
        assert!(found >= i && (found - i).is_multiple_of(40), "k{} is {found}, not {i}", i % 40);
        let found = view.read(|_, bodies| bodies.chunk(&body(i).chunk)).unwrap();
        assert_eq!(found, Some(body(i).bytes), "body {i}");
    }
    drop(view);
    for node in nodes {
        node.stop(&net).await;
    }
}
