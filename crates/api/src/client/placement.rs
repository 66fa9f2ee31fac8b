//! Keeps the placement current: one stream from any node, from another one when that ends.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tonic::Status;
use tonic::transport::Channel;
use tracing::{debug, warn};

use super::Nodes;
use crate::dial::reason;
use crate::placement::Placement;
use crate::proto::meta::WatchPlacementRequest;
use crate::proto::meta::meta_client::MetaClient;

/// How long a node may take to begin its stream: four round trips if it is not connected.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(3);
/// A stream is not left earlier than this because what it tells seems out of date,
const SUSPECT_AFTER: Duration = Duration::from_secs(1);
/// nor earlier than this at last, where one after the other seems so.
const SUSPECT_AFTER_MAX: Duration = Duration::from_secs(30);
/// How long the cluster counts as reached after the last stream ended.
const REACHED_FOR: Duration = Duration::from_secs(5);
/// The same where that stream was left to ask another node: several of those may be down, and each takes its
/// time.
const LEFT_FOR: Duration = Duration::from_secs(30);
/// Pause before the next node is asked.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// A person is told when no node has told anything for so long,
const WARN_AFTER: Duration = Duration::from_secs(5);
/// and again whenever it was so long since.
const WARN_AGAIN_AFTER: Duration = Duration::from_secs(300);

/// The newest placement.
pub(crate) struct Placements {
    current: watch::Receiver<Arc<Placement>>,
    stale: Arc<Notify>,
    reached: watch::Receiver<Reached>,
    task: AbortHandle,
}

/// Whether a node tells the placement at present.
#[derive(Clone, Copy)]
enum Reached {
    Never,
    Now,
    Until(Instant),
}

impl Reached {
    fn is_so(self, now: Instant) -> bool {
        match self {
            Self::Never => false,
            Self::Now => true,
            Self::Until(end) => now < end,
        }
    }

    /// When a stream has come to its end.
    fn after(told: &Result<Ended, Status>, now: Instant) -> Self {
        match told {
            Ok(Ended::Left) => Self::Until(now + LEFT_FOR),
            Ok(Ended::ByNode) | Err(_) => Self::Until(now + REACHED_FOR),
        }
    }
}

/// Why a stream is over that told something.
enum Ended {
    ByNode,
    /// What it told seemed to be out of date.
    Left,
}

impl Placements {
    pub(super) fn start(nodes: Arc<Nodes>, publish: watch::Sender<Arc<Placement>>) -> Self {
        let current = publish.subscribe();
        let stale = Arc::new(Notify::new());
        let (reaching, reached) = watch::channel(Reached::Never);
        let follower = Follower { nodes, publish, stale: Arc::clone(&stale), reached: reaching };
        let task = tokio::spawn(follower.run()).abort_handle();
        Self { current, stale, reached, task }
    }

    pub(crate) fn current(&self) -> Arc<Placement> {
        Arc::clone(&self.current.borrow())
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Placement>> {
        self.current.clone()
    }

    /// Whether some node was heard of lately.
    pub(crate) fn reached(&self) -> bool {
        self.reached.borrow().is_so(Instant::now())
    }

    /// The placement once there is a cluster.
    pub(crate) async fn formed(&self) -> Arc<Placement> {
        let mut current = self.current.clone();
        let formed = current.wait_for(|placement| !placement.directory_slots.is_empty()).await;
        // Why: the guard must not live across the await below, or no caller's future is `Send`.
        match formed.map(|placement| Arc::clone(&placement)) {
            Ok(placement) => placement,
            // Why: only while everything is torn down.
            Err(_) => std::future::pending().await,
        }
    }

    /// What is known seems to be out of date: another node is asked.
    pub(crate) fn suspect(&self) {
        self.stale.notify_one();
    }
}

impl Drop for Placements {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How long nothing was told, and when a person is to hear of it.
struct Silence {
    warn_at: Instant,
}

impl Silence {
    fn since(now: Instant) -> Self {
        Self { warn_at: now + WARN_AFTER }
    }

    fn is_to_be_told(&mut self, now: Instant) -> bool {
        let is_due = now >= self.warn_at;
        if is_due {
            self.warn_at = now + WARN_AGAIN_AFTER;
        }
        is_due
    }
}

/// How long what a stream tells is believed, whatever seems to speak against it.
struct Belief {
    lasts: Duration,
}

impl Belief {
    fn new() -> Self {
        Self { lasts: SUSPECT_AFTER }
    }

    /// A stream was left so long after it began. Why longer next time: what seems out of date may be that a
    /// majority is lost, which no node can change.
    fn was_given_up(&mut self, after: Duration) {
        self.lasts = match after < 2 * self.lasts {
            true => (2 * self.lasts).min(SUSPECT_AFTER_MAX),
            false => SUSPECT_AFTER,
        };
    }
}

struct Follower {
    nodes: Arc<Nodes>,
    publish: watch::Sender<Arc<Placement>>,
    stale: Arc<Notify>,
    reached: watch::Sender<Reached>,
}

impl Follower {
    async fn run(self) {
        let mut pause = PAUSE_FIRST;
        let mut turn: usize = 0;
        let mut silence = Silence::since(Instant::now());
        let mut belief = Belief::new();
        loop {
            let channels = self.nodes.all();
            let channel = channels[turn % channels.len()].clone();
            turn = turn.wrapping_add(1);
            let told = self.follow(channel, &mut belief).await;
            if matches!(*self.reached.borrow(), Reached::Now) {
                silence = Silence::since(Instant::now());
            }
            self.reached.send_if_modified(|reached| {
                let was = matches!(reached, Reached::Now);
                if was {
                    *reached = Reached::after(&told, Instant::now());
                }
                was
            });
            match told {
                Ok(_) => pause = PAUSE_FIRST,
                Err(status) => {
                    debug!(%status, "placement not told");
                    if silence.is_to_be_told(Instant::now()) {
                        let (seeds, error) = (self.nodes.seeds().join(","), reason(&status));
                        warn!(seeds, error, "no node can be reached");
                    }
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// One stream to its end; an error if it told nothing.
    async fn follow(&self, channel: Channel, belief: &mut Belief) -> Result<Ended, Status> {
        let mut client = MetaClient::new(channel);
        let known = self.publish.borrow().version;
        let request = WatchPlacementRequest { after_version: known };
        let stream = timeout(BEGIN_TIMEOUT, client.watch_placement(request))
            .await
            .map_err(|_| Status::deadline_exceeded("no answer"))?;
        let mut stream = stream?.into_inner();
        self.reached.send_replace(Reached::Now);
        let began = Instant::now();
        let suspect_from = began + belief.lasts;
        loop {
            let suspected = async {
                sleep_until(suspect_from).await;
                self.stale.notified().await;
            };
            let message = tokio::select! {
                message = stream.message() => message,
                () = suspected => {
                    belief.was_given_up(began.elapsed());
                    return Ok(Ended::Left);
                }
            };
            let Some(message) = message? else { return Ok(Ended::ByNode) };
            match Placement::try_from(message) {
                Ok(placement) => self.learn(placement),
                Err(error) => {
                    warn!(%error, "placement not understood");
                    return Err(error.into());
                }
            }
        }
    }

    fn learn(&self, placement: Placement) {
        self.publish.send_if_modified(|current| {
            let newer = placement.version > current.version;
            if newer {
                *current = Arc::new(placement);
            }
            newer
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_told_after_a_while_and_then_seldom() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut silence = Silence::since(start);
        let told: Vec<u64> = (0..700).filter(|second| silence.is_to_be_told(at(*second))).collect();
        assert_eq!(told, [5, 305, 605]);
    }

    #[test]
    fn a_cluster_that_is_only_doubted_stays_reached_while_some_nodes_are_asked_in_vain() {
        let now = Instant::now();
        let lasts = |told: Result<Ended, Status>| {
            let reached = Reached::after(&told, now);
            let at = |seconds: &u64| now + Duration::from_secs(*seconds);
            (0..100).take_while(|seconds| reached.is_so(at(seconds))).count()
        };
        assert_eq!(lasts(Err(Status::unavailable("gone"))), 5);
        assert_eq!(lasts(Ok(Ended::ByNode)), 5);
        assert_eq!(lasts(Ok(Ended::Left)), 30, "ten nodes do not answer");
    }

    #[test]
    fn who_doubts_again_and_again_does_so_less_often_and_at_once_after_a_while() {
        let mut belief = Belief::new();
        let mut lasted = Vec::new();
        for _ in 0..7 {
            lasted.push(belief.lasts.as_secs());
            belief.was_given_up(belief.lasts);
        }
        assert_eq!(lasted, [1, 2, 4, 8, 16, 30, 30]);
        belief.was_given_up(Duration::from_secs(600));
        assert_eq!(belief.lasts, SUSPECT_AFTER);
    }
}
