//! What may be lost or rot on one disk, and is there again afterwards.

#![allow(clippy::unwrap_used)]

mod support;

use std::os::unix::fs::FileExt;

use bytes::Bytes;
use mailbox::StoredChunk;
use replica::{Disk, ProposeError};
use support::{
    Net, Node, converged, copy_dir, files_below, flip, leader, put, start, three, until,
};

fn body(seed: u8, len: usize) -> StoredChunk {
    StoredChunk::raw(Bytes::from(vec![seed; len]))
}

/// Stops a node that does not lead, and gives its place in the list back.
async fn stop_follower(net: &Net, nodes: &mut Vec<Node>) -> u64 {
    let at = (leader(nodes).await + 1) % nodes.len();
    let node = nodes.remove(at);
    let id = node.id;
    node.stop(net).await;
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_index_loses_nothing() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let mut nodes = three(&net, dir.path()).await;
    for i in 0..30 {
        put(&nodes, &format!("k{i}=v{i}"), vec![body(i, 3_000)]).await;
        if i == 15 {
            converged(&nodes).await;
            for node in &nodes {
                node.replica.checkpoint(0).await.unwrap();
            }
        }
    }
    let id = stop_follower(&net, &mut nodes).await;
    std::fs::remove_dir_all(dir.path().join(format!("n{id}/index"))).unwrap();
    nodes.push(start(&net, dir.path(), id).await);
    put(&nodes, "k0=after", vec![]).await;
    converged(&nodes).await;
    let view = nodes[2].replica.local_view().unwrap();
    for i in 0..30 {
        let found = view.read(|_, bodies| bodies.chunk(&body(i, 3_000).chunk)).unwrap();
        assert_eq!(found, Some(body(i, 3_000).bytes), "body {i}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotten_index_is_built_anew() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let mut nodes = three(&net, dir.path()).await;
    for i in 0..50 {
        put(&nodes, &format!("k{i}=v{i}"), vec![]).await;
    }
    let id = stop_follower(&net, &mut nodes).await;
    let mut files = Vec::new();
    files_below(&dir.path().join(format!("n{id}/index")), &mut files);
    for path in files {
        if path.extension().is_some_and(|extension| extension == "clean") {
            std::fs::remove_file(path).unwrap();
            continue;
        }
        let mut bytes = std::fs::read(&path).unwrap();
        for at in (100..bytes.len()).step_by(997) {
            bytes[at] ^= 0x10;
        }
        std::fs::write(&path, bytes).unwrap();
    }
    nodes.push(start(&net, dir.path(), id).await);
    put(&nodes, "k0=after", vec![]).await;
    converged(&nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_far_behind_gets_rows_and_then_bodies() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let mut nodes = three(&net, dir.path()).await;
    put(&nodes, "first=1", vec![]).await;
    let id = stop_follower(&net, &mut nodes).await;
    for i in 0..100 {
        put(&nodes, &format!("k{i}=v{i}"), vec![body(i, 2_000)]).await;
    }
    converged(&nodes).await;
    for node in &nodes {
        node.replica.checkpoint(0).await.unwrap();
    }
    until(|| nodes.iter().all(|node| node.replica.status().purged >= 100), "logs are cut").await;
    nodes.push(start(&net, dir.path(), id).await);
    put(&nodes, "last=1", vec![]).await;
    converged(&nodes).await;
    let late = &nodes[2].replica;
    assert!(late.status().checkpoint >= 100, "it came by snapshot");
    until(|| !late.status().is_incomplete, "all bodies came").await;
    let view = late.local_view().unwrap();
    for i in 0..100 {
        let found = view.read(|_, bodies| bodies.chunk(&body(i, 2_000).chunk)).unwrap();
        assert_eq!(found, Some(body(i, 2_000).bytes), "body {i}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_checkpoint_is_written_anew_before_it_is_sent() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let mut nodes = three(&net, dir.path()).await;
    put(&nodes, "first=1", vec![]).await;
    let id = stop_follower(&net, &mut nodes).await;
    for i in 0..100 {
        put(&nodes, &format!("key number {i}=a value of some length, {i}"), vec![]).await;
    }
    converged(&nodes).await;
    for node in &nodes {
        node.replica.checkpoint(0).await.unwrap();
    }
    until(|| nodes.iter().all(|node| node.replica.status().purged >= 100), "logs are cut").await;
    // Why both: either may lead.
    for node in &nodes {
        let mut files = Vec::new();
        files_below(&dir.path().join(&node.name).join("checkpoints"), &mut files);
        files.retain(|path| path.extension().is_some_and(|extension| extension == "ckpt"));
        flip(&files[0], files[0].metadata().unwrap().len() * 4);
    }
    nodes.push(start(&net, dir.path(), id).await);
    put(&nodes, "last=1", vec![]).await;
    converged(&nodes).await;
    assert!(nodes[2].replica.status().checkpoint >= 100, "it came by snapshot");
    let n_damaged = nodes[..2].iter().map(|node| node.disk.scrub_status().n_damaged);
    assert!(n_damaged.sum::<u64>() > 0, "nobody looked before it was sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_body_comes_from_a_peer_and_is_kept_again() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let nodes = three(&net, dir.path()).await;
    let text: Vec<u8> = (0..40_000u32).flat_map(|i| i.to_be_bytes()).collect();
    let stored = StoredChunk::raw(Bytes::from(text.clone()));
    put(&nodes, "a=1", vec![stored.clone()]).await;
    converged(&nodes).await;
    let mut files = Vec::new();
    files_below(&dir.path().join("n1/journal"), &mut files);
    let mut n_damaged = 0;
    for path in files {
        let bytes = std::fs::read(&path).unwrap();
        let needle = &text[80_000..80_064];
        if let Some(at) = bytes.windows(needle.len()).position(|window| window == needle) {
            let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.write_all_at(&[bytes[at] ^ 1], at as u64).unwrap();
            n_damaged += 1;
        }
    }
    assert_eq!(n_damaged, 1);
    let damaged = &nodes[0].replica;
    let local = || damaged.local_view().unwrap().read(|_, b| b.chunk(&stored.chunk)).unwrap();
    assert_eq!(local(), None, "damaged bytes are not served");
    assert_eq!(damaged.chunk(&stored.chunk).await, Ok(stored.clone()));
    assert_eq!(local(), Some(stored.bytes.clone()), "repaired here");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_is_not_its_digest_is_refused() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let nodes = three(&net, dir.path()).await;
    let at = leader(&nodes).await;
    let mut chunk = body(1, 100);
    chunk.bytes = Bytes::from(vec![2; 100]);
    let refused = nodes[at].replica.propose(b"a=1".to_vec(), vec![chunk]).await;
    assert_eq!(refused, Err(ProposeError::Damaged));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_was_rolled_back_does_not_vote() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let mut nodes = three(&net, dir.path()).await;
    put(&nodes, "a=1", vec![]).await;
    let id = stop_follower(&net, &mut nodes).await;
    let home = dir.path().join(format!("n{id}"));
    let backup = dir.path().join("backup");
    copy_dir(&home, &backup);
    nodes.push(start(&net, dir.path(), id).await);
    put(&nodes, "a=2", vec![]).await;
    let last = converged(&nodes).await[0].last_log_index;
    let at = leader(&nodes).await;
    let heard = || nodes[at].replica.status().matched.get(&id).copied() == Some(last);
    until(heard, "the leader heard of it").await;
    let back = nodes.pop().unwrap();
    back.stop(&net).await;
    std::fs::remove_dir_all(&home).unwrap();
    copy_dir(&backup, &home);
    let back = start(&net, dir.path(), id).await;
    until(|| back.replica.status().failed.is_some(), "the roll-back is noticed").await;
    assert!(back.replica.status().failed.unwrap().contains("older"));
    put(&nodes, "a=3", vec![]).await;
}

/// The one peer it can ask was restarted while it was well, and saw nothing of it since.
#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_was_restarted_knows_what_the_others_had() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let mut nodes = three(&net, dir.path()).await;
    put(&nodes, "a=1", vec![]).await;
    converged(&nodes).await;
    let at = leader(&nodes).await;
    let (leads, old, peer) = (nodes[at].id, nodes[(at + 1) % 3].id, nodes[(at + 2) % 3].id);
    let home = dir.path().join(format!("n{old}"));
    let backup = dir.path().join("backup");
    // In the same life: no count of starts tells this state from the one that is lost.
    copy_dir(&home, &backup);
    for i in 0..20 {
        put(&nodes, &format!("a={i}"), vec![]).await;
    }
    converged(&nodes).await;
    let mut take = |id: u64| nodes.remove(nodes.iter().position(|node| node.id == id).unwrap());
    take(peer).stop(&net).await;
    let peer = start(&net, dir.path(), peer).await;
    until(|| !peer.replica.status().is_unconfirmed, "the peer has asked the others").await;
    take(leads).stop(&net).await;
    take(old).stop(&net).await;
    std::fs::remove_dir_all(&home).unwrap();
    copy_dir(&backup, &home);
    let back = start(&net, dir.path(), old).await;
    until(|| back.replica.status().failed.is_some(), "the roll-back is noticed").await;
    assert!(back.replica.status().failed.unwrap().contains("older"));
}

/// The one peer it can ask never heard of what it lost, so only its leader can tell.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_was_rolled_back_does_not_touch_its_leader() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let mut nodes = three(&net, dir.path()).await;
    put(&nodes, "a=1", vec![]).await;
    let id = stop_follower(&net, &mut nodes).await;
    let home = dir.path().join(format!("n{id}"));
    let backup = dir.path().join("backup");
    copy_dir(&home, &backup);
    nodes.push(start(&net, dir.path(), id).await);
    for i in 0..20 {
        put(&nodes, &format!("a={i}"), vec![]).await;
    }
    let last = converged(&nodes).await[0].last_log_index;
    let at = leader(&nodes).await;
    let heard = || nodes[at].replica.status().matched.get(&id).copied() == Some(last);
    until(heard, "the leader heard of it").await;
    let term = nodes[at].replica.term();
    let leading = nodes[at].name.clone();
    let back = nodes.pop().unwrap();
    back.stop(&net).await;
    std::fs::remove_dir_all(&home).unwrap();
    copy_dir(&backup, &home);
    net.lose(&format!("n{id}"), &leading, true);
    for life in ["first", "second"] {
        let back = start(&net, dir.path(), id).await;
        until(|| back.replica.status().failed.is_some(), "the roll-back is noticed").await;
        assert!(back.replica.status().failed.unwrap().contains("older"), "in its {life} life");
        put(&nodes, "a=after", vec![]).await;
        let status = nodes[at].replica.status();
        assert_eq!((status.role, status.term), (replica::Role::Leader, term));
        back.stop(&net).await;
    }
}

/// The journal copies what may not be synced to another place when it is opened; the index, which
/// may have reached the disk before the process was killed, knows only the old one.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_bodies_before_a_kill_are_found_after_it() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let node = start(&net, dir.path(), 1).await;
    let members = std::collections::BTreeMap::from([(1, node.member())]);
    node.replica.initialize(members).await.unwrap();
    let nodes = vec![node];
    put(&nodes, "a=1", vec![body(7, 3_000)]).await;
    let (journal, killed) = (dir.path().join("n1/journal"), dir.path().join("killed"));
    copy_dir(&journal, &killed);
    for node in nodes {
        node.stop(&net).await;
    }
    std::fs::remove_dir_all(&journal).unwrap();
    copy_dir(&killed, &journal);
    let node = start(&net, dir.path(), 1).await;
    let view = node.replica.local_view().unwrap();
    let found = view.read(|_, bodies| bodies.chunk(&body(7, 3_000).chunk)).unwrap();
    assert_eq!(found, Some(body(7, 3_000).bytes));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_left_a_disk_never_comes_back() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let node = start(&net, dir.path(), 7).await;
    let disk = node.disk.clone();
    node.replica.shutdown().await.unwrap();
    drop(node.replica);
    net.disconnect("n7");
    until(|| std::sync::Arc::strong_count(&disk) == 2, "the replica is let go").await;
    disk.forget(7).await.unwrap();
    drop((disk, node.disk));
    let disk = Disk::open(&dir.path().join("n7"), support::options()).unwrap();
    assert!(disk.replicas().is_empty());
    let again = support::try_start(&net, disk, "n7", 7).await;
    assert!(matches!(again, Err(replica::Error::Dead { replica: 7 })));
}

/// What keeps it from being started the first time passes, and what was lost stays lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_suspect_replica_stays_suspect_however_often_it_is_started() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let node = start(&net, dir.path(), 1).await;
    let members = std::collections::BTreeMap::from([(1, node.member())]);
    node.replica.initialize(members).await.unwrap();
    let nodes = vec![node];
    let text = b"an entry that was acknowledged";
    put(&nodes, &format!("a={}", String::from_utf8_lossy(text)), vec![]).await;
    put(&nodes, "b=1", vec![]).await;
    // The rows make up for all that is lost, but for a vote it may have been.
    nodes[0].replica.checkpoint(0).await.unwrap();
    let last = nodes[0].replica.status().applied;
    until(|| nodes[0].replica.status().purged == last, "the log is cut").await;
    for node in nodes {
        node.stop(&net).await;
    }
    let home = dir.path().join("n1");
    let mut files = Vec::new();
    files_below(&home.join("journal"), &mut files);
    for path in files {
        let mut bytes = std::fs::read(&path).unwrap();
        let found = bytes.windows(text.len()).position(|window| window == text);
        if let Some(at) = found {
            bytes[at - 40..at + text.len()].fill(0xaa);
            std::fs::write(&path, bytes).unwrap();
        }
    }
    let disk = Disk::open(&home, support::options()).unwrap();
    let (files, aside) = (home.join("checkpoints/1"), home.join("checkpoints/aside"));
    std::fs::rename(&files, &aside).unwrap();
    std::fs::write(&files, "in the way").unwrap();
    let first = support::try_start(&net, disk.clone(), "n1", 1).await;
    assert!(matches!(first, Err(replica::Error::Io { .. })));
    std::fs::remove_file(&files).unwrap();
    std::fs::rename(&aside, &files).unwrap();
    let second = support::try_start(&net, disk, "n1", 1).await.unwrap();
    until(|| second.status().failed.is_some(), "it is found out").await;
    let why = second.status().failed.unwrap();
    assert!(why.contains("damage may have taken records"), "{why}");
}

/// All that is left of a group is a replica that lost an entry it had not applied: its rows are from before.
#[tokio::test(flavor = "multi_thread")]
async fn a_suspect_replica_is_forced_to_go_on_with_what_it_applied() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let node = start(&net, dir.path(), 1).await;
    let member = node.member();
    let members = std::collections::BTreeMap::from([(1, member.clone())]);
    node.replica.initialize(members).await.unwrap();
    let nodes = vec![node];
    put(&nodes, "a=1", vec![]).await;
    stop_all(&net, nodes).await;
    let home = dir.path().join("n1");
    let (index, before) = (home.join("index"), dir.path().join("before"));
    copy_dir(&index, &before);
    let nodes = vec![start(&net, dir.path(), 1).await];
    for i in 0..40 {
        put(&nodes, &format!("k{i}=v"), vec![]).await;
    }
    let text = b"a value that is nowhere else";
    put(&nodes, &format!("lost={}", String::from_utf8_lossy(text)), vec![]).await;
    put(&nodes, "behind=1", vec![]).await;
    stop_all(&net, nodes).await;
    std::fs::remove_dir_all(&index).unwrap();
    copy_dir(&before, &index);
    let mut files = Vec::new();
    files_below(&home.join("journal"), &mut files);
    for path in files {
        let mut bytes = std::fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(text.len()).position(|window| window == text) {
            bytes[at - 40..at + text.len()].fill(0xaa);
            std::fs::write(&path, bytes).unwrap();
        }
    }
    let disk = Disk::open(&home, support::options()).unwrap();
    let found = support::try_start(&net, disk.clone(), "n1", 1).await.unwrap();
    until(|| found.status().failed.is_some(), "it is found out").await;
    found.shutdown().await.unwrap();
    drop(found);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    let forced = loop {
        match disk.force_alone(1, support::SHARD, member.clone()).await {
            // Somebody still holds the old core, for a moment.
            Err(replica::Error::Running { .. }) if std::time::Instant::now() < deadline => {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            done => break done.unwrap(),
        }
    };
    assert!(!forced.lacked_bodies);
    let alone = support::try_start(&net, disk.clone(), "n1", 1).await.unwrap();
    let nodes = vec![Node { name: "n1".into(), id: 1, disk, replica: alone }];
    assert_eq!(put(&nodes, "a=2", vec![]).await, b"1", "it has what it applied");
    assert_eq!(put(&nodes, "lost=2", vec![]).await, b"");
    stop_all(&net, nodes).await;
    let nodes = vec![start(&net, dir.path(), 1).await];
    assert_eq!(put(&nodes, "a=3", vec![]).await, b"2", "after a restart too");
    stop_all(&net, nodes).await;
}

async fn stop_all(net: &Net, nodes: Vec<Node>) {
    for node in nodes {
        node.stop(net).await;
    }
}
