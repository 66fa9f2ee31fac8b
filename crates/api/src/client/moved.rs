//! Accounts that were met elsewhere than their place says: sessions keep the place they began with.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use mailbox::AccountId;
use mailbox::command::Place;

use super::Client;
use super::watch::ShardWatch;

/// Limit: accounts remembered (about 100 octets each). Who is forgotten is asked for again where it was.
const ACCOUNTS_MAX: usize = 65_536;

#[derive(Default)]
pub(super) struct Moved {
    places: Mutex<HashMap<AccountId, Place>>,
}

impl Moved {
    /// Where an account is, as far as is known.
    pub(super) fn latest(&self, place: Place) -> Place {
        match self.places().get(&place.account) {
            Some(later) if later.epoch > place.epoch => Place { alias: place.alias, ..*later },
            _ => place,
        }
    }

    fn learn(&self, to: Place) {
        let mut places = self.places();
        if places.len() >= ACCOUNTS_MAX && !places.contains_key(&to.account) {
            places.clear();
        }
        let known = places.entry(to.account).or_insert(to);
        if to.epoch > known.epoch {
            *known = to;
        }
    }

    fn places(&self) -> MutexGuard<'_, HashMap<AccountId, Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    /// An account was not where it was looked for. Whoever watches it there watches it here from now on.
    pub(super) fn follow(&self, from: Place, to: Place) -> Place {
        self.shared.directory.forget(to.account);
        self.shared.moved.learn(to);
        let latest = self.shared.moved.latest(Place { alias: from.alias, ..to });
        if latest.shard != from.shard {
            let (old, new) = (self.link(from.shard), self.link(latest.shard));
            ShardWatch::hand_over(&old.watch, &new.watch, to.account);
        }
        latest
    }
}

#[cfg(test)]
mod tests {
    use mailbox::ShardId;

    use super::*;

    #[test]
    fn the_latest_place_that_was_heard_of_counts() {
        let place = |shard, epoch| Place {
            account: AccountId([7; 16]),
            shard: ShardId(shard),
            epoch,
            alias: true,
        };
        let moved = Moved::default();
        assert_eq!(moved.latest(place(1, 1)), place(1, 1));
        moved.learn(Place { alias: false, ..place(2, 2) });
        assert_eq!(moved.latest(place(1, 1)), place(2, 2), "the address stays what it was");
        assert_eq!(moved.latest(place(3, 3)), place(3, 3));
        moved.learn(place(1, 1));
        assert_eq!(moved.latest(place(1, 1)), place(2, 2));
    }
}
