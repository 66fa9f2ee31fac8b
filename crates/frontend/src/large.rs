//! Places for messages on their way in. MTAs have their own, so that mail clients cannot keep mail out; an
//! account's clients have few large ones at once, and who sends next to nothing keeps none.

use std::sync::Arc;
use std::time::Duration;

use mailbox::AccountId;
use mailbox::dialogue::Trouble;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use crate::ingest::LARGE_BODY_BYTES;
use crate::limits::{Turn, Turns};

/// Limit: large bodies at the same time that mail clients send, and as many that MTAs do; each costs about
/// 1.3 MiB.
const BODIES_MAX: usize = 128;
/// Limit: sessions of mail clients, and as many of MTAs, that hold more than [`UNCOUNTED_BYTES_MAX`] of
/// messages which are not stored yet; those that send large ones among them. Each of the others costs some
/// 0.5 MiB.
const HOLDERS_MAX: usize = 256;
/// Limit: octets of messages that a session may hold without a place; most messages have no more.
const UNCOUNTED_BYTES_MAX: u64 = 16 * 1024;
/// Limit: those of them that are for one account; further ones wait.
const OF_ACCOUNT_MAX: usize = 4;
/// Limit: how long they do, and how long any waits for its place. The client waits too, and gives up after
/// some minutes.
const TURN_WITHIN: Duration = Duration::from_secs(60);
/// Limit: what a client has to send at least in the mean; the slowest lines carry ten times as much.
const BYTES_PER_S_MIN: u64 = 1024;
/// The same while places are scarce: the largest message that a store takes has come after an hour, not after
/// a day.
const BYTES_PER_S_SCARCE_MIN: u64 = 32 * 1024;
/// So many of the places are taken then, in hundredths.
const SCARCE_PERCENT: usize = 75;
/// It may be so much later than that: a phone loses its network for a while.
const LATE_MAX: Duration = Duration::from_secs(60);

/// All places.
pub(crate) struct Large {
    pub(crate) from_clients: Places,
    pub(crate) from_mtas: Places,
    accounts: Arc<Turns<AccountId>>,
}

impl Default for Large {
    fn default() -> Self {
        Self {
            from_clients: Places::new(),
            from_mtas: Places::new(),
            accounts: Turns::new(OF_ACCOUNT_MAX),
        }
    }
}

/// Those of mail clients, or those of MTAs.
pub(crate) struct Places {
    /// For large bodies.
    pub(crate) bodies: Arc<Semaphore>,
    /// For sessions.
    holders: Arc<Semaphore>,
}

impl Places {
    fn new() -> Self {
        let places = |n_max| Arc::new(Semaphore::new(n_max));
        Self { bodies: places(BODIES_MAX), holders: places(HOLDERS_MAX) }
    }

    fn are_scarce(&self) -> bool {
        let is_scarce = |places: &Semaphore, n_max: usize| {
            (n_max - places.available_permits()) * 100 >= n_max * SCARCE_PERCENT
        };
        is_scarce(&self.bodies, BODIES_MAX) || is_scarce(&self.holders, HOLDERS_MAX)
    }
}

/// What a session holds of messages that are not stored yet.
#[derive(Default)]
pub(crate) struct Held {
    n_bytes: u64,
    place: Option<OwnedSemaphorePermit>,
}

impl Held {
    /// Whether others may have to wait for it.
    pub(crate) fn has_place(&self) -> bool {
        self.place.is_some()
    }

    /// So many octets more; waits for a place where that is due.
    pub(crate) async fn more(&mut self, n: usize, places: &Places) -> Result<(), Trouble> {
        self.n_bytes += n as u64;
        if self.n_bytes > UNCOUNTED_BYTES_MAX && self.place.is_none() {
            self.place = Some(place(&places.holders).await?);
        }
        Ok(())
    }
}

/// Waits for one of these places.
pub(crate) async fn place(places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Trouble> {
    let place = timeout(TURN_WITHIN, Arc::clone(places).acquire_owned()).await;
    place.ok().and_then(Result::ok).ok_or(Trouble::Overloaded)
}

/// A message that a mail client is sending.
pub(crate) struct Arrival {
    account: AccountId,
    n_bytes: u64,
    /// Since when its next octets are waited for.
    waits_since: Instant,
    /// How long it was waited for them in all.
    waited: Duration,
    turn: Option<Turn<AccountId>>,
}

impl Arrival {
    pub(crate) fn new(account: AccountId) -> Self {
        let (waits_since, waited) = (Instant::now(), Duration::ZERO);
        Self { account, n_bytes: 0, waits_since, waited, turn: None }
    }

    /// So many octets came.
    pub(crate) async fn came(&mut self, n: usize, large: &Large) -> Result<(), Trouble> {
        self.n_bytes += n as u64;
        self.waited += self.waits_since.elapsed();
        let bytes_per_s_min = match large.from_clients.are_scarce() {
            true => BYTES_PER_S_SCARCE_MIN,
            false => BYTES_PER_S_MIN,
        };
        let due = self.waited.saturating_sub(LATE_MAX).as_secs() * bytes_per_s_min;
        if self.n_bytes < due {
            return Err(Trouble::Overloaded);
        }
        if self.n_bytes > LARGE_BODY_BYTES && self.turn.is_none() {
            let turn = timeout(TURN_WITHIN, large.accounts.turn(self.account)).await;
            self.turn = Some(turn.map_err(|_| Trouble::Overloaded)?);
        }
        Ok(())
    }

    /// They were taken; the next ones may come.
    pub(crate) fn taken(&mut self) {
        self.waits_since = Instant::now();
    }
}
