//! Writes a history while it happens: to a file at once, and to memory for the judge.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::history::{Event, History, Operation, Record, Verdict};

/// One history in the making.
pub(crate) struct Recorder {
    began: Instant,
    state: Mutex<State>,
}

struct State {
    file: Option<File>,
    history: History,
    n_acknowledged: Vec<u64>,
}

impl Recorder {
    /// Begins a history, in this file if there is to be one.
    pub fn begin(file: Option<&Path>) -> Result<Self> {
        let create =
            |path: &Path| File::create(path).with_context(|| format!("create {}", path.display()));
        let file = file.map(create).transpose()?;
        let state = State { file, history: History::default(), n_acknowledged: Vec::new() };
        Ok(Self { began: Instant::now(), state: Mutex::new(state) })
    }

    /// What time it is in this history, in microseconds.
    pub fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// One more record. A history that cannot be written any more is still judged from memory.
    pub fn record(&self, record: Record) {
        let mut line = serde_json::to_vec(&record).unwrap_or_default();
        line.push(b'\n');
        let mut state = self.lock();
        if let Some(Err(error)) = state.file.as_mut().map(|file| file.write_all(&line)) {
            tracing::warn!(%error, "history not written any more");
            state.file = None;
        }
        if let Record::Event(Event { client, verdict: Verdict::Acknowledged { .. }, .. }) = &record
        {
            let client = *client as usize;
            if state.n_acknowledged.len() <= client {
                state.n_acknowledged.resize(client + 1, 0);
            }
            state.n_acknowledged[client] += 1;
        }
        state.history.records.push(record);
    }

    /// One more operation that ends now.
    pub fn event(&self, by: (u32, &str), start_us: u64, operation: Operation, verdict: Verdict) {
        let (client, account) = (by.0, by.1.to_owned());
        let end_us = self.now_us();
        self.record(Record::Event(Event { client, account, start_us, end_us, operation, verdict }));
    }

    /// How many operations of each client were acknowledged so far.
    pub fn acknowledged(&self, client: u32) -> u64 {
        self.lock().n_acknowledged.get(client as usize).copied().unwrap_or(0)
    }

    /// Everything so far.
    pub fn history(&self) -> History {
        self.lock().history.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
