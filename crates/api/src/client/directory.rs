//! Which account an address belongs to, remembered for a moment.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mailbox::command::Place;
use mailbox::{AccountId, Address};
use tokio::time::Instant;

/// How long an answer is believed: an address that was taken away stops working this much later.
const BELIEVED: Duration = Duration::from_secs(2);
/// Limit: addresses remembered (about 200 octets each).
const ADDRESSES_MAX: usize = 65_536;

/// Only what exists is remembered, so a new address works at once.
#[derive(Default)]
pub(super) struct Directory {
    places: Mutex<HashMap<Address, (Place, Instant)>>,
}

impl Directory {
    pub(super) fn known(&self, address: &Address) -> Option<Place> {
        let places = self.places();
        let (place, since) = places.get(address)?;
        (since.elapsed() < BELIEVED).then_some(*place)
    }

    pub(super) fn learn(&self, address: &Address, place: Place) {
        let mut places = self.places();
        if places.len() >= ADDRESSES_MAX {
            places.retain(|_, (_, since)| since.elapsed() < BELIEVED);
        }
        if places.len() < ADDRESSES_MAX {
            places.insert(address.clone(), (place, Instant::now()));
        }
    }

    /// What is remembered of this account is wrong.
    pub(super) fn forget(&self, account: AccountId) {
        self.places().retain(|_, (place, _)| place.account != account);
    }

    /// What is remembered of this address may be wrong.
    pub(super) fn forget_address(&self, address: &Address) {
        self.places().remove(address);
    }

    fn places(&self) -> MutexGuard<'_, HashMap<Address, (Place, Instant)>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
