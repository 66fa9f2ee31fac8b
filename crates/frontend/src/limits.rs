//! How many connections there may be, in all, from one address and for one account; and how long who gives
//! wrong passwords waits for the answer.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

pub(crate) use api::counter::{Counted, Counter, Origin};
use mailbox::{AccountId, ShardId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Limit: searches and the like of one account that are under way at once, each of which may keep a core
/// of a node busy for seconds; a client has one or two.
pub(crate) const SEARCHES_MAX: usize = 3;
/// Limit: lists of all mailboxes of one account that are asked for at once. Each is over in milliseconds but
/// for huge trees; the few connections of a client list when they begin.
pub(crate) const LISTINGS_MAX: usize = 3;
/// Limit: sessions that look at once what changed in a shard while news were lost: at a new leader all that
/// watch want to, and they may be thousands, none of which has a client that waits for it.
pub(crate) const GAPS_MAX: usize = 16;

/// Lines by key: so many of each are served at once, the others wait their turn.
pub(crate) struct Turns<K> {
    lines: Mutex<HashMap<K, Arc<Semaphore>>>,
    n_at_once: usize,
}

/// A place in a line, or at its head; until it is dropped.
pub(crate) struct Turn<K: Hash + Eq + Copy> {
    turns: Arc<Turns<K>>,
    key: K,
    line: Option<Arc<Semaphore>>,
    served: Option<OwnedSemaphorePermit>,
}

impl<K: Hash + Eq + Copy> Turns<K> {
    pub(crate) fn new(n_at_once: usize) -> Arc<Self> {
        Arc::new(Self { lines: Mutex::default(), n_at_once })
    }

    /// Waits until it is this one's turn.
    pub(crate) async fn turn(self: &Arc<Self>, key: K) -> Turn<K> {
        let line = {
            let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            let line = lines.entry(key).or_insert_with(|| Arc::new(Semaphore::new(self.n_at_once)));
            Arc::clone(line)
        };
        // Why before the wait: who gives it up leaves the line too.
        let mut turn =
            Turn { turns: Arc::clone(self), key, line: Some(Arc::clone(&line)), served: None };
        turn.served = line.acquire_owned().await.ok();
        turn
    }
}

impl<K: Hash + Eq + Copy> Drop for Turn<K> {
    fn drop(&mut self) {
        let mut lines = self.turns.lines.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.served.take());
        drop(self.line.take());
        // Nobody else is in the line, and nobody can enter it meanwhile.
        if lines.get(&self.key).is_some_and(|line| Arc::strong_count(line) == 1) {
            lines.remove(&self.key);
        }
    }
}

/// All limits of a frontend.
pub(crate) struct Limits {
    pub(crate) addresses: Arc<Counter<Origin>>,
    /// Where everybody's connections come from.
    pub(crate) servers: Arc<Counter<Origin>>,
    /// Where mail comes from.
    pub(crate) mtas: Arc<Counter<Origin>>,
    pub(crate) accounts: Arc<Counter<AccountId>>,
    /// Questions for which whole mailboxes are looked through.
    pub(crate) searches: Arc<Turns<AccountId>>,
    /// Questions for all names of an account, which do not wait for its searches.
    pub(crate) listings: Arc<Turns<AccountId>>,
    /// Those that are asked after news were lost.
    pub(crate) gaps: Arc<Turns<ShardId>>,
}

impl Limits {
    /// Counts a mail client's connection from here. Loopback has a limit of its own: webmail comes from
    /// there for everybody.
    pub(crate) fn connected(&self, from: IpAddr) -> Option<Counted<Origin>> {
        let counter = if from.is_loopback() { &self.servers } else { &self.addresses };
        counter.enter(from.into())
    }

    /// Counts an MTA's. One Postfix takes 20 by itself and keeps them for the next message; who is turned
    /// away puts off all its mail for minutes.
    pub(crate) fn delivers(&self, from: IpAddr) -> Option<Counted<Origin>> {
        self.mtas.enter(from.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_for_a_turn_gets_it_when_one_before_is_gone() {
        let turns = Turns::new(1);
        let first = turns.turn(1).await;
        let mut second = Box::pin(turns.turn(1));
        assert!(futures_util::poll!(&mut second).is_pending());
        assert!(futures_util::poll!(Box::pin(turns.turn(1))).is_pending(), "it gives up");
        drop(turns.turn(2).await);
        drop(first);
        drop(second.await);
        assert!(turns.lines.lock().unwrap().is_empty(), "nothing is left of it");
    }

    #[test]
    fn only_mail_clients_are_counted_by_address() {
        let limits = Limits {
            addresses: Counter::new(2),
            servers: Counter::new(100),
            mtas: Counter::new(100),
            accounts: Counter::new(2),
            searches: Turns::new(SEARCHES_MAX),
            listings: Turns::new(LISTINGS_MAX),
            gaps: Turns::new(GAPS_MAX),
        };
        let [far, near] = ["192.0.2.1", "127.0.0.1"].map(|text| text.parse().unwrap());
        let n_taken = |enter: &dyn Fn() -> Option<Counted<Origin>>| {
            (0..50).map(|_| enter()).collect::<Vec<_>>().into_iter().flatten().count()
        };
        assert_eq!(n_taken(&|| limits.connected(far)), 2);
        assert_eq!(n_taken(&|| limits.connected(near)), 50);
        assert_eq!(n_taken(&|| limits.delivers(far)), 50);
    }
}
