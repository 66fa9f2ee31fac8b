//! The lock of a POP3 maildrop, kept alive beside its session.
//!
//! Locks are in the memory of the shard's leader, so that a new leader, or another shard, knows of none.
//! Then whoever comes first has it, mostly the session that had it before; a session that has lost it is
//! told so and removes nothing (RFC 1939 4: exclusive access). The same for a session whose client takes
//! nothing of what it asked for, as a phone that vanished in a download: its lock is not renewed meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use api::client::EVERY_MAILBOX;
use mailbox::Query;
use mailbox::command::Place;
use mailbox::dialogue::Trouble;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::info;

use crate::random;
use crate::socket::Taking;
use crate::store::{LockToken, Store, Watch};

/// A lease is renewed three times in its life.
const RENEW_AFTER: Duration = Duration::from_millis(api::mail::MAILDROP_LEASE_MS / 3);

/// Limit: how long a client may take nothing until its lease, which ends some twenty seconds later, is left
/// to whoever comes. One that just says nothing has all it asked for, and keeps it.
const TAKES_WITHIN: Duration = RENEW_AFTER;

/// For so long a session waits for one that has the maildrop: that may be about to end, or its connection
/// just broke. No client gives up so soon.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two looks whether it is free: at first,
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// and at most.
const PAUSE_MAX: Duration = Duration::from_millis(160);

/// So old is a session before it listens for what loses locks: most end sooner, and a stream costs
/// the shard's leader a round. QUIT removes nothing without another look.
const LISTEN_AFTER: Duration = Duration::from_secs(1);
/// When a renewal failed, or was not due to a client that takes nothing, the next one comes so soon.
const RENEW_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// The lock; dropping it gives it back, a little later.
pub(crate) struct MaildropLock {
    claim: Arc<Claim>,
    stop: oneshot::Sender<()>,
    keeper: JoinHandle<()>,
}

/// What the session and its keeper know of the lock.
struct Claim {
    store: Arc<dyn Store>,
    place: Place,
    token: LockToken,
    taking: Arc<Taking>,
    is_lost: AtomicBool,
}

impl MaildropLock {
    /// Takes the lock; `None` if another session has it and keeps it.
    pub(crate) async fn take(
        store: Arc<dyn Store>,
        place: Place,
        taking: Arc<Taking>,
    ) -> Result<Option<Self>, Trouble> {
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
        let is_lost = AtomicBool::new(false);
        let claim = Arc::new(Claim { store, place, token, taking, is_lost });
        let keeper = tokio::spawn(keep(Arc::clone(&claim), stopped));
        Ok(Some(Self { claim, stop, keeper }))
    }

    /// Whether another session has the maildrop, as far as is known. That does not change again.
    pub(crate) fn is_lost(&self) -> bool {
        self.claim.is_lost.load(Ordering::Relaxed)
    }

    /// Makes sure of the lock; false if another session has it.
    pub(crate) async fn renew(&self) -> Result<bool, Trouble> {
        self.claim.renew().await
    }

    /// Gives it back and waits until that is done.
    pub(crate) async fn release(self) {
        drop(self.stop);
        // A keeper that panicked has nothing left to give back; the lease runs out by itself.
        let _ = self.keeper.await;
    }
}

impl Claim {
    /// Prolongs the lock, or takes it anew where nobody knows of it: at a new leader, or in the shard
    /// that the account moved to.
    async fn renew(&self) -> Result<bool, Trouble> {
        // Why: only who asks for something of the account is told that it moved.
        self.store.query(self.place, Query::Account(self.place.account)).await?;
        if !self.store.lock_maildrop(self.place, self.token).await? {
            self.is_lost.store(true, Ordering::Relaxed);
        }
        Ok(!self.is_lost.load(Ordering::Relaxed))
    }
}

/// Renews until told to stop, at once when news may have been lost: then the shard has another leader,
/// or the account another shard. One task does both, so that no renewal overtakes the release.
async fn keep(claim: Arc<Claim>, mut stopped: oneshot::Receiver<()>) {
    let mut news: Option<Box<dyn Watch>> = None;
    let mut pause = LISTEN_AFTER;
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            () = tokio::time::sleep(pause) => {}
            () = upheaval(&mut news) => {}
        }
        if claim.taking.nothing_for() >= TAKES_WITHIN {
            pause = RENEW_AGAIN_AFTER;
            continue;
        }
        news.get_or_insert_with(|| claim.store.watch(claim.place));
        pause = match claim.renew().await {
            Ok(true) => RENEW_AFTER,
            Ok(false) => {
                info!(account = %claim.place.account, "maildrop lock was lost to another session");
                return;
            }
            Err(_) => RENEW_AGAIN_AFTER,
        };
    }
    // When the release fails the lease runs out by itself.
    let _ = claim.store.unlock_maildrop(claim.place, claim.token).await;
}

async fn upheaval(news: &mut Option<Box<dyn Watch>>) {
    let Some(news) = news else { return std::future::pending().await };
    while news.recv().await.of.mailbox != EVERY_MAILBOX {}
}
