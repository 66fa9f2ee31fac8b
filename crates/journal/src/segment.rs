//! The files of a journal by name, open files for readers, and space for new segments.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::Errno;

use crate::error::Error;
use crate::options::{OPEN_FILES_MAX, Options};
use crate::record::SegmentId;
use crate::storage::{Storage, StorageFile};

/// The name of a whole segment.
pub(crate) fn name(segment: SegmentId) -> String {
    format!("{:016x}.seg", segment.0)
}

/// The name of a segment that does not count yet: it is renamed when its manifest is synced, so a
/// `.seg` file with a bad manifest is damage and never an unfinished creation.
pub(crate) fn new_name(segment: SegmentId) -> String {
    format!("{:016x}.new", segment.0)
}

pub(crate) fn parse_name(name: &str) -> Option<SegmentId> {
    u64::from_str_radix(name.strip_suffix(".seg")?, 16).ok().map(SegmentId)
}

fn is_unfinished(name: &str) -> bool {
    name.ends_with(".new") || name.ends_with(".tmp")
}

fn is_reserve(name: &str) -> bool {
    name.starts_with("reserve-")
}

/// Open files for readers. Removing a segment here or on disk does not disturb who reads it.
pub(crate) struct Files {
    storage: Arc<dyn Storage>,
    open: Mutex<OpenFiles>,
}

#[derive(Default)]
struct OpenFiles {
    files: BTreeMap<SegmentId, (u64, Arc<dyn StorageFile>)>,
    clock: u64,
}

impl Files {
    pub fn new(storage: Arc<dyn Storage>) -> Self {
        Self { storage, open: Mutex::default() }
    }

    pub fn of(&self, segment: SegmentId) -> Result<Arc<dyn StorageFile>, Error> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.clock += 1;
        let clock = open.clock;
        if let Some((used, file)) = open.files.get_mut(&segment) {
            *used = clock;
            return Ok(Arc::clone(file));
        }
        let file = match self.storage.open(&name(segment)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::Missing { segment });
            }
            other => other.map_err(Error::io("open a segment"))?,
        };
        open.insert(segment, Arc::clone(&file));
        Ok(file)
    }

    pub fn insert(&self, segment: SegmentId, file: Arc<dyn StorageFile>) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(segment, file);
    }

    pub fn remove(&self, segment: SegmentId) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).files.remove(&segment);
    }
}

impl OpenFiles {
    fn insert(&mut self, segment: SegmentId, file: Arc<dyn StorageFile>) {
        if self.files.len() >= OPEN_FILES_MAX {
            let oldest = self.files.iter().min_by_key(|(_, (used, _))| *used).map(|(id, _)| *id);
            oldest.map(|id| self.files.remove(&id));
        }
        self.files.insert(segment, (self.clock, file));
    }
}

/// What a request needs the space for. Later ones may use more of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Need {
    /// Growth: stops while the reserve is still untouched.
    Bodies,
    /// Entries without bodies: EXPUNGE, DELETE, flags. May use all but the last reserve segment.
    Entries,
    /// Votes, truncation, purges and what garbage collection copies.
    Vital,
}

/// Why there is no new segment.
pub(crate) enum Refusal {
    Full,
    Failed(io::Error),
}

impl Refusal {
    /// Of what was not begun.
    pub fn of(error: io::Error) -> Self {
        if is_full(&error) { Self::Full } else { Self::Failed(error) }
    }
}

/// The spare files of a disk.
pub(crate) struct Spares<'a> {
    pub storage: &'a dyn Storage,
    pub options: &'a Options,
}

impl Spares<'_> {
    /// Takes away what a crash left of files that were being made: segments that do not count yet, and
    /// reserves whose space was not all taken. Whoever opens a journal asks for it before anything is made.
    pub fn clear(&self) -> Result<(), Error> {
        for name in self.storage.list().map_err(Error::io("list"))? {
            if is_unfinished(&name) || (is_reserve(&name) && self.is_short(&name)?) {
                self.storage.unlink(&name).map_err(Error::io("unlink an unfinished file"))?;
            }
        }
        Ok(())
    }

    fn is_short(&self, name: &str) -> Result<bool, Error> {
        let file = self.storage.open(name).map_err(Error::io("open a reserve"))?;
        let len = file.size().map_err(Error::io("stat a reserve"))?;
        Ok(len < self.options.segment_bytes)
    }

    /// True while growth is allowed.
    pub fn has_room_for_bodies(&self) -> bool {
        let needed = self.options.hard_free_bytes + self.options.segment_bytes;
        self.storage.space().is_ok_and(|space| space.free_bytes >= needed)
    }

    /// Whether two more segments can be begun: one that copies go to, and one that is left for votes.
    pub fn has_room_for_copies(&self) -> bool {
        let free_bytes = self.storage.space().map_or(0, |space| space.free_bytes);
        let n_free = free_bytes / self.options.segment_bytes.max(1);
        n_free >= 2 || n_free + self.reserves().map_or(0, |names| names.len() as u64) >= 2
    }

    /// A preallocated file of at least `capacity` bytes under the segment's unfinished name, and the least
    /// need that would have got it.
    pub fn acquire(
        &self,
        segment: SegmentId,
        need: Need,
        capacity: u64,
    ) -> Result<(Arc<dyn StorageFile>, Need), Refusal> {
        let name = new_name(segment);
        if need > Need::Bodies || self.has_room_for_bodies() {
            match self.allocate(&name, capacity) {
                Err(error) if is_full(&error) => {}
                other => {
                    let file = other.map_err(Refusal::Failed)?;
                    return Ok((file, need.min(Need::Entries)));
                }
            }
        }
        let reserves = self.reserves().map_err(Refusal::of)?;
        let spared = match need {
            Need::Bodies => return Err(Refusal::Full),
            Need::Entries => 1,
            Need::Vital => 0,
        };
        if reserves.len() <= spared {
            return Err(Refusal::Full);
        }
        let Some(reserve) = reserves.last() else { return Err(Refusal::Full) };
        let file = self.storage.open(reserve).map_err(Refusal::of)?;
        if file.size().map_err(Refusal::Failed)? < capacity {
            file.allocate(capacity).map_err(Refusal::of)?;
        }
        // Durability: nothing counts under this name; the one that does is given, and synced, once a
        // manifest is in the file.
        self.storage.rename(reserve, &name).map_err(Refusal::Failed)?;
        Ok((file, if reserves.len() > 1 { Need::Entries } else { Need::Vital }))
    }

    /// Fills the reserve up again, as far as there is space beyond what bodies may not use; tells of each
    /// that is made.
    pub fn refill(&self, made: &dyn Fn()) -> io::Result<()> {
        let have = match self.reserves() {
            Err(error) if is_full(&error) => return Ok(()),
            have => have?,
        };
        for number in 0..self.options.reserve_segments {
            let name = format!("reserve-{number}");
            if have.contains(&name) {
                continue;
            }
            // Durability: its space is taken on the disk before it counts as a reserve.
            match self.allocate(&name, self.options.segment_bytes) {
                Err(error) if is_full(&error) => break,
                other => other?.sync_data()?,
            };
            made();
        }
        // Durability: a reserve that is not there after a crash is no reserve.
        self.storage.sync_dir()
    }

    fn reserves(&self) -> io::Result<Vec<String>> {
        let mut names = self.storage.list()?;
        names.retain(|name| is_reserve(name));
        names.sort();
        Ok(names)
    }

    fn allocate(&self, name: &str, capacity: u64) -> io::Result<Arc<dyn StorageFile>> {
        let file = self.storage.create(name)?;
        match file.allocate(capacity) {
            Ok(()) => Ok(file),
            Err(error) => {
                self.storage.unlink(name)?;
                Err(error)
            }
        }
    }
}

/// True if there is no space, or the process has too many files open, which is not a failure of the disk as
/// long as nothing was written.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        || has_no_descriptor(error)
}

/// True if the process, or the whole system, has too many files open.
pub(crate) fn has_no_descriptor(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}
