//! How many connections there may be, in all, from one address and for one account.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use mailbox::AccountId;

/// Counts by key up to a limit.
pub(crate) struct Counter<K> {
    counts: Mutex<HashMap<K, u32>>,
    max: u32,
}

/// One that is counted, until it is dropped.
pub(crate) struct Counted<K: Hash + Eq + Copy> {
    counter: Arc<Counter<K>>,
    key: K,
}

impl<K: Hash + Eq + Copy> Counter<K> {
    pub(crate) fn new(max: u32) -> Arc<Self> {
        Arc::new(Self { counts: Mutex::default(), max })
    }

    /// One more, unless there are too many.
    pub(crate) fn enter(self: &Arc<Self>, key: K) -> Option<Counted<K>> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(key).or_default();
        if *count >= self.max {
            return None;
        }
        *count += 1;
        Some(Counted { counter: Arc::clone(self), key })
    }
}

impl<K: Hash + Eq + Copy> Drop for Counted<K> {
    fn drop(&mut self) {
        let mut counts = self.counter.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

/// All limits of a frontend.
pub(crate) struct Limits {
    pub(crate) addresses: Arc<Counter<IpAddr>>,
    /// Where everybody's connections come from.
    pub(crate) servers: Arc<Counter<IpAddr>>,
    pub(crate) accounts: Arc<Counter<AccountId>>,
}

impl Limits {
    /// Counts a mail client's connection from here. Loopback has a limit of its own: webmail comes from
    /// there for everybody.
    pub(crate) fn connected(&self, from: IpAddr) -> Option<Counted<IpAddr>> {
        let counter = if from.is_loopback() { &self.servers } else { &self.addresses };
        counter.enter(from)
    }

    /// Counts an MTA's. One Postfix takes 20 by itself and keeps them for the next message; who is turned
    /// away puts off all its mail for minutes.
    pub(crate) fn delivers(&self, from: IpAddr) -> Option<Counted<IpAddr>> {
        self.servers.enter(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_its_holder_is_gone() {
        let counter = Counter::new(2);
        let first = counter.enter(1).unwrap();
        let _second = counter.enter(1).unwrap();
        assert!(counter.enter(1).is_none());
        assert!(counter.enter(2).is_some());
        drop(first);
        assert!(counter.enter(1).is_some());
    }

    #[test]
    fn only_mail_clients_are_counted_by_address() {
        let limits = Limits {
            addresses: Counter::new(2),
            servers: Counter::new(100),
            accounts: Counter::new(2),
        };
        let [far, near] = ["192.0.2.1", "127.0.0.1"].map(|text| text.parse().unwrap());
        let n_taken = |enter: &dyn Fn() -> Option<Counted<IpAddr>>| {
            (0..50).map(|_| enter()).collect::<Vec<_>>().into_iter().flatten().count()
        };
        assert_eq!(n_taken(&|| limits.connected(far)), 2);
        assert_eq!(n_taken(&|| limits.connected(near)), 50);
        assert_eq!(n_taken(&|| limits.delivers(far)), 50);
    }
}
