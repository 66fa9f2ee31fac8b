//! What a power cut leaves of the files that are real: those beside the journal.
//!
//! This binary defines the C library's `fsync` and `fdatasync` itself. On a simulation's thread they
//! keep what was synced, contents and names; a power cut puts files back to that, or leaves them as
//! they are, as the dice fall. Names of one directory change in the order they were changed, so a cut
//! takes either all of them or none.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

thread_local! {
    static SYNCED: RefCell<Option<Synced>> = const { RefCell::new(None) };
}

type Names = BTreeMap<OsString, u64>;

/// What is synced below one directory; files by their inode.
#[derive(Default)]
struct Synced {
    root: PathBuf,
    contents: BTreeMap<u64, Vec<u8>>,
    names: BTreeMap<PathBuf, Names>,
}

impl Synced {
    fn note(&mut self, path: &Path) {
        let Ok(metadata) = fs::metadata(path) else { return };
        if metadata.is_dir() {
            self.names.insert(path.to_owned(), names(path));
        } else if let Ok(content) = fs::read(path) {
            self.contents.insert(metadata.ino(), content);
        }
    }

    /// One directory after the cut, and those below.
    fn cut(&mut self, dir: &Path, keep: &mut dyn FnMut() -> bool) {
        let now = names(dir);
        let before = self.names.get(dir).cloned().unwrap_or_default();
        let left = if now == before || keep() { &now } else { &before };
        for name in now.keys().filter(|name| dir.join(name).is_dir()) {
            self.cut(&dir.join(name), keep);
        }
        let mut files = Vec::new();
        for (name, inode) in left.iter().filter(|(name, _)| !dir.join(name).is_dir()) {
            let path = dir.join(name);
            let is_here = now.get(name) == Some(inode);
            let current = if is_here { fs::read(&path).ok() } else { None };
            let synced = self.contents.get(inode).cloned();
            let content = match (current, synced) {
                (Some(current), Some(synced)) if current == synced => current,
                (Some(current), _) if keep() => current,
                // Why empty: a name can be on the disk before any of its file's contents is.
                (_, synced) => synced.unwrap_or_default(),
            };
            files.push((path, content));
        }
        for name in now.keys().filter(|name| !dir.join(name).is_dir()) {
            drop(fs::remove_file(dir.join(name)));
        }
        for (path, content) in files {
            drop(fs::write(&path, content));
            self.note(&path);
        }
        self.note(dir);
    }

    fn all(&mut self, dir: &Path) {
        for name in names(dir).keys() {
            let path = dir.join(name);
            if path.is_dir() {
                self.all(&path);
            } else {
                self.note(&path);
            }
        }
        self.note(dir);
    }
}

fn names(dir: &Path) -> Names {
    let Ok(items) = fs::read_dir(dir) else { return Names::new() };
    let named = |item: fs::DirEntry| Some((item.file_name(), item.metadata().ok()?.ino()));
    items.flatten().filter_map(named).collect()
}

/// From now on this thread keeps what is synced of checkpoints below a directory.
pub fn watch(root: &Path) {
    SYNCED.set(Some(Synced { root: root.to_owned(), ..Synced::default() }));
}

/// The power of a machine is cut: of what lies in this directory only what was synced is left for
/// sure.
pub fn power_cut(dir: &Path, keep: &mut dyn FnMut() -> bool) {
    with(|synced| synced.cut(dir, keep));
}

/// All that is in this directory counts as synced.
pub fn settle(dir: &Path) {
    with(|synced| synced.all(dir));
}

fn with(change: impl FnOnce(&mut Synced)) {
    SYNCED.with_borrow_mut(|synced| synced.as_mut().map(change));
}

/// Notes a sync on a thread that watches. False on any other.
fn note(fd: libc::c_int) -> bool {
    let noted = SYNCED.try_with(|synced| {
        let Ok(mut synced) = synced.try_borrow_mut() else { return false };
        let Some(synced) = &mut *synced else { return false };
        // Why only these: an index is a cache that nobody counts on being synced.
        if let Ok(path) = fs::read_link(format!("/proc/self/fd/{fd}"))
            && path.starts_with(&synced.root)
            && path.components().any(|part| part.as_os_str() == "checkpoints")
        {
            synced.note(&path);
        }
        true
    });
    noted.unwrap_or(false)
}

/// Stands in the place of the C library's function.
#[unsafe(no_mangle)]
extern "C" fn fsync(fd: libc::c_int) -> libc::c_int {
    if note(fd) {
        return 0;
    }
    // SAFETY: any descriptor may be asked for; a bad one is an error.
    (unsafe { libc::syscall(libc::SYS_fsync, fd) }) as libc::c_int
}

/// Stands in the place of the C library's function.
#[unsafe(no_mangle)]
extern "C" fn fdatasync(fd: libc::c_int) -> libc::c_int {
    if note(fd) {
        return 0;
    }
    // SAFETY: any descriptor may be asked for; a bad one is an error.
    (unsafe { libc::syscall(libc::SYS_fdatasync, fd) }) as libc::c_int
}
