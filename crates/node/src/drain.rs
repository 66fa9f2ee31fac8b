//! Going down without anybody noticing: leaderships are handed over before the server stops.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use replica::Role;
use tokio::time::Instant;

use crate::founding::wait_until;
use crate::replicas::Running;
use crate::report;
use crate::shared::Shared;

/// How long handing over may take; then the elections of the others do it.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long to go on telling callers who leads now, after nothing is led here any more; and how long
/// the last report may take.
const LINGER: Duration = Duration::from_millis(150);
/// When no majority answered for so long, nobody is there to hand over to.
const ALONE_MS: u64 = 600;
/// How often a replica that still leads is told again to hand over.
const REPEAT: Duration = Duration::from_millis(300);

/// Hands all leaderships over, and waits until others lead.
pub(crate) async fn hand_over(shared: &Arc<Shared>) {
    shared.draining.store(true, Ordering::Release);
    let deadline = Instant::now() + PATIENCE;
    let all = shared.replicas.all();
    let led: Vec<_> = all.iter().filter(|running| leads(running)).collect();
    let n_led = led.len();
    futures_util::future::join_all(led.into_iter().map(|running| one(running, deadline))).await;
    tracing::info!(n_led, "leaderships handed over");
    let linger = async {
        if n_led > 0 {
            tokio::time::sleep(LINGER).await;
        }
    };
    tokio::join!(linger, report::report_last(shared, LINGER));
}

/// Whether it leads, and there is somebody to hand over to.
fn leads(running: &Running) -> bool {
    let status = running.replica.status();
    let alone = status.quorum_age_ms.is_some_and(|age| age > ALONE_MS);
    status.role == Role::Leader && status.voters.len() > 1 && !alone
}

async fn one(running: &Running, deadline: Instant) {
    let me = running.replica.replica_id();
    let shard = running.replica.shard();
    let other_leads = || {
        let leader = running.replica.status().leader;
        leader.is_some_and(|(id, _)| id != me).then_some(())
    };
    while Instant::now() < deadline {
        if leads(running) {
            if let Err(error) = running.replica.transfer_leader(None).await {
                tracing::debug!(%shard, %error, "not handed over");
            }
        } else if running.replica.status().role == Role::Leader {
            return;
        }
        let until = deadline.min(Instant::now() + REPEAT);
        if wait_until(until, other_leads).await.is_some() {
            return;
        }
    }
    tracing::warn!(%shard, "leadership not handed over in time");
}
