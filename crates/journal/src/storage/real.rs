//! A real directory.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, FlockOperation};
use rustix::io::Errno;

use super::{Space, Storage, StorageFile};

/// Slices per system call; Linux takes at most 1,024.
const SLICES_MAX: usize = 1024;
/// Zeros per write where space cannot be reserved.
const FILL_BYTES: u64 = 1 << 20;
/// A directory is locked for this long after its process let go of it: by a process it has just started,
/// which shares its open files until it is another program, or by what the kernel still ends of one killed.
const LOCK_WITHIN: Duration = Duration::from_secs(1);
/// There is nothing that tells when a lock is free and gives up after a while.
const LOCK_AGAIN_AFTER: Duration = Duration::from_millis(10);

/// A journal's directory on a real disk, locked against a second process while it is open.
pub struct RealStorage {
    path: PathBuf,
    directory: File,
}

struct RealFile(File);

impl RealStorage {
    /// Opens the directory, making it if needed, and locks it.
    pub fn open(path: &Path) -> io::Result<Self> {
        if !path.is_dir() {
            std::fs::create_dir_all(path)?;
            if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                // Durability: the journal's own name; without it a format could vanish.
                File::open(parent)?.sync_all()?;
            }
        }
        let directory = File::open(path)?;
        lock(&directory)?;
        Ok(Self { path: path.to_owned(), directory })
    }
}

fn lock(directory: &File) -> io::Result<()> {
    let begun = Instant::now();
    loop {
        match rustix::fs::flock(directory, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if begun.elapsed() < LOCK_WITHIN => {
                std::thread::sleep(LOCK_AGAIN_AFTER);
            }
            done => return Ok(done?),
        }
    }
}

impl Storage for RealStorage {
    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).open(self.path.join(name))?;
        Ok(Arc::new(RealFile(file)))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        let file = OpenOptions::new().read(true).write(true).open(self.path.join(name))?;
        Ok(Arc::new(RealFile(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        // Durability: none yet; callers sync the contents before and the directory after.
        std::fs::rename(self.path.join(from), self.path.join(to))
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            names.extend(entry?.file_name().into_string().ok());
        }
        Ok(names)
    }

    fn sync_dir(&self) -> io::Result<()> {
        // Durability: every name given or taken before this call.
        self.directory.sync_all()
    }

    fn space(&self) -> io::Result<Space> {
        let stat = rustix::fs::fstatvfs(&self.directory)?;
        Ok(Space {
            free_bytes: stat.f_bavail * stat.f_frsize,
            total_bytes: stat.f_blocks * stat.f_frsize,
        })
    }
}

impl StorageFile for RealFile {
    fn write_at(&self, offset: u64, slices: &[IoSlice<'_>]) -> io::Result<()> {
        let mut offset = offset;
        for group in slices.chunks(SLICES_MAX) {
            let mut group = group.to_vec();
            let mut rest = &mut group[..];
            IoSlice::advance_slices(&mut rest, 0);
            while !rest.is_empty() {
                let n = match rustix::io::pwritev(&self.0, rest, offset) {
                    Err(rustix::io::Errno::INTR) => continue,
                    other => other?,
                };
                if n == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                offset += n as u64;
                IoSlice::advance_slices(&mut rest, n);
            }
        }
        Ok(())
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match self.0.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn sync_data(&self) -> io::Result<()> {
        // Durability: contents, and the length if it changed (fdatasync).
        self.0.sync_data()
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), 0, len) {
            // Why written instead: NFS, ext3 and many a file system of FUSE reserve nothing.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.fill(len),
            done => Ok(done?),
        }
    }
}

impl RealFile {
    /// Writes zeros from the end of the file up to `len`, so that their space is taken. Why synced: some file
    /// systems say only then that there is none.
    fn fill(&self, len: u64) -> io::Result<()> {
        let mut at = self.size()?;
        let zeros = vec![0; FILL_BYTES as usize];
        while at < len {
            let n = FILL_BYTES.min(len - at);
            self.write_at(at, &[IoSlice::new(&zeros[..n as usize])])?;
            at += n;
        }
        self.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nothing_can_be_reserved_zeros_are_written_behind_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let storage = RealStorage::open(dir.path()).unwrap();
        let file = RealFile(
            OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .open(storage.path.join("reserve-0"))
                .unwrap(),
        );
        file.write_at(0, &[IoSlice::new(b"kept")]).unwrap();
        let len = FILL_BYTES * 2 + 77;
        file.fill(len).unwrap();
        file.fill(len - 1).unwrap();
        assert_eq!(file.size().unwrap(), len);
        let mut all = vec![1; len as usize];
        assert_eq!(file.read_at(0, &mut all).unwrap() as u64, len);
        assert_eq!(&all[..4], b"kept");
        assert!(all[4..].iter().all(|octet| *octet == 0));
        let full = RealFile(OpenOptions::new().write(true).open("/dev/full").unwrap());
        assert_eq!(full.fill(len).unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
