//! What a shard's leader proposes by itself: expiry of sessions and uploads, and release of bodies whose
//! retention is over. Only when there is something to do, so that an idle shard's log stays as it is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use api::placement::META_SHARD;
use mailbox::command::Housekeep;
use mailbox::{Command, Entry, LogTime, Request, ShardId};
use replica::Role;
use tokio::task::JoinHandle;

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

/// Looks for work that did not end in time, each on a thread: their disks hang.
type Hanging = BTreeMap<ShardId, JoinHandle<bool>>;

/// Keeps house in the shards led here, until the node stops.
pub(crate) async fn housekeep(shared: Arc<Shared>) {
    let (mut pause, mut hanging) = (LOOK_EVERY, Hanging::new());
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
                is_more |= one_shard(&shared, &running, &mut hanging).await;
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
async fn one_shard(shared: &Shared, running: &Arc<Running>, hanging: &mut Hanging) -> bool {
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
        if !has_work(running, now, &request, hanging).await {
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
async fn has_work(
    running: &Arc<Running>,
    now: LogTime,
    request: &Request,
    hanging: &mut Hanging,
) -> bool {
    let Ok(view) = running.replica.local_view() else { return false };
    let entry = Entry { time: now, request: request.clone() };
    let look = move || {
        let digest = view.digest();
        let effect = view.read(|source, _| mailbox::has_effect(source, digest, &entry));
        effect.unwrap_or(false)
    };
    // Why not for longer: the shards on other disks wait for their turn while one hangs.
    look_in_time(hanging, running.replica.shard(), look, LOOK_EVERY).await
}

/// What a look finds, false if it takes longer. No other one is begun at a shard before that has ended: each
/// keeps a thread.
async fn look_in_time(
    hanging: &mut Hanging,
    shard: ShardId,
    look: impl FnOnce() -> bool + Send + 'static,
    patience: Duration,
) -> bool {
    if hanging.get(&shard).is_some_and(|looking| !looking.is_finished()) {
        return false;
    }
    hanging.remove(&shard);
    let mut looking = tokio::task::spawn_blocking(look);
    match tokio::time::timeout(patience, &mut looking).await {
        Ok(found) => found.unwrap_or(false),
        Err(_) => {
            hanging.insert(shard, looking);
            false
        }
    }
}

fn now() -> LogTime {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    LogTime(u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[tokio::test]
    async fn a_disk_that_hangs_keeps_one_thread_for_each_shard() {
        let (short, long) = (Duration::from_millis(10), Duration::from_secs(30));
        let (mut hanging, shard) = (Hanging::new(), ShardId(1));
        let (answer, answered) = channel::<()>();
        let hangs = move || answered.recv().is_ok();
        assert!(!look_in_time(&mut hanging, shard, hangs, short).await);
        let again = || -> bool { panic!("the first one has not ended") };
        assert!(!look_in_time(&mut hanging, shard, again, long).await);
        assert!(!hanging[&shard].is_finished());
        assert!(look_in_time(&mut hanging, ShardId(2), || true, long).await);

        answer.send(()).unwrap();
        while !hanging[&shard].is_finished() {
            tokio::time::sleep(short).await;
        }
        assert!(look_in_time(&mut hanging, shard, || true, long).await);
        assert!(hanging.is_empty());
    }
}
