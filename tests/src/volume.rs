//! A small file system of a test's own, in a file: it can be full, and lose power.

use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::inside::system;
use crate::skip::skipped;
use crate::wait;

/// What takes all the space.
const BALLAST: &str = "lost+found/ballast";
/// What a file takes at least.
const BLOCK_BYTES: u64 = 4096;
/// EXT4_IOC_SHUTDOWN of Linux (fs/ext4/ext4.h), `_IOR('X', 125, __u32)`.
const SHUTDOWN: libc::Ioctl = 0x8004_587d;
/// EXT4_GOING_FLAGS_NOLOGFLUSH: what was not synced is gone.
const NO_LOG_FLUSH: u32 = 2;
/// The dead let go of their files within this time.
const UNMOUNTED: Duration = Duration::from_secs(10);

/// One ext4 file system, mounted. Only in mounts of the test's own.
pub struct Volume {
    image: PathBuf,
    at: PathBuf,
}

impl Volume {
    /// Makes one and mounts it. `None`, and says why, where that is not allowed.
    pub fn make(image: &Path, at: &Path, size_bytes: u64) -> Result<Option<Self>> {
        File::create(image)?.set_len(size_bytes)?;
        fs::create_dir_all(at)?;
        let volume = Self { image: image.to_owned(), at: at.to_owned() };
        let path = image.to_string_lossy();
        // No blocks reserved for root, who runs the test where this works.
        let made = system("mkfs.ext4", &["-q", "-m", "0", "-E", "lazy_itable_init=1", &path]);
        if let Err(error) = made.and_then(|_| volume.mount()) {
            skipped(format!("no file system of a test's own here: {error:#}"));
            return Ok(None);
        }
        Ok(Some(volume))
    }

    /// One for each of these nodes, at `DIR/disks/NODE/disk1`.
    pub fn make_for(dir: &Path, nodes: &[&str], size_bytes: u64) -> Result<Option<Vec<Self>>> {
        let mut all = Vec::new();
        for node in nodes {
            let at = dir.join("disks").join(node).join("disk1");
            let Some(made) = Self::make(&dir.join(format!("{node}.img")), &at, size_bytes)? else {
                return Ok(None);
            };
            all.push(made);
        }
        Ok(Some(all))
    }

    fn mount(&self) -> Result<()> {
        let (image, at) = (self.image.to_string_lossy(), self.at.to_string_lossy());
        system("mount", &["-o", "loop", &image, &at]).map(|_| ())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// What may still be written.
    pub fn free_bytes(&self) -> Result<u64> {
        let said = system("df", &["-B1", "--output=avail", &self.at.to_string_lossy()])?;
        let number = said.lines().last().context("df says nothing")?;
        Ok(number.trim().parse()?)
    }

    /// Takes all space but so much.
    pub fn fill(&self, leave_bytes: u64) -> Result<()> {
        let ballast = File::create(self.at.join(BALLAST))?;
        let (mut end, mut most) = (0, u64::MAX);
        loop {
            let take = self.free_bytes()?.saturating_sub(leave_bytes).min(most);
            if take < BLOCK_BYTES {
                return Ok(());
            }
            // SAFETY: posix_fallocate(3) takes a descriptor that is open, and two numbers.
            match unsafe { libc::posix_fallocate(ballast.as_raw_fd(), end as i64, take as i64) } {
                0 => end += take,
                // The file's own table of blocks takes some.
                libc::ENOSPC => most = take / 2,
                error => bail!("fill: {}", std::io::Error::from_raw_os_error(error)),
            }
        }
    }

    /// Gives the space back.
    pub fn relieve(&self) -> Result<()> {
        Ok(fs::remove_file(self.at.join(BALLAST))?)
    }

    /// Everything written so far is safe, whoever wrote it.
    pub fn sync(&self) -> Result<()> {
        system("sync", &["--file-system", &self.at.to_string_lossy()]).map(|_| ())
    }

    /// What was not synced is gone, and nothing can be read or written.
    pub fn lose_power(&self) -> Result<()> {
        let root = File::open(&self.at)?;
        let how: u32 = NO_LOG_FLUSH;
        // SAFETY: this ioctl reads one u32 that lives across the call.
        let gone = unsafe { libc::ioctl(root.as_raw_fd(), SHUTDOWN, &raw const how) };
        ensure!(gone == 0, "shut {} down: {}", self.at.display(), std::io::Error::last_os_error());
        Ok(())
    }

    /// Power is back. Nobody may have files open.
    pub fn get_power(&self) -> Result<()> {
        let at = self.at.to_string_lossy();
        wait::until(UNMOUNTED, "unmounted", || system("umount", &[&at]))?;
        self.mount()
    }
}
