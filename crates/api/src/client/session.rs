//! The identity that makes commands happen at most once: a session with the shard, opened through its
//! log, and ascending sequences within it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mailbox::{LogTime, SessionId};
use tokio::sync::Semaphore;

/// Limit: commands of one client at once in one shard; the shard keeps their outcomes meanwhile.
const COMMANDS_MAX: usize = 1024;

/// The session with one shard.
pub(super) struct Sessions {
    pub(super) current: tokio::sync::Mutex<Option<Arc<Session>>>,
    pub(super) permits: Semaphore,
}

impl Default for Sessions {
    fn default() -> Self {
        let permits = Semaphore::new(COMMANDS_MAX);
        Self { current: tokio::sync::Mutex::new(None), permits }
    }
}

pub(super) struct Session {
    pub(super) id: SessionId,
    /// Until then it may be opened, again as well. No request expires before it.
    ///
    /// Why: the shard drops a session only when all that was done in it has expired. So one that was
    /// dropped is not opened again, and whoever is told that a request expired knows that it was not done.
    pub(super) opens_until: LogTime,
    state: Mutex<State>,
}

struct State {
    next: u64,
    unanswered: BTreeSet<u64>,
}

/// One command's place in its session; dropped, nobody waits for its outcome any more.
pub(super) struct Ticket {
    pub(super) session: Arc<Session>,
    pub(super) sequence: u64,
    pub(super) lowest_unanswered: u64,
}

impl Session {
    pub(super) fn new(id: SessionId, opens_until: LogTime) -> Self {
        let state = State { next: 1, unanswered: BTreeSet::new() };
        Self { id, opens_until, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket {
    pub(super) fn new(session: Arc<Session>) -> Self {
        let mut state = session.state();
        let sequence = state.next;
        state.next += 1;
        state.unanswered.insert(sequence);
        let lowest_unanswered = state.unanswered.first().copied().unwrap_or(sequence);
        drop(state);
        Self { session, sequence, lowest_unanswered }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.session.state().unanswered.remove(&self.sequence);
    }
}

impl Sessions {
    /// This session is not known to the shard any more.
    pub(super) async fn forget(&self, session: &Arc<Session>) {
        let mut current = self.current.lock().await;
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, session)) {
            *current = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_is_the_lowest_sequence_somebody_waits_for() {
        let session = Arc::new(Session::new(SessionId([1; 16]), LogTime(0)));
        let first = Ticket::new(Arc::clone(&session));
        let second = Ticket::new(Arc::clone(&session));
        assert_eq!((first.sequence, first.lowest_unanswered), (1, 1));
        assert_eq!((second.sequence, second.lowest_unanswered), (2, 1));
        drop(first);
        let third = Ticket::new(Arc::clone(&session));
        assert_eq!((third.sequence, third.lowest_unanswered), (3, 2));
        drop((second, third));
        let fourth = Ticket::new(session);
        assert_eq!((fourth.sequence, fourth.lowest_unanswered), (4, 4));
    }
}
