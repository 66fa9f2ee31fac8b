//! sled 0.34 as the index. Its panics on damaged files are caught by whoever opens and reads it.
//!
//! sled's own batches are not used: each holds a lock that stops every reader of every sled in the process
//! until it is written, which is a tenth of a second on a busy node. See [`super::redo`] instead.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use super::redo::Redo;
use super::{Batch, Index, IndexError};

/// Handed to the operating system this often; what is younger is replayed after a kill.
const FLUSH_EVERY_MS: u64 = 2_000;

/// After so many rows of a batch others get their turn.
const ROWS_PER_TURN: usize = 32;
/// A lock held for longer belongs to somebody else.
const LOCK_MAX: Duration = Duration::from_secs(5);

/// One sled directory with one tree.
pub(crate) struct SledIndex {
    db: sled::Db,
    tree: sled::Tree,
    redo: Redo,
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
        let index = Self { db, tree, redo: Redo::new(dir) };
        if let Some(batch) = index.redo.left()? {
            index.put(batch)?;
            index.redo.clear()?;
        }
        Ok(index)
    }

    fn put(&self, batch: Batch) -> Result<(), IndexError> {
        for (n, (key, value)) in batch.into_iter().enumerate() {
            guarded(|| match value {
                Some(value) => self.tree.insert(key, value),
                None => self.tree.remove(key),
            })?;
            if n % ROWS_PER_TURN == ROWS_PER_TURN - 1 {
                std::thread::yield_now();
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
        if batch.len() > 1 {
            self.redo.keep(&batch)?;
            self.put(batch)?;
            self.redo.clear()
        } else {
            self.put(batch)
        }
    }

    fn load(&self, rows: Batch) -> Result<(), IndexError> {
        self.put(rows)
    }

    fn flush(&self) -> Result<(), IndexError> {
        self.db.flush().map(drop).map_err(failed)
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
            index.redo.keep(&batch).unwrap();
            index.put(batch[..n_done].to_vec()).unwrap();
            drop(index);
            for _second_start in [false, true] {
                let index = SledIndex::open(&path, 1 << 20).unwrap();
                for (key, value) in &batch {
                    assert_eq!(index.value(key).unwrap(), *value, "{n_done}");
                }
                assert!(index.redo.left().unwrap().is_none(), "{n_done}");
            }
        }
    }

    /// Killed while it was being kept: nothing of the batch is there, and nothing comes.
    #[test]
    fn a_batch_that_was_not_kept_whole_is_not_done() {
        let dir = tempfile::tempdir().unwrap();
        let batch: Batch = vec![(vec![1], Some(vec![7; 100])), (vec![2], None)];
        let redo = Redo::new(dir.path());
        redo.keep(&batch).unwrap();
        assert_eq!(redo.left().unwrap(), Some(batch));
        let path = dir.path().join("redo");
        let whole = std::fs::read(&path).unwrap();
        for len in 0..whole.len() {
            std::fs::write(&path, &whole[..len]).unwrap();
            assert_eq!(redo.left().unwrap(), None, "{len}");
        }
        let index = SledIndex::open(dir.path(), 1 << 20).unwrap();
        assert_eq!(index.value(&[1]).unwrap(), None);
    }
}
