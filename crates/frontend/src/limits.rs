//! How many connections there may be, in all, from one address and for one account; and how long who gives
//! wrong passwords waits for the answer.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
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

/// Where connections are counted together: an address, or of IPv6 the network of 64 bits that a customer
/// gets at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Origin(IpAddr);

impl From<IpAddr> for Origin {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
            address => address,
        })
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
            mtas: Counter::new(100),
            accounts: Counter::new(2),
        };
        let [far, near] = ["192.0.2.1", "127.0.0.1"].map(|text| text.parse().unwrap());
        let n_taken = |enter: &dyn Fn() -> Option<Counted<Origin>>| {
            (0..50).map(|_| enter()).collect::<Vec<_>>().into_iter().flatten().count()
        };
        assert_eq!(n_taken(&|| limits.connected(far)), 2);
        assert_eq!(n_taken(&|| limits.connected(near)), 50);
        assert_eq!(n_taken(&|| limits.delivers(far)), 50);
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
