//! Work that blocks its thread: done on one kept for that, or in a simulation here and now.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Niceness of what gives way: it gets a tenth of a core that others want, and all of one that nobody wants.
const ASIDE_NICE: i32 = 10;

/// So long a thread that has much to do runs, and so long it sleeps then.
///
/// Why sleep: one that only yields has its core for itself as long as nobody else waits for that one, however
/// many wait for another. A core that falls idle takes over from those. On two cores one such thread stopped
/// everybody else for a tenth of a second.
const TURN: Duration = Duration::from_millis(2);
pub(crate) const BETWEEN_TURNS: Duration = Duration::from_micros(100);

/// The turns of a thread that has much to do.
pub(crate) struct Turns {
    began: Instant,
}

impl Turns {
    /// The first turn begins.
    pub fn begin() -> Self {
        Self { began: Instant::now() }
    }

    /// Lets others go first if it is time.
    pub fn pause(&mut self) {
        if self.began.elapsed() >= TURN {
            std::thread::sleep(BETWEEN_TURNS);
            self.began = Instant::now();
        }
    }
}

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

    /// Does it in a thread of its own that gives way to all others: much work that nobody waits for.
    pub async fn run_aside<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        if !self.is_threaded {
            return self.run(work).await;
        }
        let (done, told) = tokio::sync::oneshot::channel();
        // Why the result is dropped: whoever wanted it may have been cancelled.
        aside(move || drop(done.send(work())))?;
        told.await.map_err(io::Error::other)
    }

    /// Does it, and nobody waits; in a simulation it is done when this returns.
    pub fn begin(self, work: impl FnOnce() + Send + 'static) {
        if self.is_threaded {
            drop(tokio::task::spawn_blocking(work));
        } else {
            // Why the result is dropped: whoever looks for what was to be done sees that it is not.
            drop(catch_unwind(AssertUnwindSafe(work)));
        }
    }
    /// Does it in a thread of its own that gives way to all others, and nobody waits; in a simulation it is
    /// done when this returns.
    ///
    /// Why a thread each time: what gave way once cannot take precedence again without a privilege.
    pub fn begin_aside(self, work: impl FnOnce() + Send + 'static) {
        if !self.is_threaded {
            return self.begin(work);
        }
        let work = Arc::new(Mutex::new(Some(work)));
        let take =
            |from: &Mutex<Option<_>>| from.lock().unwrap_or_else(PoisonError::into_inner).take();
        let there = work.clone();
        let begun = aside(move || {
            if let Some(work) = take(&there) {
                work();
            }
        });
        // Why: a process that may have no more threads has some that wait for work.
        if begun.is_err()
            && let Some(work) = take(&work)
        {
            self.begin(work);
        }
    }
}

/// Begins work in a thread of its own that gives way to all others.
pub(crate) fn aside(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name("aside".into()).spawn(move || {
        // Why the result is dropped: where it may not give way it is done all the same.
        let _ = rustix::process::setpriority_process(None, ASIDE_NICE);
        work();
    })?;
    Ok(())
}
