//! The queue before the writer: bounded by bytes, never blocking whoever appends.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::encode::Prepared;
use crate::error::Error;
use crate::record::Written;
use crate::segment::Need;

/// Called once, from the writer, when the records are durable or refused.
pub type Done = Box<dyn FnOnce(Result<Vec<Written>, Error>) + Send>;
type Room = Box<dyn FnOnce() + Send>;

pub(crate) enum Request {
    /// Records that stay together in one frame.
    Records { records: Vec<Prepared>, disk_len: u64, need: Need, done: Done },
    /// Records that go with the next frame; nobody waits.
    Lazy { records: Vec<Prepared>, disk_len: u64 },
    /// Seal the open segment and begin another.
    Roll { done: Done },
}

impl Request {
    pub fn disk_len(&self) -> u64 {
        match self {
            Self::Records { disk_len, .. } | Self::Lazy { disk_len, .. } => *disk_len,
            Self::Roll { .. } => 0,
        }
    }
}

#[derive(Default)]
struct Inner {
    requests: VecDeque<Request>,
    /// Bytes waiting or being written.
    n_bytes: u64,
    closed: bool,
    waiting: Vec<Room>,
}

pub(crate) struct Queue {
    inner: Mutex<Inner>,
    wake: Condvar,
    bytes_max: u64,
}

/// What the writer found in the queue.
pub(crate) enum Taken {
    Requests(Vec<Request>),
    Idle,
    Closed,
}

impl Queue {
    pub fn new(bytes_max: u64) -> Self {
        Self { inner: Mutex::default(), wake: Condvar::new(), bytes_max }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn push(&self, request: Request) -> Result<(), Error> {
        let mut inner = self.lock();
        if inner.closed {
            return Err(Error::Closed);
        }
        // An empty queue takes any request, so that none is too large for ever.
        let n_bytes = inner.n_bytes + request.disk_len();
        if n_bytes > self.bytes_max && inner.n_bytes > 0 {
            return Err(Error::Overloaded);
        }
        inner.n_bytes = n_bytes;
        inner.requests.push_back(request);
        drop(inner);
        self.wake.notify_one();
        Ok(())
    }

    /// Everything that waits, or `Idle` after `patience`.
    pub fn take(&self, patience: Duration) -> Taken {
        let inner = self.lock();
        let is_quiet = |inner: &mut Inner| inner.requests.is_empty() && !inner.closed;
        let waited = self.wake.wait_timeout_while(inner, patience, is_quiet);
        let (mut inner, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if !inner.requests.is_empty() {
            return Taken::Requests(inner.requests.drain(..).collect());
        }
        if inner.closed { Taken::Closed } else { Taken::Idle }
    }

    /// Gives back the bytes of requests that were answered.
    pub fn release(&self, n_bytes: u64) {
        let mut inner = self.lock();
        inner.n_bytes = inner.n_bytes.saturating_sub(n_bytes);
        if inner.n_bytes > self.bytes_max / 2 {
            return;
        }
        let waiting = std::mem::take(&mut inner.waiting);
        drop(inner);
        waiting.into_iter().for_each(|room| room());
    }

    /// Calls back when at least half of the queue is free, at once if it is.
    pub fn when_room(&self, room: Room) {
        let mut inner = self.lock();
        if inner.n_bytes > self.bytes_max / 2 {
            inner.waiting.push(room);
            return;
        }
        drop(inner);
        room();
    }

    pub fn n_bytes(&self) -> u64 {
        self.lock().n_bytes
    }

    /// Requests that nobody took yet.
    pub fn n_waiting(&self) -> usize {
        self.lock().requests.len()
    }

    pub fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_all();
    }
}
