//! sled 0.34 as the index. Its panics on damaged files are caught by whoever opens and reads it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Batch, Index, IndexError};

/// Handed to the operating system this often; what is younger is replayed after a kill.
const FLUSH_EVERY_MS: u64 = 2_000;

/// A lock held for longer belongs to somebody else.
const LOCK_MAX: Duration = Duration::from_secs(5);

/// One sled directory with one tree.
pub(crate) struct SledIndex {
    db: sled::Db,
    tree: sled::Tree,
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
        Ok(Self { db, tree })
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
        let mut sled_batch = sled::Batch::default();
        for (key, value) in batch {
            match value {
                Some(value) => sled_batch.insert(key, value),
                None => sled_batch.remove(key),
            }
        }
        guarded(|| self.tree.apply_batch(sled_batch))
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
}
