//! Accounts that were met elsewhere than their place says: sessions keep the place they began with.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mailbox::command::{MoveAccount, MoveStep, Place};
use mailbox::dialogue::Trouble;
use mailbox::{AccountId, Command, Outcome};
use tokio::time::{Instant, timeout_at};

use super::Client;
use super::attempt::Pause;
use super::watch::ShardWatch;

/// Limit: accounts remembered (about 100 octets each). Who is forgotten is asked for again where it was.
const ACCOUNTS_MAX: usize = 65_536;

/// Whoever moves an account finishes that within milliseconds, if it can.
const SETTLE_AFTER: Duration = Duration::from_secs(1);

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

    /// Whether the shard that the account was at said that it went to this place.
    fn was_said(&self, place: Place) -> bool {
        let places = self.places();
        let known = places.get(&place.account);
        known.is_some_and(|known| (known.shard, known.epoch) == (place.shard, place.epoch))
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

    /// Waits for an account that is on its way. Whoever moves it may have gone away when it had left
    /// one shard and was not served at the other yet; that it left is all that has to be known to finish
    /// this, so after a while whoever needs the account does.
    pub(super) async fn wait_for_arrival(
        &self,
        place: Place,
        pause: &mut Pause,
        deadline: Instant,
    ) -> Result<(), Trouble> {
        let patience = self.shared.deadline.saturating_sub(SETTLE_AFTER);
        if Instant::now() + patience > deadline && self.shared.moved.was_said(place) {
            let step = MoveStep::Settle(Place { alias: false, ..place });
            let settle = Command::MoveAccount(MoveAccount { account: place.account, step });
            let settle = (settle, Vec::new(), None);
            let (settled, _) = self.command_until(place.shard, settle, deadline).await?;
            if let Outcome::Housekept { .. } = settled {
                return Ok(());
            }
        }
        timeout_at(deadline, pause.wait()).await.map_err(|_| Trouble::Unavailable)
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
