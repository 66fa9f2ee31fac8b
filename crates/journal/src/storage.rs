//! The door to the disk: everything the journal needs from a file system, and nothing more.
//!
//! [`RealStorage`] is a directory. [`sim::SimStorage`] is a disk in memory that loses what was not
//! synced.

mod real;
pub mod sim;

use std::io::{self, IoSlice};
use std::sync::Arc;

pub use real::RealStorage;
use rustix::io::Errno;

/// Free and total bytes of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// What may still be allocated.
    pub free_bytes: u64,
    /// What there is at all.
    pub total_bytes: u64,
}

/// One directory of files. Directory changes are durable after `sync_dir`, contents after
/// [`StorageFile::sync_data`].
pub trait Storage: Send + Sync {
    /// Makes an empty file; fails if the name is taken.
    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>>;
    /// Opens a file for reading and writing.
    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>>;
    /// Gives a file another name, replacing what had it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Takes a name away. Open files stay readable.
    fn unlink(&self, name: &str) -> io::Result<()>;
    /// All names, in any order.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Makes creations, renames and unlinks durable.
    fn sync_dir(&self) -> io::Result<()>;
    /// How full the disk is.
    fn space(&self) -> io::Result<Space>;
}

/// One open file.
pub trait StorageFile: Send + Sync {
    /// Writes all slices one after the other, the first byte at `offset`.
    fn write_at(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<()>;
    /// Reads up to `buf.len()` bytes; fewer only at the end of the file.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;
    /// Makes contents and length durable.
    fn sync_data(&self) -> io::Result<()>;
    /// Current length.
    fn size(&self) -> io::Result<u64>;
    /// Cuts or extends with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Reserves space up to `len` and extends the file with zeros to it, so that writes below it
    /// cannot find the disk full.
    fn allocate(&self, len: u64) -> io::Result<()>;
}

/// Whether a disk or file system says that what was asked for is lost: of a disk that hangs, or of a file
/// that is not open, nothing is known.
pub fn is_unreadable(error: &io::Error) -> bool {
    let lost = [Errno::IO, Errno::NODATA, Errno::UCLEAN, Errno::BADMSG, Errno::ILSEQ];
    Errno::from_io_error(error).is_some_and(|errno| lost.contains(&errno))
}

/// Whether what was asked for failed at the disk itself, or its file system was closed for writing: who asks
/// for anything else there is answered the same.
pub fn is_disk_dead(error: &io::Error) -> bool {
    let dead = [Errno::IO, Errno::ROFS, Errno::NXIO, Errno::NODEV, Errno::UCLEAN];
    Errno::from_io_error(error).is_some_and(|errno| dead.contains(&errno))
}
