//! Data directories that are mount points, where `require_mounts` says that they are: what lies below one
//! whose disk is away is no disk.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::config::Config;

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

/// Waits until what has to be mounted is, but not for ever.
pub(crate) async fn awaited(config: &Config) {
    let away = || -> Option<&PathBuf> {
        config.data_dirs.iter().find(|path| config.require_mounts && !is_mounted(path))
    };
    let Some(path) = away() else { return };
    tracing::warn!(path = %path.display(), "waiting for a disk to be mounted");
    let deadline = Instant::now() + PATIENCE;
    while away().is_some() && Instant::now() < deadline {
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
