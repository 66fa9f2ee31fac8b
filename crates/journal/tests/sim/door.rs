//! A disk whose operations hang or fail when a test says so.

use std::io::{self, IoSlice};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use journal::sim::SimStorage;
use journal::{Journal, Space, Storage, StorageFile};

pub const PATIENCE: Duration = Duration::from_secs(30);

/// The number of an open file, 0 for the directory.
type FileNumber = u64;

/// Where operations hang or fail, if they are told to.
#[derive(Clone, Default)]
pub struct Door(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    holds: Vec<Hold>,
    n_files: FileNumber,
    /// Of the last write.
    written: FileNumber,
}

struct Hold {
    operation: &'static str,
    came: Sender<FileNumber>,
    go: Receiver<io::Result<()>>,
}

/// One operation that hangs.
pub struct Held {
    came: Receiver<FileNumber>,
    go: Sender<io::Result<()>>,
}

impl Held {
    /// Waits until it hangs. Says through which open file it was asked for.
    pub fn wait(&self) -> FileNumber {
        self.came.recv_timeout(PATIENCE).unwrap()
    }

    /// Nobody asked for it so far.
    pub fn has_not_come(&self) -> bool {
        self.came.try_recv().is_err()
    }

    /// Lets it go on.
    pub fn release(self) {
        drop(self.go);
    }

    /// Lets it fail, with no effect.
    pub fn fail(self) {
        self.go.send(Err(io::ErrorKind::Other.into())).unwrap();
    }
}

impl Door {
    /// The next operation of this kind that is not held already hangs.
    pub fn hold(&self, operation: &'static str) -> Held {
        let (came, has_come) = channel();
        let (may_go, go) = channel();
        self.0.lock().unwrap().holds.push(Hold { operation, came, go });
        Held { came: has_come, go: may_go }
    }

    /// Through which open file was written last.
    pub fn written(&self) -> FileNumber {
        self.0.lock().unwrap().written
    }

    fn pass(&self, operation: &str, file: FileNumber) -> io::Result<()> {
        let mut inner = self.0.lock().unwrap();
        if operation == "write" {
            inner.written = file;
        }
        let Some(at) = inner.holds.iter().position(|hold| hold.operation == operation) else {
            return Ok(());
        };
        let hold = inner.holds.remove(at);
        drop(inner);
        hold.came.send(file).unwrap_or_default();
        hold.go.recv().unwrap_or(Ok(()))
    }
}

pub struct Hanging(pub SimStorage, pub Door);

struct HangingFile(Arc<dyn StorageFile>, Door, FileNumber);

impl Hanging {
    fn file(&self, file: Arc<dyn StorageFile>) -> Arc<dyn StorageFile> {
        let mut inner = self.1.0.lock().unwrap();
        inner.n_files += 1;
        Arc::new(HangingFile(file, self.1.clone(), inner.n_files))
    }
}

impl Storage for Hanging {
    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        self.1.pass("create", 0)?;
        self.0.create(name).map(|file| self.file(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        self.0.open(name).map(|file| self.file(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.1.pass("rename", 0)?;
        self.0.rename(from, to)
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        self.0.unlink(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.1.pass("list", 0)?;
        self.0.list()
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.1.pass("sync the directory", 0)?;
        self.0.sync_dir()
    }

    fn space(&self) -> io::Result<Space> {
        self.1.pass("space", 0)?;
        self.0.space()
    }
}

impl StorageFile for HangingFile {
    fn write_at(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<()> {
        self.1.pass("write", self.2)?;
        self.0.write_at(offset, slices)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(offset, buf)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.1.pass("sync", self.2)?;
        self.0.sync_data()
    }

    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.1.pass("set length", self.2)?;
        self.0.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.1.pass("allocate", self.2)?;
        self.0.allocate(len)
    }
}

pub fn wait_until_nothing_is_pending(journal: &Journal) {
    let begun = Instant::now();
    while journal.last_sync().pending_since.is_some() {
        assert!(begun.elapsed() < PATIENCE, "pending for ever");
        std::thread::yield_now();
    }
}
