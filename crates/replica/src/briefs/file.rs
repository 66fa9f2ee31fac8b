//! Briefs of one index in a file beside it, so that they outlive the process: of a mailbox with many
//! messages the first search after a start would read each of their rows otherwise.
//!
//! Only blocks to which nothing more comes are kept here. Metadata never change, so what is read after a
//! crash may tell of contents that are gone, and never anything else than their rows do. It is a cache of a
//! cache: never synced, and what does not read well is forgotten and made again. It goes with its index.
//!
//! ```text
//! file   8 format of briefs, then frames one behind the other
//! frame  25 name of a block   4 octets of it   4 packed   4 checksum of these   4 of the head   zstd
//! ```

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf, BufMut, Bytes};
use foldhash::fast::RandomState;
use mailbox::Block;

/// Limit: octets in the file. It holds what searches and threads read of some million messages. When it is
/// full it begins anew, once in a run, since it may be full of what is gone, and where most of it was
/// forgotten; else whoever goes through more than fits would write all of it again each time.
const BYTES_MAX: u64 = 64 << 20;
/// Limit: nothing is kept on a disk with less free space, which refuses growth.
const FREE_BYTES_MIN: u64 = 1 << 30;
/// Limit: octets of one block, twice of what `mailbox` makes.
const BLOCK_BYTES_MAX: u32 = 512 << 10;

const FORMAT_BYTES: u64 = 8;
const NAME_BYTES: usize = 25;
const HEAD_BYTES: usize = NAME_BYTES + 4 * 4;
/// The fastest; addresses and subjects of neighbours are much alike.
const LEVEL: i32 = 1;

/// The file of one store.
pub(super) struct BriefsFile {
    path: PathBuf,
    bytes_max: u64,
    free_bytes_min: u64,
    /// Held by whoever writes to the file, or begins another one.
    writing: Mutex<()>,
    /// Why never held while the disk is asked for anything: whoever commits forgets blocks.
    state: Mutex<State>,
}

enum State {
    /// Nothing was worth keeping yet.
    None,
    Open(Open),
    /// It cannot be used any more.
    Lost,
}

struct Open {
    file: Arc<File>,
    end: u64,
    places: HashMap<Block, Place, RandomState>,
    /// Octets of these.
    n_live: u64,
    /// It began anew in this run.
    is_renewed: bool,
}

/// Where a block lies, and what it is.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    at: u64,
    raw_len: u32,
    len: u32,
    crc: u32,
}

impl BriefsFile {
    /// What there is, as far as it is whole; it is made when there is something to keep.
    pub fn open(path: &Path) -> Self {
        Self::with_limits(path, BYTES_MAX, FREE_BYTES_MIN)
    }

    fn with_limits(path: &Path, bytes_max: u64, free_bytes_min: u64) -> Self {
        let state = match Open::read(path) {
            Ok(open) => State::Open(open),
            Err(error) if error.kind() == io::ErrorKind::NotFound => State::None,
            Err(_) => Open::anew(path).map_or(State::Lost, State::Open),
        };
        let (writing, state) = (Mutex::default(), Mutex::new(state));
        Self { path: path.into(), bytes_max, free_bytes_min, writing, state }
    }

    /// Whether a block is here.
    pub fn has(&self, block: &Block) -> bool {
        self.lock().open().is_some_and(|open| open.places.contains_key(block))
    }

    /// What was kept.
    pub fn get(&self, block: &Block) -> Option<Bytes> {
        let (file, place) = {
            let mut state = self.lock();
            let open = state.open()?;
            (open.file.clone(), *open.places.get(block)?)
        };
        let briefs = place.read(&file);
        if briefs.is_none() {
            self.forget(block);
        }
        briefs
    }

    /// Keeps a block.
    pub fn put(&self, block: &Block, briefs: &[u8]) {
        if !self.has_room() {
            return;
        }
        let Ok(packed) = zstd::bulk::compress(briefs, LEVEL) else { return };
        let crc = crc32c::crc32c(&packed);
        let (raw_len, len) = (briefs.len() as u32, packed.len() as u32);
        let mut frame = Vec::with_capacity(HEAD_BYTES + packed.len());
        frame.put_slice(&block.name());
        frame.put_u32(raw_len);
        frame.put_u32(len);
        frame.put_u32(crc);
        frame.put_u32(crc32c::crc32c(&frame));
        frame.put_slice(&packed);
        let _one_at_a_time = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let n_bytes = frame.len() as u64;
        self.make_room(n_bytes);
        let Some((file, end)) = self.lock().reserve(n_bytes, self.bytes_max) else { return };
        let written = file.write_all_at(&frame, end);
        let mut state = self.lock();
        if written.is_err() {
            // Why no matter: whoever asks makes them.
            *state = State::Lost;
        } else if let Some(open) = state.open() {
            open.note(*block, Place { at: end + HEAD_BYTES as u64, raw_len, len, crc });
        }
    }

    /// For so many octets more, for who has the lock `writing`.
    fn make_room(&self, n_bytes: u64) {
        let is_full = match &*self.lock() {
            State::None => false,
            State::Open(open) if open.end + n_bytes > self.bytes_max && open.is_worn_out() => true,
            State::Open(_) | State::Lost => return,
        };
        // Why another file: this one may be read meanwhile. Why only instead of one: the index may be
        // gone, and its files with it.
        let is_gone = if is_full { std::fs::remove_file(&self.path) } else { Ok(()) };
        let anew = is_gone.and_then(|()| Open::anew(&self.path));
        let anew = anew.map(|anew| Open { is_renewed: is_full, ..anew });
        let state = anew.map_or(State::Lost, State::Open);
        let before = std::mem::replace(&mut *self.lock(), state);
        // Why not before: whoever commits waits for the lock.
        drop(before);
    }

    /// A block is not true any more.
    pub fn forget(&self, block: &Block) {
        if let Some(open) = self.lock().open() {
            open.forget(block);
        }
    }

    fn has_room(&self) -> bool {
        let space = self.path.parent().and_then(|dir| rustix::fs::statvfs(dir).ok());
        let free_bytes = space.map(|space| space.f_bavail * space.f_frsize);
        free_bytes.is_some_and(|free_bytes| free_bytes >= self.free_bytes_min)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn open(&mut self) -> Option<&mut Open> {
        match self {
            Self::Open(open) => Some(open),
            Self::None | Self::Lost => None,
        }
    }

    /// A place for so many octets, if there is one.
    fn reserve(&mut self, n_bytes: u64, bytes_max: u64) -> Option<(Arc<File>, u64)> {
        let open = self.open().filter(|open| open.end + n_bytes <= bytes_max)?;
        let end = open.end;
        open.end += n_bytes;
        Some((open.file.clone(), end))
    }
}

impl Open {
    /// Without anything in it.
    fn anew(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
        file.write_all_at(&mailbox::briefs_format().to_be_bytes(), 0)?;
        Ok(Self::of(file))
    }

    fn of(file: File) -> Self {
        let (file, places) = (Arc::new(file), HashMap::default());
        Self { file, end: FORMAT_BYTES, places, n_live: 0, is_renewed: false }
    }

    fn note(&mut self, block: Block, place: Place) {
        self.forget(&block);
        self.n_live += place.n_bytes();
        self.places.insert(block, place);
    }

    fn forget(&mut self, block: &Block) {
        let place = self.places.remove(block);
        self.n_live -= place.map_or(0, |place| place.n_bytes());
    }

    /// Whether it may begin anew when it is full.
    fn is_worn_out(&self) -> bool {
        !self.is_renewed || self.n_live < self.end / 2
    }

    /// What an earlier process left, up to where it is not whole.
    fn read(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(path)?;
        let mut format = [0; FORMAT_BYTES as usize];
        file.read_exact_at(&mut format, 0)?;
        if format != mailbox::briefs_format().to_be_bytes() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let file_len = file.metadata()?.len();
        let mut this = Self::of(file);
        let mut head = [0; HEAD_BYTES];
        while this.file.read_exact_at(&mut head, this.end).is_ok()
            && let Some((block, place)) = Place::of(&head, this.end + HEAD_BYTES as u64)
            && this.end + place.n_bytes() <= file_len
        {
            this.end += place.n_bytes();
            this.note(block, place);
        }
        this.file.set_len(this.end)?;
        Ok(this)
    }
}

impl Place {
    fn of(head: &[u8; HEAD_BYTES], at: u64) -> Option<(Block, Self)> {
        let (name, mut rest) = head.split_first_chunk::<NAME_BYTES>()?;
        let (raw_len, len, crc) = (rest.get_u32(), rest.get_u32(), rest.get_u32());
        let is_whole = rest.get_u32() == crc32c::crc32c(&head[..HEAD_BYTES - 4]);
        let fits = raw_len <= BLOCK_BYTES_MAX && len <= BLOCK_BYTES_MAX;
        (is_whole && fits).then_some(())?;
        Some((Block::named(name)?, Self { at, raw_len, len, crc }))
    }

    /// Its frame.
    fn n_bytes(&self) -> u64 {
        HEAD_BYTES as u64 + u64::from(self.len)
    }

    fn read(&self, file: &File) -> Option<Bytes> {
        let mut packed = vec![0; self.len as usize];
        file.read_exact_at(&mut packed, self.at).ok()?;
        if crc32c::crc32c(&packed) != self.crc {
            return None;
        }
        let briefs = crate::view::decompress(&packed, self.raw_len as usize)?;
        (briefs.len() == self.raw_len as usize).then(|| briefs.into())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test that cannot go on says where.

    use super::*;

    fn block(n: u64) -> Block {
        // A key of metadata as `mailbox` writes it.
        let key = [&[8][..], &[1; 16], &[0x0f], &(n << 8).to_be_bytes()].concat();
        Block::changed_by(&key).unwrap()[0]
    }

    /// Whatever space the machine has.
    fn open(path: &Path) -> BriefsFile {
        BriefsFile::with_limits(path, BYTES_MAX, 0)
    }

    fn briefs(n: u64) -> Vec<u8> {
        n.to_string().into_bytes().repeat(1000)
    }

    #[test]
    fn what_was_kept_is_there_after_a_restart_unless_it_was_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("briefs");
        let file = open(&path);
        (0..10).for_each(|n| file.put(&block(n), &briefs(n)));
        file.put(&block(3), &briefs(33));
        file.forget(&block(4));
        assert_eq!(file.get(&block(4)), None);
        for again in [file, open(&path)] {
            for n in (0..10).filter(|n| *n != 4) {
                let wanted = briefs(if n == 3 { 33 } else { n });
                assert!(again.has(&block(n)));
                assert_eq!(again.get(&block(n)).unwrap(), wanted, "{n}");
            }
            assert!(!again.has(&block(10)));
        }
    }

    #[test]
    fn blocks_are_forgotten_and_read_while_others_are_written() {
        let dir = tempfile::tempdir().unwrap();
        let file = open(&dir.path().join("briefs"));
        (0..2).for_each(|n| file.put(&block(n), &briefs(n)));
        let writing = file.writing.lock().unwrap();
        std::thread::scope(|scope| {
            let (putting, file) = (scope.spawn(|| file.put(&block(2), &briefs(2))), &file);
            file.forget(&block(0));
            assert_eq!(file.get(&block(1)).unwrap(), briefs(1));
            assert!(!file.has(&block(0)) && !file.has(&block(2)));
            drop(writing);
            putting.join().unwrap();
        });
        assert_eq!(file.get(&block(2)).unwrap(), briefs(2));
    }

    #[test]
    fn what_is_not_whole_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("briefs");
        let file = open(&path);
        let ends: Vec<_> = (0..5)
            .map(|n| {
                file.put(&block(n), &briefs(n));
                file.lock().open().unwrap().end
            })
            .collect();
        let whole = std::fs::read(&path).unwrap();
        for len in 0..whole.len() {
            std::fs::write(&path, &whole[..len]).unwrap();
            let file = open(&path);
            let n_whole = ends.iter().filter(|end| **end <= len as u64).count() as u64;
            assert!((0..5).all(|n| file.has(&block(n)) == (n < n_whole)), "{len}");
            file.put(&block(7), &briefs(7));
            let again = open(&path);
            assert_eq!(again.get(&block(7)).unwrap(), briefs(7), "{len}");
            assert!((0..n_whole).all(|n| again.get(&block(n)).unwrap() == briefs(n)));
        }
    }

    #[test]
    fn no_octet_that_turned_over_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("briefs");
        let file = open(&path);
        (0..3).for_each(|n| file.put(&block(n), &briefs(n)));
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut turned = whole.clone();
            turned[at] ^= 1 << (at % 8);
            std::fs::write(&path, &turned).unwrap();
            let file = open(&path);
            for n in 0..3 {
                assert!(file.get(&block(n)).is_none_or(|found| found == briefs(n)), "{at}");
            }
            file.put(&block(1), &briefs(1));
            assert_eq!(file.get(&block(1)).unwrap(), briefs(1), "{at}");
        }
    }

    #[test]
    fn a_file_that_is_full_begins_anew_once_or_when_most_of_it_was_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("briefs");
        let file = BriefsFile::with_limits(&path, 10_000, 0);
        let put = |n: u64| {
            file.put(&block(n), &briefs(n));
            assert!(std::fs::metadata(&path).unwrap().len() <= 10_000);
            file.get(&block(n)).map(|found| assert_eq!(found, briefs(n))).is_some()
        };
        let there = || (0..1000).filter(|n| file.has(&block(*n))).collect::<Vec<_>>();
        let n_put = (0..1000).take_while(|n| put(*n)).count() as u64;
        let kept = there();
        assert!(n_put < 500 && kept.first() > Some(&0), "it began anew: {n_put}, {kept:?}");
        assert_eq!(kept.last(), Some(&(n_put - 1)));
        assert!(!put(999), "and does not again");
        let (some, others) = kept.split_at(kept.len() / 2 + 1);
        some.iter().for_each(|n| file.forget(&block(*n)));
        assert!(put(999) && there() == [999], "until most of it was forgotten");
        assert!(!others.is_empty());
    }

    #[test]
    fn a_disk_that_is_nearly_full_gets_nothing_more() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("briefs");
        BriefsFile::with_limits(&path, BYTES_MAX, 0).put(&block(1), &briefs(1));
        let file = BriefsFile::with_limits(&path, BYTES_MAX, u64::MAX);
        file.put(&block(2), &briefs(2));
        assert!(file.has(&block(1)) && !file.has(&block(2)));
    }

    #[test]
    fn where_nothing_can_be_kept_nothing_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let file = open(&dir.path().join("nowhere/briefs"));
        file.put(&block(1), &briefs(1));
        assert_eq!(file.get(&block(1)), None);
    }
}
