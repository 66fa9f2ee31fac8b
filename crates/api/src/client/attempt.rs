//! One attempt at the leader of a shard, and what its failure means.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout, timeout_at};
use tonic::{Code, Response, Status};
use tracing::warn;

use super::route::{Leader, Route};
use crate::dial::never_sent;
use crate::mail::MailError;

/// After this long without an answer the other replicas are asked whether the leader still leads.
const DOUBT_AFTER: Duration = Duration::from_millis(1_000);
/// First pause before the same leader is asked again.
pub(super) const PAUSE_FIRST: Duration = Duration::from_millis(10);
/// Longest such pause.
pub(super) const PAUSE_MAX: Duration = Duration::from_millis(100);

/// Who notices so late that the time is up did not run when it was: the process or its machine stood still.
const STOOD_STILL: Duration = Duration::from_millis(500);
/// How long what came meanwhile may take from the socket to whoever waits for it.
const READ_WITHIN: Duration = Duration::from_secs(1);

/// Turns to another leader without a pause; more in a row mean that something is wrong.
const FREE_TURNS: u32 = 3;

/// Why an attempt gave nothing.
#[derive(Debug)]
pub(super) enum Failed {
    /// The node says so.
    Told(MailError),
    /// Nothing was sent: no connection.
    NotSent,
    /// The leader was replaced or the time was up: it may have been done.
    Lost,
    /// The connection broke, as when the node dies: it may have been done.
    Broken,
}

impl Failed {
    /// Whether the command may have been done, or may still be.
    pub(super) fn may_be_done(&self) -> bool {
        matches!(self, Self::Told(MailError::Unknown) | Self::Lost | Self::Broken)
    }
}

impl Route {
    /// Waits for an answer of this leader, as long as nobody replaces it and the deadline has not come.
    pub(super) async fn attempt<T>(
        &self,
        leader: &Leader,
        deadline: Instant,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failed> {
        let doubt = async {
            loop {
                sleep(DOUBT_AFTER).await;
                self.probe(leader).await;
            }
        };
        let call = async {
            tokio::select! {
                biased;
                result = call => Some(result),
                () = self.replaced(leader) => None,
                () = doubt => None,
            }
        };
        match until(deadline, call).await {
            Some(Ok(response)) => Ok(response.into_inner()),
            Some(Err(status)) => Err(self.broken(leader, &status)),
            None => Err(Failed::Lost),
        }
    }

    /// What is learned about the leader from an error it told.
    pub(super) fn told(&self, leader: &Leader, error: MailError) -> Failed {
        match &error {
            MailError::NotLeader { leader: hint } => self.hinted(leader, hint.clone()),
            MailError::NoSuchShard => {
                self.lost(leader);
                self.cluster.placements.suspect();
            }
            MailError::Unavailable | MailError::Unknown => self.lost(leader),
            _ => {}
        }
        Failed::Told(error)
    }

    fn broken(&self, leader: &Leader, status: &Status) -> Failed {
        match status.code() {
            Code::InvalidArgument | Code::Unimplemented | Code::PermissionDenied => {
                warn!(%status, node = leader.node, "request refused");
                Failed::Told(MailError::Invalid)
            }
            Code::OutOfRange => Failed::Told(MailError::TooLarge),
            // Why the leader stays: what is under way to it would be sent once more, behind all that waits.
            Code::ResourceExhausted => Failed::Told(MailError::Overloaded),
            _ => {
                self.lost(leader);
                if never_sent(status) { Failed::NotSent } else { Failed::Broken }
            }
        }
    }
}

/// What a call gives until the deadline has come. A process that stood still when it came reads first what
/// lies in its sockets: who is told that an outcome is not known has the command done twice.
async fn until<T>(deadline: Instant, call: impl Future<Output = Option<T>>) -> Option<T> {
    let mut call = pin!(call);
    match timeout_at(deadline, call.as_mut()).await {
        Ok(told) => told,
        Err(_) if deadline.elapsed() >= STOOD_STILL => {
            timeout(READ_WITHIN, call).await.unwrap_or_default()
        }
        Err(_) => None,
    }
}

/// Pauses that grow.
pub(super) struct Pause {
    next: Duration,
    n_free: u32,
}

impl Pause {
    pub(super) fn new() -> Self {
        Self { next: PAUSE_FIRST, n_free: FREE_TURNS }
    }

    pub(super) async fn wait(&mut self) {
        sleep(self.next).await;
        self.next = (self.next * 2).min(PAUSE_MAX);
    }

    /// No pause the first times: the way to the leader is looked for anew, which takes its own time.
    pub(super) async fn turn(&mut self) {
        match self.n_free.checked_sub(1) {
            Some(left) => self.n_free = left,
            None => self.wait().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;
    use tokio::task::yield_now;
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_answered_while_the_process_stood_still_is_read() {
        let deadline = Instant::now() + Duration::from_secs(10);
        let (sender, answer) = oneshot::channel();
        let call = tokio::spawn(until(deadline, async { answer.await.ok() }));
        yield_now().await;
        advance(Duration::from_secs(12)).await;
        sleep(READ_WITHIN / 10).await;
        sender.send("done").unwrap();
        assert_eq!(call.await.unwrap(), Some("done"));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_waited_for_beyond_the_deadline_otherwise() {
        let deadline = Instant::now() + Duration::from_secs(10);
        assert_eq!(until(deadline, std::future::pending::<Option<()>>()).await, None);
        assert!(deadline.elapsed() < READ_WITHIN);
    }
}
