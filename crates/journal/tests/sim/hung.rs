//! A disk that hangs is seen to hang, whatever the writer asked of it.

use std::io::{self, IoSlice};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use journal::sim::SimStorage;
use journal::{Journal, Options, Space, Storage, StorageFile};

use crate::model::{AMPLE, formatted, options, vote};

const PATIENCE: Duration = Duration::from_secs(30);

/// Hangs in one kind of operation, if it is told to.
#[derive(Clone, Default)]
struct Door(Arc<Mutex<Option<Hold>>>);

struct Hold {
    operation: &'static str,
    came: Sender<()>,
    go: Receiver<()>,
}

impl Door {
    /// The next operation of this kind hangs; told when it does, and when it may go on.
    fn hold(&self, operation: &'static str) -> (Receiver<()>, Sender<()>) {
        let (came, has_come) = channel();
        let (may_go, go) = channel();
        *self.0.lock().unwrap() = Some(Hold { operation, came, go });
        (has_come, may_go)
    }

    fn pass(&self, operation: &str) {
        let hold = self.0.lock().unwrap().take_if(|hold| hold.operation == operation);
        if let Some(hold) = hold {
            hold.came.send(()).unwrap();
            let _ = hold.go.recv();
        }
    }
}

struct Hanging(SimStorage, Door);
struct HangingFile(Arc<dyn StorageFile>, Door);

impl Hanging {
    fn file(&self, file: Arc<dyn StorageFile>) -> Arc<dyn StorageFile> {
        Arc::new(HangingFile(file, self.1.clone()))
    }
}

impl Storage for Hanging {
    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        self.1.pass("create");
        self.0.create(name).map(|file| self.file(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        self.0.open(name).map(|file| self.file(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.1.pass("rename");
        self.0.rename(from, to)
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        self.0.unlink(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.1.pass("list");
        self.0.list()
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.1.pass("sync the directory");
        self.0.sync_dir()
    }

    fn space(&self) -> io::Result<Space> {
        self.1.pass("space");
        self.0.space()
    }
}

impl StorageFile for HangingFile {
    fn write_at(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<()> {
        self.1.pass("write");
        self.0.write_at(offset, slices)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, buf)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.1.pass("sync");
        self.0.sync_data()
    }

    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.1.pass("set length");
        self.0.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.1.pass("allocate");
        self.0.allocate(len)
    }
}

fn hanging(options: Options) -> (Door, Journal) {
    let door = Door::default();
    let storage = Hanging(formatted(AMPLE), door.clone());
    let options = Options { threaded: true, ..options };
    (door.clone(), Journal::open(Arc::new(storage), options).unwrap().0)
}

fn wait_until_nothing_is_pending(journal: &Journal) {
    let begun = Instant::now();
    while journal.last_sync().pending_since.is_some() {
        assert!(begun.elapsed() < PATIENCE, "pending for ever");
        std::thread::yield_now();
    }
}

#[test]
fn a_disk_that_hangs_while_a_segment_is_rolled_is_seen_to_hang() {
    let quiet = Options { mark_after: PATIENCE * 9, ..options() };
    let (door, journal) = hanging(quiet);
    let of_a_roll =
        ["space", "create", "allocate", "write", "set length", "sync", "rename", "list"];
    for operation in of_a_roll.into_iter().chain(["sync the directory"]) {
        let (has_come, may_go) = door.hold(operation);
        std::thread::scope(|scope| {
            let rolling = scope.spawn(|| journal.roll());
            has_come.recv_timeout(PATIENCE).unwrap();
            assert!(journal.last_sync().pending_since.is_some(), "{operation}");
            drop(may_go);
            rolling.join().unwrap().unwrap();
        });
        wait_until_nothing_is_pending(&journal);
    }
}

#[test]
fn a_disk_that_hangs_in_a_frame_or_a_mark_is_seen_to_hang() {
    let (door, journal) = hanging(Options { mark_after: PATIENCE * 9, ..options() });
    let (has_come, may_go) = door.hold("sync");
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| journal.append_wait(vec![vote(1, "late")]));
        has_come.recv_timeout(PATIENCE).unwrap();
        assert!(journal.last_sync().pending_since.is_some());
        drop(may_go);
        writing.join().unwrap().unwrap();
    });
    wait_until_nothing_is_pending(&journal);
    drop(journal);

    let (door, journal) = hanging(Options { mark_after: Duration::from_millis(1), ..options() });
    let (has_come, may_go) = door.hold("sync");
    journal.append_unsynced(vec![vote(1, "lazy")]).unwrap();
    has_come.recv_timeout(PATIENCE).unwrap();
    assert!(journal.last_sync().pending_since.is_some());
    drop(may_go);
    wait_until_nothing_is_pending(&journal);
}

#[test]
fn nothing_is_pending_once_a_disk_is_poisoned() {
    let storage = formatted(AMPLE);
    let threaded = Options { threaded: true, ..options() };
    let (journal, _) = Journal::open(Arc::new(storage.clone()), threaded).unwrap();
    storage.fail(journal::sim::Operation::Sync, 1, io::ErrorKind::Other);
    journal.append_wait(vec![vote(1, "lost")]).unwrap_err();
    assert!(journal.is_poisoned());
    wait_until_nothing_is_pending(&journal);
}
