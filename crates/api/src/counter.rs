//! How many there may be of something, by key: who makes too many keeps out nobody else.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Counts by key up to a limit.
pub struct Counter<K> {
    counts: Mutex<HashMap<K, u32>>,
    max: u32,
}

/// One that is counted, until it is dropped.
pub struct Counted<K: Hash + Eq + Clone> {
    counter: Arc<Counter<K>>,
    key: K,
}

impl<K: Hash + Eq + Clone> Counter<K> {
    /// Up to so many of each.
    pub fn new(max: u32) -> Arc<Self> {
        Arc::new(Self { counts: Mutex::default(), max })
    }

    /// One more, unless there are too many.
    pub fn enter(self: &Arc<Self>, key: K) -> Option<Counted<K>> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(key.clone()).or_default();
        if *count >= self.max {
            return None;
        }
        *count += 1;
        Some(Counted { counter: Arc::clone(self), key })
    }
}

impl<K: Hash + Eq + Clone> Drop for Counted<K> {
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

/// Where connections are counted together: an address, or of IPv6 the network of 64 bits that a customer
/// gets at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Origin(IpAddr);

impl From<IpAddr> for Origin {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
            address => address,
        })
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
    fn one_network_of_ipv6_is_one_origin() {
        let origin = |text: &str| Origin::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(origin("2001:db8:1:2::3"), origin("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(origin("2001:db8:1:2::3"), origin("2001:db8:1:3::3"));
        assert_eq!(origin("::ffff:192.0.2.1"), origin("192.0.2.1"));
        assert_ne!(origin("192.0.2.1"), origin("192.0.2.2"));
    }
}
