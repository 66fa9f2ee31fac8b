//! The way into a disk's journal, shared by the logs of all replicas on it.

use std::sync::{Arc, Mutex, PoisonError};

use journal::{Journal, Record, Written};
use tokio::sync::{oneshot, watch};

/// The journal, and who is told when it got poisoned.
pub(crate) struct Appender {
    pub journal: Journal,
    pub poisoned: watch::Sender<bool>,
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
            let (slot, this) = (done.clone(), Arc::downgrade(self));
            let once = move |result: Result<Vec<Written>, journal::Error>| {
                if let (Err(journal::Error::Poisoned { .. }), Some(this)) =
                    (&result, this.upgrade())
                {
                    this.poisoned.send_replace(true);
                }
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
                Err(error) => {
                    if self.journal.is_poisoned() {
                        self.poisoned.send_replace(true);
                    }
                    return Err(error);
                }
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
