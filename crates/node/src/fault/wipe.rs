//! A disk that comes back empty: marked while the node runs, emptied before the node opens it again.

use std::fs;
use std::io;
use std::path::Path;

/// Beside the label; while it is there, the directory's content is as good as gone.
const MARK: &str = "rookery-disk.wipe";

/// Marks a data directory.
pub(super) fn mark(dir: &Path) -> io::Result<()> {
    fs::write(dir.join(MARK), b"a drill asked for it\n")
}

/// Empties data directories that are marked.
pub(crate) fn wipe_marked<'a>(dirs: impl Iterator<Item = &'a Path>) -> io::Result<()> {
    for dir in dirs.filter(|dir| dir.join(MARK).exists()) {
        tracing::warn!(path = %dir.display(), "disk wiped for a drill");
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            // The mark goes last: a crash here leaves a disk that is wiped at the next start.
            if path.ends_with(MARK) {
                continue;
            }
            if path.is_dir() { fs::remove_dir_all(&path)? } else { fs::remove_file(&path)? }
        }
        fs::remove_file(dir.join(MARK))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_marked_is_emptied() {
        let (kept, gone) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for dir in [&kept, &gone] {
            fs::create_dir_all(dir.path().join("disk/journal")).unwrap();
            fs::write(dir.path().join("disk/journal/1"), b"mail").unwrap();
            fs::write(dir.path().join("rookery-disk.toml"), b"label").unwrap();
        }
        mark(gone.path()).unwrap();
        wipe_marked([kept.path(), gone.path()].into_iter()).unwrap();
        assert_eq!(fs::read_dir(kept.path()).unwrap().count(), 2);
        assert_eq!(fs::read_dir(gone.path()).unwrap().count(), 0);
    }
}
