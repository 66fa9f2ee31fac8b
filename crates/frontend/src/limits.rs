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
    pub(crate) loopback: Arc<Counter<IpAddr>>,
    pub(crate) accounts: Arc<Counter<AccountId>>,
}

impl Limits {
    /// Counts a connection from here. Loopback has a limit of its own: webmail and the MTA come
    /// from there for everybody.
    pub(crate) fn connected(&self, from: IpAddr) -> Option<Counted<IpAddr>> {
        let counter = if from.is_loopback() { &self.loopback } else { &self.addresses };
        counter.enter(from)
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
}
