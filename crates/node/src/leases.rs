//! Maildrop locks of POP3 sessions, in the memory of a shard's leader. After a failover the new leader
//! knows of none, and each session claims its own anew.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use api::mail::MAILDROP_LEASE_MS;
use mailbox::AccountId;

/// Limit: leases of one shard; far above the sessions its frontends can hold.
const LEASES_MAX: usize = 100_000;

/// The leases of one shard.
#[derive(Default)]
pub(crate) struct Leases {
    /// They were given in this term and end with it.
    term: u64,
    held: BTreeMap<AccountId, Lease>,
}

struct Lease {
    token: [u8; 16],
    until: Instant,
}

impl Leases {
    /// Takes or prolongs; whether `token` has it now.
    pub fn lock(&mut self, term: u64, account: AccountId, token: [u8; 16], now: Instant) -> bool {
        self.enter(term);
        if self.held.len() >= LEASES_MAX {
            self.held.retain(|_, lease| lease.until > now);
        }
        let taken = self.held.get(&account);
        if taken.is_some_and(|lease| lease.token != token && lease.until > now)
            || (taken.is_none() && self.held.len() >= LEASES_MAX)
        {
            return false;
        }
        let until = now + Duration::from_millis(MAILDROP_LEASE_MS);
        self.held.insert(account, Lease { token, until });
        true
    }

    /// Gives back, if `token` has it.
    pub fn unlock(&mut self, term: u64, account: AccountId, token: [u8; 16]) {
        self.enter(term);
        if self.held.get(&account).is_some_and(|lease| lease.token == token) {
            self.held.remove(&account);
        }
    }

    /// Why: leases of an earlier term of ours may have been given to others by a leader in between.
    fn enter(&mut self, term: u64) {
        if self.term != term {
            self.term = term;
            self.held.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_has_one_holder_and_ends_by_time_word_or_term() {
        let mut leases = Leases::default();
        let (account, one, two) = (AccountId([1; 16]), [1; 16], [2; 16]);
        let start = Instant::now();
        let later = start + Duration::from_millis(MAILDROP_LEASE_MS - 1);
        assert!(leases.lock(1, account, one, start));
        assert!(!leases.lock(1, account, two, later));
        assert!(leases.lock(1, account, one, later));
        assert!(!leases.lock(1, account, two, later + Duration::from_millis(2)), "was prolonged");
        leases.unlock(1, account, two);
        assert!(!leases.lock(1, account, two, later), "only the holder gives it back");
        leases.unlock(1, account, one);
        assert!(leases.lock(1, account, two, later));
        assert!(leases.lock(1, account, one, later + Duration::from_millis(MAILDROP_LEASE_MS)));
        assert!(leases.lock(2, account, two, later), "a new term knows of no lease");
    }
}
