//! Work that blocks its thread: done on one kept for that, or in a simulation here and now.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How blocking work is done; follows [`journal::Options::threaded`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Blocking {
    pub is_threaded: bool,
}

impl Blocking {
    /// Does it; an error only if it panicked.
    pub async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        if self.is_threaded {
            return tokio::task::spawn_blocking(work).await.map_err(io::Error::other);
        }
        let done = catch_unwind(AssertUnwindSafe(work));
        done.map_err(|panic| io::Error::other(crate::state::words(&*panic)))
    }
}
