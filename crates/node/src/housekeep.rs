//! What a shard's leader proposes by itself: expiry of sessions and uploads, and release of bodies whose
//! retention is over. Only when there is something to do, so that an idle shard's log stays as it is.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use api::placement::META_SHARD;
use mailbox::command::Housekeep;
use mailbox::{Command, Entry, LogTime, Request};
use replica::Role;

use crate::replicas::Running;
use crate::shared::Shared;

/// How often to look.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Limit: how long one shard is looked after before others have their turn.
const SHARD_MAX: Duration = Duration::from_secs(1);
/// The shortest pause when there is more to do.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// A frontend that was not heard of for so long has forgotten its session too.
const SESSION_AGE: Duration = Duration::from_secs(15 * 60);
/// An upload that was not continued for so long is dropped.
const UPLOAD_AGE: Duration = Duration::from_secs(10 * 60);

/// Keeps house in the shards led here, until the node stops.
pub(crate) async fn housekeep(shared: Arc<Shared>) {
    let mut pause = LOOK_EVERY;
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        let (began, mut is_more) = (Instant::now(), false);
        for running in shared.replicas.all() {
            if running.replica.shard() != META_SHARD
                && running.replica.status().role == Role::Leader
                && !shared.is_draining()
            {
                is_more |= one_shard(&shared, &running).await;
            }
        }
        // Why as long as it worked: what is left is done soon, and clients have half of the time for
        // themselves.
        pause = match is_more {
            true => began.elapsed().clamp(PAUSE_MIN, LOOK_EVERY),
            false => LOOK_EVERY,
        };
    }
}

/// Some steps; each is bounded, and so are they. True if there is more to do soon.
async fn one_shard(shared: &Shared, running: &Arc<Running>) -> bool {
    let began = Instant::now();
    while began.elapsed() < SHARD_MAX && !shared.stop.is_cancelled() {
        if running.replica.is_index_behind() {
            break;
        }
        let now = now();
        let before = |age: Duration| LogTime(now.0.saturating_sub(age.as_millis() as u64));
        let step = Housekeep {
            sessions_before: before(SESSION_AGE),
            uploads_before: before(UPLOAD_AGE),
            purge_before: before(shared.config.retention()),
        };
        let request = Request {
            session: None,
            sequence: 0,
            lowest_unanswered: 0,
            expires: LogTime(u64::MAX),
            command: Command::Housekeep(step),
        };
        if !has_work(running, now, &request).await {
            return false;
        }
        let proposed = running.replica.propose(mailbox::codec::encode(&request), Vec::new()).await;
        if let Err(error) = proposed {
            tracing::debug!(shard = %running.replica.shard(), %error, "housekeeping put off");
            return false;
        }
    }
    true
}

/// Whether the step would change more than log time: it is applied to a view and thrown away.
async fn has_work(running: &Arc<Running>, now: LogTime, request: &Request) -> bool {
    let Ok(view) = running.replica.local_view() else { return false };
    let entry = Entry { time: now, request: request.clone() };
    let tried = tokio::task::spawn_blocking(move || {
        let digest = view.digest();
        let effect = view.read(|source, _| mailbox::has_effect(source, digest, &entry));
        effect.unwrap_or(false)
    });
    // Why not for longer: the shards on other disks wait for their turn while one hangs.
    let tried = tokio::time::timeout(LOOK_EVERY, tried).await;
    tried.is_ok_and(|tried| tried.unwrap_or(false))
}

fn now() -> LogTime {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    LogTime(u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}
