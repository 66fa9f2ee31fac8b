//! A disk that hangs when it is read holds up nobody on other disks, and leads no more.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytes::Bytes;
use journal::sim::SimStorage;
use journal::{Space, Storage, StorageFile};
use mailbox::StoredChunk;
use replica::{ChunkError, Disk, DiskOptions, ProposeError, Timing};

use support::{Net, Node, options, put, start, try_start, until};

/// A test that failed does not hang for ever.
const HANGS_MAX: Duration = Duration::from_secs(60);

/// Whether reads hang, and how many do.
#[derive(Default)]
struct Gate {
    state: Mutex<(bool, usize)>,
    told: Condvar,
}

impl Gate {
    fn close(&self, is_closed: bool) {
        self.state.lock().unwrap().0 = is_closed;
        self.told.notify_all();
    }

    fn n_waiting(&self) -> usize {
        self.state.lock().unwrap().1
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.1 += 1;
        let waited = self.told.wait_timeout_while(state, HANGS_MAX, |(is_closed, _)| *is_closed);
        let (mut state, _) = waited.unwrap();
        state.1 -= 1;
    }
}

#[derive(Clone)]
struct Hanging(SimStorage, Arc<Gate>);

struct HangingFile(Arc<dyn StorageFile>, Arc<Gate>);

impl Hanging {
    fn file(&self, file: Arc<dyn StorageFile>) -> Arc<dyn StorageFile> {
        Arc::new(HangingFile(file, self.1.clone()))
    }
}

impl Storage for Hanging {
    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        self.0.create(name).map(|file| self.file(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        self.0.open(name).map(|file| self.file(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        self.0.unlink(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.0.sync_dir()
    }

    fn space(&self) -> io::Result<Space> {
        self.0.space()
    }
}

impl StorageFile for HangingFile {
    fn write_at(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<()> {
        self.0.write_at(offset, slices)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.1.pass();
        self.0.read_at(offset, buf)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.0.allocate(len)
    }
}

/// One of two disks in use here, with a group of its own.
async fn alone(net: &Net, dir: &Path, id: u64, gate: &Arc<Gate>) -> Node {
    let storage = Hanging(SimStorage::new(1 << 30), gate.clone());
    Disk::format_storage(&storage).unwrap();
    let storage: Arc<dyn Storage> = Arc::new(storage);
    let options = DiskOptions { storage: Some(storage), has_others: true, ..options() };
    let name = format!("n{id}");
    let disk = Disk::open(&dir.join(&name), options).unwrap();
    let replica = try_start(net, disk.clone(), &name, id).await.unwrap();
    net.connect(&name, replica.clone());
    let node = Node { name, id, disk, replica };
    node.replica.initialize(BTreeMap::from([(id, node.member())])).await.unwrap();
    node
}

/// This runtime has one thread: whoever keeps it holds up everybody.
#[tokio::test]
async fn a_disk_that_hangs_when_its_log_is_read_leads_no_more_and_others_go_on() {
    let (net, dir) = (Net::default(), tempfile::tempdir().unwrap());
    let (hangs, sound) = (Arc::<Gate>::default(), Arc::<Gate>::default());
    let one = [alone(&net, dir.path(), 1, &hangs).await];
    let other = [alone(&net, dir.path(), 2, &sound).await];
    // More than is kept in memory.
    for n in 0..25_u8 {
        let body = StoredChunk::raw(Bytes::from(vec![n; 250_000]));
        put(&one, &format!("{n}=body"), vec![body]).await;
    }
    put(&other, "before=1", Vec::new()).await;

    hangs.close(true);
    let newcomer = start(&net, dir.path(), 3).await;
    one[0].replica.add_learner(3, newcomer.member()).await.unwrap();
    until(|| hangs.n_waiting() > 0, "an entry is read for who begins to follow").await;
    put(&other, "meanwhile=1", Vec::new()).await;
    let hung = Timing::default().disk_hung;
    until(|| one[0].disk.unanswered() > hung, "the disk is seen to hang").await;
    let refused = one[0].replica.propose(b"late=1".to_vec(), Vec::new()).await;
    assert_eq!(refused, Err(ProposeError::Unavailable));
    // Who begins to follow has got nothing yet.
    let body = StoredChunk::raw(Bytes::from(vec![0; 250_000])).chunk;
    assert_eq!(one[0].replica.chunk(&body).await, Err(ChunkError::Unavailable));
    put(&other, "later=1", Vec::new()).await;
    assert_eq!(other[0].disk.unanswered().as_secs(), 0);

    hangs.close(false);
    put(&one, "again=1", Vec::new()).await;
    let last = one[0].replica.status().last_log_index;
    until(|| newcomer.replica.status().applied >= last, "who follows has all").await;
}

#[tokio::test]
async fn a_body_that_no_peer_can_have_is_waited_for_however_slow_the_disk_is() {
    let (net, dir, slow) = (Net::default(), tempfile::tempdir().unwrap(), Arc::<Gate>::default());
    let one = [alone(&net, dir.path(), 1, &slow).await];
    let body = StoredChunk::raw(Bytes::from_static(b"a body"));
    put(&one, "1=body", vec![body.clone()]).await;
    slow.close(true);
    let (replica, wanted) = (one[0].replica.clone(), body.chunk);
    let reading = tokio::spawn(async move { replica.chunk(&wanted).await });
    until(|| slow.n_waiting() > 0, "the body is read").await;
    tokio::time::sleep(Timing::default().disk_hung + Duration::from_millis(500)).await;
    slow.close(false);
    assert_eq!(reading.await.unwrap(), Ok(body));
}

#[tokio::test]
async fn an_answer_does_not_wait_for_the_bodies_beside_it_on_a_disk_that_hangs() {
    let (net, dir, gate) = (Net::default(), tempfile::tempdir().unwrap(), Arc::<Gate>::default());
    let one = [alone(&net, dir.path(), 1, &gate).await];
    let body = StoredChunk::raw(Bytes::from_static(b"a body"));
    put(&one, "1=body", vec![body.clone()]).await;
    let wanted = vec![body.chunk.digest];
    assert_eq!(one[0].replica.stored_chunks(wanted.clone()).await, [body]);
    gate.close(true);
    let patience = 2 * Timing::default().disk_hung;
    let beside = tokio::time::timeout(patience, one[0].replica.stored_chunks(wanted)).await;
    assert!(beside.unwrap().is_empty());
    gate.close(false);
}
