//! Places for large messages on their way in. MTAs have their own, so that mail clients cannot keep mail
//! out; an account's clients have few at once, and who sends next to nothing keeps none.

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
/// Limit: those of them that are for one account; further ones wait.
const OF_ACCOUNT_MAX: usize = 4;
/// Limit: how long they do, and how long any waits for its place. The client waits too, and gives up after some
/// minutes.
const TURN_WITHIN: Duration = Duration::from_secs(60);
/// Limit: what a client has to send at least in the mean; the slowest lines carry ten times as much.
const BYTES_PER_S_MIN: u64 = 1024;
/// The same while places are scarce: the largest message there may be has gone after an hour, where it could
/// take half a day.
const BYTES_PER_S_SCARCE_MIN: u64 = 32 * 1024;
/// So many of the places are taken then, in hundredths.
const SCARCE_PERCENT: usize = 75;
/// It may be so much later than that: a phone loses its network for a while.
const LATE_MAX: Duration = Duration::from_secs(60);

/// All places.
pub(crate) struct Large {
    pub(crate) from_clients: Arc<Semaphore>,
    pub(crate) from_mtas: Arc<Semaphore>,
    accounts: Arc<Turns<AccountId>>,
}

impl Default for Large {
    fn default() -> Self {
        Self {
            from_clients: Arc::new(Semaphore::new(BODIES_MAX)),
            from_mtas: Arc::new(Semaphore::new(BODIES_MAX)),
            accounts: Turns::new(OF_ACCOUNT_MAX),
        }
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

    /// How much has to come of it in a second.
    fn bytes_per_s_min(large: &Large) -> u64 {
        let n_taken = BODIES_MAX - large.from_clients.available_permits();
        match n_taken * 100 >= BODIES_MAX * SCARCE_PERCENT {
            true => BYTES_PER_S_SCARCE_MIN,
            false => BYTES_PER_S_MIN,
        }
    }

    /// So many octets came.
    pub(crate) async fn came(&mut self, n: usize, large: &Large) -> Result<(), Trouble> {
        self.n_bytes += n as u64;
        self.waited += self.waits_since.elapsed();
        if self.n_bytes <= LARGE_BODY_BYTES {
            return Ok(());
        }
        let due = self.waited.saturating_sub(LATE_MAX).as_secs() * Self::bytes_per_s_min(large);
        if self.n_bytes < due {
            return Err(Trouble::Overloaded);
        }
        if self.turn.is_none() {
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
