//! sled 0.34 as the index. Its panics on damaged files are caught by whoever opens and reads it.
//!
//! sled's own batches are not used: each holds a lock that stops every reader of every sled in the process
//! until it is written, which is a tenth of a second on a busy node. See [`super::redo`] instead.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::filling::Filling;
use super::redo::Redo;
use super::{Batch, Index, IndexError};
use crate::blocking::Turns;

/// Handed to the operating system this often, and then cleaned up; what is younger comes from the redo file
/// after a kill.
const FLUSH_EVERY_MS: u64 = 2_000;

/// After so many rows of a batch it is looked whether others should have their turn.
const ROWS_PER_TURN: usize = 32;
/// A lock held for longer belongs to somebody else.
const LOCK_MAX: Duration = Duration::from_secs(5);

/// One sled directory with one tree.
pub(crate) struct SledIndex {
    db: sled::Db,
    tree: sled::Tree,
    /// Held while a batch is written: the order of what is kept is that of what is put in.
    redo: Mutex<Redo>,
    /// Held while rows are loaded.
    filling: Mutex<Filling>,
}

impl SledIndex {
    /// Opens or creates the directory.
    pub fn open(dir: &Path, cache_bytes: u64) -> Result<Self, IndexError> {
        let config = sled::Config::new()
            .path(dir)
            .cache_capacity(cache_bytes)
            .mode(sled::Mode::HighThroughput)
            .flush_every_ms(Some(FLUSH_EVERY_MS));
        let begin = Instant::now();
        let db = loop {
            match config.open() {
                Ok(db) => break db,
                // Why again: a database that was dropped lets go of its lock a little later.
                Err(sled::Error::Io(error))
                    if error.to_string().contains("lock") && begin.elapsed() < LOCK_MAX =>
                {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(error) => return Err(failed(error)),
            }
        };
        let tree = db.open_tree("rows").map_err(failed)?;
        let redo = Mutex::new(Redo::new(dir));
        let index = Self { db, tree, redo, filling: Mutex::default() };
        let left = index.redo().left()?;
        for batch in left {
            index.put(batch)?;
        }
        index.hand_over(&mut index.redo())?;
        Ok(index)
    }

    fn redo(&self) -> MutexGuard<'_, Redo> {
        self.redo.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn filling(&self) -> MutexGuard<'_, Filling> {
        self.filling.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish_loading(&self) -> Result<(), IndexError> {
        let mut filling = self.filling();
        self.put(filling.rest())
    }

    /// Everything goes to the operating system, and nothing has to be done again.
    fn hand_over(&self, redo: &mut Redo) -> Result<(), IndexError> {
        guarded(|| self.db.flush())?;
        redo.clear()
    }

    fn put(&self, batch: Batch) -> Result<(), IndexError> {
        let mut turns = Turns::begin();
        for (n, (key, value)) in batch.into_iter().enumerate() {
            guarded(|| match value {
                Some(value) => self.tree.insert(key, value),
                None => self.tree.remove(key),
            })?;
            if n % ROWS_PER_TURN == ROWS_PER_TURN - 1 {
                turns.pause();
            }
        }
        Ok(())
    }
}

impl Index for SledIndex {
    fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        let value = guarded(|| self.tree.get(key))?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), IndexError> {
        if from >= to {
            return Ok(());
        }
        let mut rows = self.tree.range(from..to);
        while let Some((key, value)) = guarded(|| rows.next().transpose())? {
            if !visit(&key, &value) {
                break;
            }
        }
        Ok(())
    }

    fn write(&self, batch: Batch) -> Result<(), IndexError> {
        let mut redo = self.redo();
        self.finish_loading()?;
        redo.keep(&batch)?;
        // Why the order is free: what is not put in when the process dies is done again.
        let mut filling = Filling::default();
        self.put(filling.next(batch))?;
        self.put(filling.rest())?;
        // Why not each time: it syncs.
        if redo.is_full() { self.hand_over(&mut redo) } else { Ok(()) }
    }

    fn load(&self, rows: Batch) -> Result<(), IndexError> {
        let mut filling = self.filling();
        self.put(filling.next(rows))
    }

    fn flush(&self) -> Result<(), IndexError> {
        self.finish_loading()?;
        self.hand_over(&mut self.redo())
    }
}

/// Why guarded: sled panics where its files are damaged.
fn guarded<T>(work: impl FnOnce() -> sled::Result<T>) -> Result<T, IndexError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => done.map_err(failed),
        Err(panic) => Err(IndexError(crate::state::words(&*panic))),
    }
}

fn failed(error: sled::Error) -> IndexError {
    IndexError(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sled_keeps_the_contract() {
        let dir = tempfile::tempdir().unwrap();
        crate::index::contract(&|| Box::new(SledIndex::open(dir.path(), 1 << 20).unwrap()));
    }

    /// A process killed between any two steps of a batch.
    #[test]
    fn a_batch_begun_is_finished_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let row = |key: u8, value: Option<u8>| (vec![key], value.map(|value| vec![value]));
        let before: Batch = (0..8).map(|key| row(key, Some(0))).collect();
        let batch: Batch = (0..8).map(|key| row(key, (key % 3 > 0).then_some(1))).collect();
        for n_done in 0..=batch.len() {
            let path = dir.path().join(n_done.to_string());
            let index = SledIndex::open(&path, 1 << 20).unwrap();
            index.write(before.clone()).unwrap();
            index.redo().keep(&batch).unwrap();
            index.put(batch[..n_done].to_vec()).unwrap();
            drop(index);
            for _second_start in [false, true] {
                let index = SledIndex::open(&path, 1 << 20).unwrap();
                for (key, value) in &batch {
                    assert_eq!(index.value(key).unwrap(), *value, "{n_done}");
                }
                assert!(index.redo().left().unwrap().is_empty(), "{n_done}");
            }
        }
    }

    /// A process killed after any batch: what it leaves is what the operating system has by then.
    #[test]
    fn no_batch_is_lost_with_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let index = SledIndex::open(&dir.path().join("index"), 1 << 20).unwrap();
        let mut rows = std::collections::BTreeMap::new();
        for step in 0..60_u32 {
            // Some of one row, and in all more than is kept.
            let n_rows = if step % 5 == 0 { 1 } else { 30 };
            let row = |n: u32| {
                let key = (step * 17 + n * 7) % 101;
                let value = (key % 3 != step % 3).then(|| vec![step as u8; 8_000]);
                (key.to_be_bytes().to_vec(), value)
            };
            let batch: Batch = (0..n_rows).map(row).collect();
            rows.extend(batch.clone());
            index.write(batch).unwrap();
            let left = dir.path().join(step.to_string());
            copy_tree(&dir.path().join("index"), &left);
            let after = SledIndex::open(&left, 1 << 20).unwrap();
            let differing = rows.iter().filter(|(key, row)| after.value(key).unwrap() != **row);
            assert_eq!(differing.count(), 0, "{step}");
        }
        assert!(index.redo().left().unwrap().len() < 59, "never handed over");
    }

    fn copy_tree(from: &Path, to: &Path) {
        std::fs::create_dir(to).unwrap();
        for item in std::fs::read_dir(from).unwrap() {
            let item = item.unwrap();
            match item.file_type().unwrap().is_dir() {
                true => copy_tree(&item.path(), &to.join(item.file_name())),
                false => drop(std::fs::copy(item.path(), to.join(item.file_name())).unwrap()),
            }
        }
    }

    #[test]
    fn rows_that_come_in_order_fill_the_leaves() {
        let dir = tempfile::tempdir().unwrap();
        let index = |name| SledIndex::open(&dir.path().join(name), 1 << 20).unwrap();
        let rows = |n: u32| -> Batch {
            let row = |n: u32| (n.to_be_bytes().to_vec(), Some(vec![0; 8]));
            (n * 1500..(n + 1) * 1500).map(row).collect()
        };
        let (loaded, written) = (index("loaded"), index("written"));
        for n in 0..40 {
            loaded.load(rows(n)).unwrap();
            written.put(rows(n)).unwrap();
        }
        loaded.flush().unwrap();
        written.flush().unwrap();
        let sizes = (loaded.db.size_on_disk().unwrap(), written.db.size_on_disk().unwrap());
        // Sizes are whole segments, so that this can be exactly four fifths.
        assert!(sizes.0 * 10 <= sizes.1 * 8, "{sizes:?}");
        let mut n_rows = 0;
        loaded
            .scan(&[0], &[1], &mut |_, _| {
                n_rows += 1;
                true
            })
            .unwrap();
        assert_eq!(n_rows, 60_000);
    }

    /// Killed while it was being kept: nothing of the batch is there, and nothing comes.
    #[test]
    fn a_batch_that_was_not_kept_whole_is_not_done() {
        let dir = tempfile::tempdir().unwrap();
        let first: Batch = vec![(vec![1], Some(vec![7; 100])), (vec![2], None)];
        let second: Batch = vec![(vec![3], Some(vec![8; 50]))];
        let mut redo = Redo::new(dir.path());
        redo.keep(&first).unwrap();
        redo.keep(&second).unwrap();
        assert_eq!(redo.left().unwrap(), [first.clone(), second]);
        let path = dir.path().join("redo");
        let whole = std::fs::read(&path).unwrap();
        let first_len = 4 + (8 + 1 + 100) + (8 + 1) + 32;
        for len in 0..whole.len() {
            std::fs::write(&path, &whole[..len]).unwrap();
            let expected: &[Batch] =
                if len < first_len { &[] } else { std::slice::from_ref(&first) };
            assert_eq!(redo.left().unwrap(), expected, "{len}");
        }
        let index = SledIndex::open(dir.path(), 1 << 20).unwrap();
        assert_eq!(index.value(&[1]).unwrap(), Some(vec![7; 100]));
        assert_eq!(index.value(&[3]).unwrap(), None);
    }
}
