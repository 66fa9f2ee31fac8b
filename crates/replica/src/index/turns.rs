//! Whose turn it is to write much to an index: few at once on a disk, so that those who serve find a core.

use std::num::NonZero;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// So many may write at once.
pub(crate) struct Turns {
    n_free: Mutex<usize>,
    freed: Condvar,
}

/// Somebody's turn; it ends when this is dropped.
pub(crate) struct Turn<'t>(&'t Turns);

impl Default for Turns {
    /// Half of the cores: what waits gathers, and many changes of a row are written as one.
    fn default() -> Self {
        let n_cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self { n_free: Mutex::new((n_cores / 2).max(1)), freed: Condvar::new() }
    }
}

impl Turns {
    /// Waits for a turn: on a thread that may block.
    pub fn take(&self) -> Turn<'_> {
        let n_free = self.freed.wait_while(self.lock(), |n_free| *n_free == 0);
        *n_free.unwrap_or_else(PoisonError::into_inner) -= 1;
        Turn(self)
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        self.n_free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.lock() += 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test that cannot go on says where.

    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn no_more_write_at_once_than_may() {
        let turns = Turns { n_free: Mutex::new(2), freed: Condvar::new() };
        let (n_now, n_most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let _turn = turns.take();
                        n_most
                            .fetch_max(n_now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::yield_now();
                        n_now.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!((n_most.into_inner(), *turns.lock()), (2, 2));
    }
}
