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
    /// By client.
    done: Vec<Done>,
}

/// What one client got done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Done {
    /// Operations that were acknowledged.
    pub n_acknowledged: u64,
    /// Those among them that change something.
    pub n_changed: u64,
    /// Changes that were asked for and not acknowledged.
    pub n_failed: u64,
}

impl Done {
    fn count(&mut self, event: &Event) {
        let is_change = !matches!(event.operation, Operation::Read { .. });
        let is_done = matches!(event.verdict, Verdict::Acknowledged { .. });
        self.n_acknowledged += u64::from(is_done);
        self.n_changed += u64::from(is_change && is_done);
        self.n_failed += u64::from(is_change && !is_done);
    }
}

impl Recorder {
    /// Begins a history, in this file if there is to be one.
    pub fn begin(file: Option<&Path>) -> Result<Self> {
        let create =
            |path: &Path| File::create(path).with_context(|| format!("create {}", path.display()));
        let file = file.map(create).transpose()?;
        let state = State { file, history: History::default(), done: Vec::new() };
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
        if let Record::Event(event) = &record {
            let client = event.client as usize;
            if state.done.len() <= client {
                state.done.resize(client + 1, Done::default());
            }
            state.done[client].count(event);
        }
        state.history.records.push(record);
    }

    /// One more operation that ends now.
    pub fn event(&self, by: (u32, &str), start_us: u64, operation: Operation, verdict: Verdict) {
        let (client, account) = (by.0, by.1.to_owned());
        let end_us = self.now_us();
        self.record(Record::Event(Event { client, account, start_us, end_us, operation, verdict }));
    }

    /// What a client got done so far.
    pub fn done(&self, client: u32) -> Done {
        self.lock().done.get(client as usize).copied().unwrap_or_default()
    }

    /// Everything so far; it is no longer kept here, since it may be most of what a drill has in memory.
    pub fn take_history(&self) -> History {
        std::mem::take(&mut self.lock().history)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_is_in_memory_once() {
        let recorder = Recorder::begin(None).unwrap();
        let operation = Operation::Read { mailbox: "INBOX".into() };
        recorder.event((3, "anna"), 1, operation, Verdict::Refused { why: "no".into() });
        assert_eq!(recorder.take_history().records.len(), 1);
        assert_eq!(recorder.take_history(), History::default());
    }
}
