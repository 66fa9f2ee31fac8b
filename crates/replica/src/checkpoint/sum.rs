//! The rows of base and deltas added up, some at a time: each file may be as it was written, and yet one be
//! missing a row that changed.

use std::io;

use mailbox::RowDigest;

use super::{Checkpoint, Merged};

/// What some rows of a checkpoint add up to.
pub(crate) struct Sum {
    rows: Merged,
    digest: RowDigest,
    all: RowDigest,
}

impl Sum {
    /// Of none yet.
    pub fn begin(checkpoint: &Checkpoint) -> io::Result<Self> {
        let rows = Merged::new(checkpoint.parts())?;
        Ok(Self { rows, digest: RowDigest::default(), all: checkpoint.applied().digest })
    }

    /// Adds so many rows more, and gives their bytes; 0 at the end.
    pub fn step(&mut self, n_rows: usize) -> io::Result<u64> {
        let mut n_bytes = 0;
        for row in self.rows.by_ref().take(n_rows) {
            let (key, value) = row?;
            self.digest.add(&key, &value);
            n_bytes += (key.len() + value.len()) as u64;
        }
        Ok(n_bytes)
    }

    /// Whether it is what all should add up to.
    pub fn is_right(&self) -> bool {
        self.digest == self.all
    }
}
