//! A disk in memory that behaves as badly as real ones may.
//!
//! What was written is visible at once and durable only after a sync. [`SimStorage::power_cut`]
//! keeps any subset of the unsynced 512 byte sectors and any prefix of the unsynced directory
//! changes; [`SimStorage::kill`] keeps everything but forgets nothing of what is unsynced. After a
//! failed sync the pages count as clean although they are not on the disk, as on Linux.

mod image;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use super::{Space, Storage, StorageFile};
use image::SimFile;

/// What a power cut keeps or loses as a whole.
pub const SECTOR: u64 = 512;

/// A kind of operation that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Writes into a file.
    Write,
    /// Syncs of a file.
    Sync,
    /// Syncs of the directory.
    SyncDir,
    /// Reservation of space.
    Allocate,
    /// Making a file.
    Create,
    /// Renaming a file.
    Rename,
    /// Deleting a file.
    Unlink,
    /// Reads from a file.
    Read,
    /// Opening a file that is there.
    Open,
}

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// With an error of this kind.
    Kind(io::ErrorKind),
    /// The process has too many files open.
    NoDescriptor,
}

impl From<io::ErrorKind> for Fault {
    fn from(kind: io::ErrorKind) -> Self {
        Self::Kind(kind)
    }
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Kind(kind) => kind.into(),
            Fault::NoDescriptor => Errno::MFILE.into(),
        }
    }
}

#[derive(Clone, Debug)]
enum Change {
    Link(String, u64),
    Unlink(String),
    Rename(String, String),
}

#[derive(Clone, Debug)]
struct Disk {
    files: BTreeMap<u64, SimFile>,
    names: BTreeMap<String, u64>,
    synced_names: BTreeMap<String, u64>,
    unsynced: Vec<Change>,
    next_file: u64,
    total_bytes: u64,
    /// Operations of each kind so far.
    counts: BTreeMap<Operation, u64>,
    /// Operations of this kind that fail: after how many, how many, and with what.
    faults: BTreeMap<Operation, (u64, u64, Fault)>,
    /// Sectors of files that cannot be read.
    spoiled: BTreeSet<(u64, u64)>,
    n_changes: u64,
    /// Open files, and the most there were.
    n_open: (u64, u64),
    /// After so many changes the power is off.
    off_after: Option<u64>,
}

/// A disk in memory. Clones are handles to the same disk.
#[derive(Clone)]
pub struct SimStorage {
    disk: Arc<Mutex<Disk>>,
}

struct Handle {
    disk: Arc<Mutex<Disk>>,
    file: u64,
}

impl SimStorage {
    /// An empty disk.
    pub fn new(total_bytes: u64) -> Self {
        let disk = Disk {
            files: BTreeMap::new(),
            names: BTreeMap::new(),
            synced_names: BTreeMap::new(),
            unsynced: Vec::new(),
            next_file: 1,
            total_bytes,
            counts: BTreeMap::new(),
            faults: BTreeMap::new(),
            spoiled: BTreeSet::new(),
            n_changes: 0,
            n_open: (0, 0),
            off_after: None,
        };
        Self { disk: Arc::new(Mutex::new(disk)) }
    }

    /// Lets the power fail when `n` more changes were made: what follows fails without effect.
    pub fn power_off_after(&self, n: u64) {
        let mut disk = lock(&self.disk);
        disk.off_after = Some(disk.n_changes + n);
    }

    /// Writes, syncs and directory changes so far.
    pub fn n_changes(&self) -> u64 {
        lock(&self.disk).n_changes
    }

    /// Operations of one kind so far.
    pub fn n_operations(&self, operation: Operation) -> u64 {
        lock(&self.disk).counts.get(&operation).copied().unwrap_or(0)
    }

    /// Makes the next `n` operations of a kind fail.
    pub fn fail(&self, operation: Operation, n: u64, fault: impl Into<Fault>) {
        self.fail_after(operation, (0, n), fault);
    }

    /// Makes `n` operations of a kind fail after so many that do not.
    pub fn fail_after(
        &self,
        operation: Operation,
        (n_good, n): (u64, u64),
        fault: impl Into<Fault>,
    ) {
        lock(&self.disk).faults.insert(operation, (n_good, n, fault.into()));
    }

    /// Makes the disk larger or smaller.
    pub fn set_total_bytes(&self, total_bytes: u64) {
        lock(&self.disk).total_bytes = total_bytes;
    }

    /// How many yes-or-no questions a power cut would ask now.
    pub fn n_unsynced(&self) -> usize {
        let disk = lock(&self.disk);
        let sectors: usize = disk.files.values().map(SimFile::n_unsynced).sum();
        sectors + disk.unsynced.len()
    }

    /// The disk after a power cut. `keep` is asked for each unsynced sector, length and directory
    /// change; the first directory change it loses takes the later ones with it.
    pub fn power_cut(&self, keep: &mut dyn FnMut() -> bool) -> Self {
        let mut disk = lock(&self.disk).clone();
        for file in disk.files.values_mut() {
            file.cut(keep);
        }
        let mut names = disk.synced_names.clone();
        for change in disk.unsynced.drain(..).take_while(|_| keep()) {
            change.apply(&mut names);
        }
        disk.files.retain(|file, _| names.values().any(|named| named == file));
        (disk.names, disk.synced_names) = (names.clone(), names);
        disk.faults.clear();
        disk.off_after = None;
        Self { disk: Arc::new(Mutex::new(disk)) }
    }

    /// The disk after the process was killed: everything is visible, unsynced things are still
    /// unsynced. The old handles keep working on a disk of their own.
    pub fn kill(&self) -> Self {
        let mut disk = lock(&self.disk).clone();
        disk.faults.clear();
        disk.off_after = None;
        disk.n_open = (0, 0);
        Self { disk: Arc::new(Mutex::new(disk)) }
    }

    /// Turns over one bit on the medium. False if the file is not that long.
    pub fn flip_bit(&self, name: &str, bit: u64) -> bool {
        let mut disk = lock(&self.disk);
        let Some(file) = disk.names.get(name).copied() else { return false };
        disk.files.get_mut(&file).is_some_and(|file| file.flip(bit))
    }

    /// From now on a sector of a file cannot be read.
    pub fn spoil(&self, name: &str, sector: u64) {
        let mut disk = lock(&self.disk);
        if let Some(file) = disk.names.get(name).copied() {
            disk.spoiled.insert((file, sector));
        }
    }

    /// Files that were open at the same time, at most.
    pub fn n_open_max(&self) -> u64 {
        lock(&self.disk).n_open.1
    }

    fn handle(&self, disk: &mut Disk, file: u64) -> Arc<dyn StorageFile> {
        disk.n_open.0 += 1;
        disk.n_open.1 = disk.n_open.1.max(disk.n_open.0);
        Arc::new(Handle { disk: Arc::clone(&self.disk), file })
    }

    /// Bytes of a file that were ever written.
    pub fn written_len(&self, name: &str) -> u64 {
        let disk = lock(&self.disk);
        let file = disk.names.get(name).and_then(|file| disk.files.get(file));
        file.map_or(0, SimFile::written_len)
    }
}

fn lock(disk: &Mutex<Disk>) -> MutexGuard<'_, Disk> {
    disk.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Change {
    fn apply(self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Link(name, file) => drop(names.insert(name, file)),
            Self::Unlink(name) => drop(names.remove(&name)),
            Self::Rename(from, to) => {
                if let Some(file) = names.remove(&from) {
                    names.insert(to, file);
                }
            }
        }
    }
}

impl Disk {
    /// Counts an operation and lets it fail if it has to.
    fn begin(&mut self, operation: Operation) -> io::Result<()> {
        if !matches!(operation, Operation::Read | Operation::Open) {
            if self.off_after.is_some_and(|off| self.n_changes >= off) {
                return Err(io::Error::other("the power is off"));
            }
            self.n_changes += 1;
        }
        *self.counts.entry(operation).or_default() += 1;
        match self.faults.get_mut(&operation) {
            Some((n_good, ..)) if *n_good > 0 => {
                *n_good -= 1;
                Ok(())
            }
            Some((_, n, fault)) if *n > 0 => {
                *n -= 1;
                Err((*fault).into())
            }
            _ => Ok(()),
        }
    }

    fn used_bytes(&self) -> u64 {
        self.names.values().map(|file| self.files[file].allocated_bytes()).sum()
    }

    fn find(&self, name: &str) -> io::Result<u64> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn change(&mut self, change: Change) {
        change.clone().apply(&mut self.names);
        self.unsynced.push(change);
    }

    /// Grows a file's space, or refuses.
    fn grow(&mut self, file: u64, upto: u64) -> io::Result<()> {
        let free = self.total_bytes.saturating_sub(self.used_bytes());
        let file = self.files.get_mut(&file).ok_or(io::ErrorKind::NotFound)?;
        if upto.saturating_sub(file.allocated_bytes()) > free {
            return Err(io::ErrorKind::StorageFull.into());
        }
        file.allocate(upto);
        Ok(())
    }
}

impl Storage for SimStorage {
    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        let mut disk = lock(&self.disk);
        disk.begin(Operation::Create)?;
        if disk.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = disk.next_file;
        disk.next_file += 1;
        disk.files.insert(file, SimFile::default());
        disk.change(Change::Link(name.to_owned(), file));
        Ok(self.handle(&mut disk, file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        let mut disk = lock(&self.disk);
        disk.begin(Operation::Open)?;
        let file = disk.find(name)?;
        Ok(self.handle(&mut disk, file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = lock(&self.disk);
        disk.begin(Operation::Rename)?;
        disk.find(from)?;
        disk.change(Change::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        let mut disk = lock(&self.disk);
        disk.begin(Operation::Unlink)?;
        disk.find(name)?;
        disk.change(Change::Unlink(name.to_owned()));
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(lock(&self.disk).names.keys().cloned().collect())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut disk = lock(&self.disk);
        disk.begin(Operation::SyncDir)?;
        disk.synced_names = disk.names.clone();
        disk.unsynced.clear();
        Ok(())
    }

    fn space(&self) -> io::Result<Space> {
        let disk = lock(&self.disk);
        let free_bytes = disk.total_bytes.saturating_sub(disk.used_bytes());
        Ok(Space { free_bytes, total_bytes: disk.total_bytes })
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut disk = lock(&self.disk);
        disk.n_open.0 = disk.n_open.0.saturating_sub(1);
    }
}

impl StorageFile for Handle {
    fn write_at(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<()> {
        let mut disk = lock(&self.disk);
        disk.begin(Operation::Write)?;
        let len: u64 = slices.iter().map(|slice| slice.len() as u64).sum();
        disk.grow(self.file, offset + len)?;
        let file = disk.files.get_mut(&self.file).ok_or(io::ErrorKind::NotFound)?;
        let mut at = offset;
        for slice in slices {
            file.write(at, slice);
            at += slice.len() as u64;
        }
        Ok(())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut disk = lock(&self.disk);
        disk.begin(Operation::Read)?;
        let last = (offset + buf.len() as u64).saturating_sub(1) / SECTOR;
        let asked = (self.file, offset / SECTOR)..=(self.file, last.max(offset / SECTOR));
        if disk.spoiled.range(asked).next().is_some() {
            return Err(Errno::IO.into());
        }
        let file = disk.files.get(&self.file).ok_or(io::ErrorKind::NotFound)?;
        Ok(file.read(offset, buf))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = lock(&self.disk);
        let is_off = disk.off_after.is_some_and(|off| disk.n_changes >= off);
        let begun = disk.begin(Operation::Sync);
        let file = disk.files.get_mut(&self.file).ok_or(io::ErrorKind::NotFound)?;
        match begun {
            Ok(()) => file.sync(),
            Err(_) if is_off => {}
            Err(_) => file.fail_sync(),
        }
        begun
    }

    fn size(&self) -> io::Result<u64> {
        let disk = lock(&self.disk);
        let file = disk.files.get(&self.file).ok_or(io::ErrorKind::NotFound)?;
        Ok(file.size())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut disk = lock(&self.disk);
        disk.begin(Operation::Write)?;
        let file = disk.files.get_mut(&self.file).ok_or(io::ErrorKind::NotFound)?;
        file.set_len(len);
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut disk = lock(&self.disk);
        disk.begin(Operation::Allocate)?;
        disk.grow(self.file, len)?;
        let file = disk.files.get_mut(&self.file).ok_or(io::ErrorKind::NotFound)?;
        if file.size() < len {
            file.set_len(len);
        }
        Ok(())
    }
}
