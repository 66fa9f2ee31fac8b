//! The way into a disk's journal, shared by the logs of all replicas on it.

use std::sync::{Arc, Mutex, PoisonError};

use journal::{Journal, Record, Written};
use tokio::sync::oneshot;

use crate::apart::Apart;

/// The journal, with patience.
pub(crate) struct Appender {
    pub journal: Journal,
    /// How what lies in it is read.
    pub apart: Apart,
}

impl Appender {
    /// Queues records, waiting for room if there is none. `done` is called when they are synced.
    pub async fn append(
        self: &Arc<Self>,
        records: Vec<Record>,
        done: impl FnOnce(Result<Vec<Written>, journal::Error>) + Send + 'static,
    ) -> Result<(), journal::Error> {
        let done = Arc::new(Mutex::new(Some(done)));
        loop {
            let slot = done.clone();
            let once = move |result: Result<Vec<Written>, journal::Error>| {
                let done = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(done) = done {
                    done(result);
                }
            };
            match self.journal.append(records.clone(), Box::new(once)) {
                Err(journal::Error::Overloaded) => {
                    let (sender, receiver) = oneshot::channel();
                    self.journal.when_room(Box::new(move || _ = sender.send(())));
                    drop(receiver.await);
                }
                Err(error) => return Err(error),
                Ok(()) => break,
            }
        }
        Ok(())
    }

    /// Appends, waiting for room if there is none, and waits for the sync.
    pub async fn append_patiently(
        self: &Arc<Self>,
        records: Vec<Record>,
    ) -> Result<Vec<Written>, journal::Error> {
        let (sender, receiver) = oneshot::channel();
        self.append(records, move |result| drop(sender.send(result))).await?;
        receiver.await.unwrap_or(Err(journal::Error::Closed))
    }

    /// Appends and waits for the sync.
    pub async fn append_synced(
        &self,
        records: Vec<Record>,
    ) -> Result<Vec<Written>, journal::Error> {
        let (sender, receiver) = oneshot::channel();
        self.journal.append(records, Box::new(move |result| drop(sender.send(result))))?;
        receiver.await.unwrap_or(Err(journal::Error::Closed))
    }
}
