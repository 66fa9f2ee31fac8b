//! Data directories whose disk is away: what lies below its mount point is no disk. `require_mounts` says
//! that each is a mount point.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use crate::config::Config;
use crate::disks;

/// How long a start waits for disks to be mounted: longer than a controller takes to find its disks after the
/// power came back, and shorter than anybody waits before he looks. A disk that comes later counts as lost.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often to look.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Whether a file system is mounted on a directory; true as well where that cannot be told, since whoever
/// opens it says what is wrong.
pub(crate) fn is_mounted(path: &Path) -> bool {
    let device = |of: &Path| fs::metadata(of).map(|found| found.dev());
    // Why the dots: of a link the parent is that of what it leads to.
    match (device(path), device(&path.join(".."))) {
        (Ok(own), Ok(above)) => own != above,
        _ => true,
    }
}

/// Why the disk of a directory counts as away, in words that say what to do.
pub(crate) const NOT_MOUNTED: &str =
    "no file system is mounted there: mount its disk, or set require_mounts = false";
pub(crate) const MISSING: &str =
    "it is not there, or not the node's to write to: mount its disk, or make it";

/// The first directory whose disk is away.
fn first_away(config: &Config) -> Option<PathBuf> {
    let is_away = |path: &&PathBuf| {
        let is_below = config.require_mounts && !is_mounted(path);
        is_below || (disks::is_member(config) && disks::is_missing(path, &config.name))
    };
    config.data_dirs.iter().find(is_away).cloned()
}

/// Waits until what has to be mounted is, but not for ever.
pub(crate) async fn awaited(config: &Config) {
    let deadline = Instant::now() + PATIENCE;
    let mut is_told = false;
    loop {
        let of = config.clone();
        let look = tokio::task::spawn_blocking(move || first_away(&of));
        // Why no longer than that: of a disk that hangs whoever opens it finds out.
        let Ok(Ok(Some(path))) = timeout_at(deadline, look).await else { return };
        if !is_told {
            tracing::warn!(path = %path.display(), "waiting for a disk to be mounted");
            is_told = true;
        }
        if Instant::now() >= deadline {
            return;
        }
        sleep(LOOK_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mounted_is_told_from_what_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/proc", &link).unwrap();
        assert!(is_mounted(Path::new("/proc")));
        assert!(is_mounted(&link));
        let away = dir.path().join("away");
        assert!(is_mounted(&away), "whoever reads it says that it is not there");
        fs::create_dir(&away).unwrap();
        assert!(!is_mounted(&away));
    }
}
