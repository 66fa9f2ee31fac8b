//! The lock of a POP3 maildrop, kept alive beside its session.

use std::sync::Arc;
use std::time::Duration;

use mailbox::command::Place;
use mailbox::dialogue::Trouble;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::warn;

use crate::random;
use crate::store::{LockToken, Store};

/// A lease is renewed three times in its life.
const RENEW_AFTER: Duration = Duration::from_millis(api::mail::MAILDROP_LEASE_MS / 3);

/// For so long a session waits for one that has the maildrop: that may be about to end, or its connection
/// just broke. No client gives up so soon.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two looks whether it is free: at first,
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// and at most.
const PAUSE_MAX: Duration = Duration::from_millis(160);

/// The lock; dropping it gives it back, a little later.
pub(crate) struct MaildropLock {
    stop: oneshot::Sender<()>,
    keeper: JoinHandle<()>,
}

impl MaildropLock {
    /// Takes the lock; `None` if another session has it and keeps it.
    pub(crate) async fn take(store: Arc<dyn Store>, place: Place) -> Result<Option<Self>, Trouble> {
        let token: LockToken = random::bytes();
        let until = Instant::now() + PATIENCE;
        let mut pause = PAUSE_MIN;
        while !store.lock_maildrop(place, token).await? {
            if Instant::now() + pause > until {
                return Ok(None);
            }
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(PAUSE_MAX);
        }
        let (stop, stopped) = oneshot::channel();
        let keeper = tokio::spawn(keep(store, place, token, stopped));
        Ok(Some(Self { stop, keeper }))
    }

    /// Gives it back and waits until that is done.
    pub(crate) async fn release(self) {
        drop(self.stop);
        // A keeper that panicked has nothing left to give back; the lease runs out by itself.
        let _ = self.keeper.await;
    }
}

/// Renews until told to stop. One task does both, so that no renewal overtakes the release.
async fn keep(
    store: Arc<dyn Store>,
    place: Place,
    token: LockToken,
    mut stopped: oneshot::Receiver<()>,
) {
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            () = tokio::time::sleep(RENEW_AFTER) => {}
        }
        if let Ok(false) = store.lock_maildrop(place, token).await {
            warn!(account = %place.account, "maildrop lock was lost to another session");
        }
    }
    // When the release fails the lease runs out by itself.
    let _ = store.unlock_maildrop(place, token).await;
}
