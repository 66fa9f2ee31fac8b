//! An index that nobody waits for when it is let go of: what it still writes then, and what cleans up after
//! it, may wait for a disk that hangs.

use super::{Batch, Index, IndexError};

/// It is let go of by a thread of its own.
pub(crate) struct Leaving(Option<Box<dyn Index>>);

impl Leaving {
    /// Around another one.
    pub fn new(index: Box<dyn Index>) -> Self {
        Self(Some(index))
    }

    fn index(&self) -> &dyn Index {
        self.0.as_deref().expect("it is there until it is dropped")
    }
}

impl Index for Leaving {
    fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        self.index().value(key)
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), IndexError> {
        self.index().scan(from, to, visit)
    }

    fn write(&self, batch: Batch) -> Result<(), IndexError> {
        self.index().write(batch)
    }

    fn load(&self, rows: Batch) -> Result<(), IndexError> {
        self.index().load(rows)
    }

    fn flush(&self) -> Result<(), IndexError> {
        self.index().flush()
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let index = self.0.take();
        let leave = std::thread::Builder::new().name("close index".into());
        // Why the result is dropped: without a thread it is let go of here.
        drop(leave.spawn(move || drop(index)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_that_is_let_go_of_aside_keeps_the_contract() {
        let dir = tempfile::tempdir().unwrap();
        let open = || crate::index::open(dir.path(), 1 << 20).unwrap();
        crate::index::contract(&|| Box::new(Leaving::new(open())));
    }
}
