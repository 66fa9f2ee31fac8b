//! One stream of appends to one follower: several under way, and none for nothing.
//!
//! openraft sends a request without entries whenever more is committed and there is nothing else to
//! say, which is after almost every entry. A follower is in no hurry to hear that, so such a request
//! waits a moment; when one with entries comes meanwhile, that carries the news and answers for both.
//! Nor does each request with entries say what else is committed: a follower that hears of several
//! entries at once applies them at once.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use openraft::errors::RPCError;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, StreamAppendResult};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use crate::network::Peer;
use crate::pace::size_bytes;
use crate::raft::{LogId, Types};

/// How long a follower may not know what is committed. Shorter than a heartbeat, which tells it too; and
/// whoever leads next has no more than that to apply before it serves.
const NEWS_WAIT_MAX: Duration = Duration::from_millis(100);
/// Limit: bytes of entries after which it is told at once: until then it keeps them in memory.
const UNTOLD_BYTES_MAX: usize = 256 << 10;

pub(crate) type AppendResult = Result<StreamAppendResult<Types>, RPCError<Types>>;

/// See the module.
pub(crate) struct Pipeline {
    peer: Peer,
    is_begun: bool,
    waiting: Option<Waiting>,
    told: Option<Told>,
}

/// What the follower was last told of what is committed, and when.
struct Told {
    commit: Option<LogId>,
    at: Instant,
    /// Bytes of the entries sent since.
    n_bytes: usize,
}

/// A request without entries that was not sent yet, as the next request sees it.
struct Waiting {
    until: Instant,
    taken: oneshot::Sender<Fate>,
}

/// Tells whether the request that took a waiting one along succeeded.
type Fate = oneshot::Receiver<bool>;

impl Pipeline {
    pub fn new(peer: Peer) -> Self {
        Self { peer, is_begun: false, waiting: None, told: None }
    }

    /// Takes the next request; each is sent in the order of the calls, unless it waits.
    pub fn append(
        &mut self,
        mut request: AppendEntriesRequest<Types>,
    ) -> impl Future<Output = AppendResult> + Send + use<> {
        // Why not the first: it asks where the follower is.
        let is_news = self.is_begun && request.entries.is_empty();
        self.is_begun = true;
        let prev = request.prev_log_id;
        let last = request.entries.last().map(|entry| entry.log_id).or(prev);
        let (until, before) = self.take_waiting();
        let answer: Pin<Box<dyn Future<Output = Response> + Send>> = if is_news {
            let (taken, is_taken) = oneshot::channel();
            self.waiting = Some(Waiting { until, taken });
            Box::pin(Later { peer: self.peer.clone(), request, until, is_taken }.wait())
        } else {
            self.tell_less(&mut request);
            // Order: queued before this returns.
            Box::pin(self.peer.append(request))
        };
        async move {
            let response = answer.await;
            if let Some(fate) = before {
                let is_done = matches!(&response, Ok(response) if response.is_success());
                // Why no matter: who was cancelled needs to know nothing.
                let _ = fate.send(is_done);
            }
            response.map(|response| response.into_stream_result(prev, last))
        }
    }

    /// Leaves out what is committed if the follower was told of something a moment ago, and will be again.
    fn tell_less(&mut self, request: &mut AppendEntriesRequest<Types>) {
        // Invariant: once the last of these entries is committed, openraft has news to tell.
        let has_more = request.leader_commit < request.entries.last().map(|entry| entry.log_id);
        let n_bytes = size_bytes(request);
        match &mut self.told {
            Some(told)
                if has_more
                    && told.at.elapsed() < NEWS_WAIT_MAX
                    && told.n_bytes < UNTOLD_BYTES_MAX =>
            {
                request.leader_commit = told.commit;
                told.n_bytes += n_bytes;
            }
            _ => {
                let (commit, at) = (request.leader_commit, Instant::now());
                self.told = Some(Told { commit, at, n_bytes });
            }
        }
    }

    /// Takes along the request that waits, if one does, and how long it may still wait.
    fn take_waiting(&mut self) -> (Instant, Option<oneshot::Sender<bool>>) {
        if let Some(waiting) = self.waiting.take() {
            let (fate, told) = oneshot::channel();
            if waiting.taken.send(told).is_ok() {
                return (waiting.until, Some(fate));
            }
        }
        (Instant::now() + NEWS_WAIT_MAX, None)
    }
}

type Response = Result<AppendEntriesResponse<Types>, RPCError<Types>>;

/// A request without entries.
struct Later {
    peer: Peer,
    request: AppendEntriesRequest<Types>,
    until: Instant,
    is_taken: oneshot::Receiver<Fate>,
}

impl Later {
    async fn wait(self) -> Response {
        let is_answered = tokio::select! {
            biased;
            taken = self.is_taken => match taken {
                // Invariant: who has what a later request follows on has what this one did.
                Ok(fate) => fate.await.unwrap_or(false),
                Err(_) => false,
            },
            () = sleep_until(self.until) => false,
        };
        if is_answered {
            return Ok(AppendEntriesResponse::Success);
        }
        self.peer.append(self.request).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, Weak};

    use api::peer::{BoxFuture, PeerError, PeerRequest, PeerResponse, PeerTransport};
    use bytes::Bytes;
    use futures_util::FutureExt;
    use mailbox::ShardId;

    use super::*;
    use crate::network::Network;
    use crate::raft::{Entry, LeaderId, LogId, Member, Payload, Proposal, Vote};
    use crate::wire;

    /// Notes how many entries each request has, and what it says is committed; the n-th fails if it was
    /// told so.
    #[derive(Clone, Default)]
    struct Follower {
        n_entries: Arc<Mutex<Vec<usize>>>,
        committed: Arc<Mutex<Vec<u64>>>,
        patience: Arc<Mutex<Vec<Duration>>>,
        fails: Option<usize>,
    }

    impl PeerTransport for Follower {
        fn call(
            &self,
            request: PeerRequest,
        ) -> BoxFuture<'static, Result<PeerResponse, PeerError>> {
            self.patience.lock().unwrap().push(request.deadline);
            let append = wire::read_append(request.meta, request.bodies).unwrap();
            let mut n_entries = self.n_entries.lock().unwrap();
            n_entries.push(append.entries.len());
            let commit = append.leader_commit.map_or(0, |log_id| log_id.index);
            self.committed.lock().unwrap().push(commit);
            if self.fails == Some(n_entries.len()) {
                return std::future::ready(Err(PeerError::Deadline)).boxed();
            }
            let meta = wire::put_append_response(&AppendEntriesResponse::Success);
            std::future::ready(Ok(PeerResponse { meta, bodies: Vec::new() })).boxed()
        }
    }

    fn log_id(index: u64) -> LogId {
        LogId { leader_id: LeaderId { term: 1, node_id: 1 }, index }
    }

    /// After the entry `prev`, with another one or only with how far the leader committed.
    fn request(prev: u64, has_entry: bool, commit: u64) -> AppendEntriesRequest<Types> {
        let entry = || Entry { log_id: log_id(prev + 1), payload: Payload::Blank };
        AppendEntriesRequest {
            vote: Vote::new(1, 1),
            prev_log_id: Some(log_id(prev)),
            entries: has_entry.then(entry).into_iter().collect(),
            leader_commit: Some(log_id(commit)),
        }
    }

    fn pipeline(follower: &Follower) -> Pipeline {
        let network = Network {
            shard: ShardId(1),
            replica: 1,
            member: Member::default(),
            transport: Arc::new(follower.clone()),
            patience: Duration::from_secs(1),
            memory: Arc::default(),
            followers: Arc::default(),
            applying: Weak::new(),
        };
        Pipeline::new(network.peer(2, &Member::default()))
    }

    /// What each request is told, in their order: the log id up to which the follower is.
    async fn told(
        pipeline: &mut Pipeline,
        requests: Vec<AppendEntriesRequest<Types>>,
    ) -> Vec<Option<u64>> {
        let answers: Vec<_> =
            requests.into_iter().map(|request| pipeline.append(request)).collect();
        let answers = futures_util::future::join_all(answers).await;
        let index = |answer: AppendResult| Some(answer.ok()?.ok()??.index);
        answers.into_iter().map(index).collect()
    }

    #[tokio::test]
    async fn news_travel_with_the_next_entries() {
        let follower = Follower::default();
        let mut pipeline = pipeline(&follower);
        let requests = vec![
            request(4, true, 4),
            request(5, false, 5),
            request(5, false, 5),
            request(5, true, 5),
        ];
        assert_eq!(told(&mut pipeline, requests).await, [Some(5), Some(5), Some(5), Some(6)]);
        assert_eq!(*follower.n_entries.lock().unwrap(), [1, 1]);
    }

    #[tokio::test]
    async fn news_alone_are_sent_a_little_later_and_the_first_request_at_once() {
        let follower = Follower::default();
        let mut pipeline = pipeline(&follower);
        assert_eq!(told(&mut pipeline, vec![request(4, false, 4)]).await, [Some(4)]);
        let begun = Instant::now();
        assert_eq!(told(&mut pipeline, vec![request(4, false, 4)]).await, [Some(4)]);
        assert!(begun.elapsed() >= NEWS_WAIT_MAX);
        assert_eq!(*follower.n_entries.lock().unwrap(), [0, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn entries_tell_what_is_committed_now_and_then() {
        let follower = Follower::default();
        let mut pipeline = pipeline(&follower);
        let requests = (4..7).map(|prev| request(prev, true, prev)).collect();
        told(&mut pipeline, requests).await;
        assert_eq!(*follower.committed.lock().unwrap(), [4, 4, 4]);
        tokio::time::advance(NEWS_WAIT_MAX).await;
        told(&mut pipeline, vec![request(7, true, 7), request(8, true, 8)]).await;
        assert_eq!(*follower.committed.lock().unwrap(), [4, 4, 4, 7, 7]);
        // News alone tell all there is.
        told(&mut pipeline, vec![request(9, false, 9)]).await;
        assert_eq!(*follower.committed.lock().unwrap(), [4, 4, 4, 7, 7, 9]);
    }

    #[tokio::test(start_paused = true)]
    async fn large_entries_tell_what_is_committed_at_once() {
        let follower = Follower::default();
        let mut pipeline = pipeline(&follower);
        let large = |prev| {
            let mut request = request(prev, true, prev);
            let command = Bytes::from(vec![0; UNTOLD_BYTES_MAX]);
            request.entries[0].payload =
                Payload::Normal(Proposal { command, inline: Arc::default() });
            request
        };
        told(&mut pipeline, vec![request(4, true, 4), large(5), large(6), large(7)]).await;
        assert_eq!(*follower.committed.lock().unwrap(), [4, 4, 6, 7]);
        // And may take as long as four of them do over a slow network.
        let patience = follower.patience.lock().unwrap();
        assert_eq!(patience[0], Duration::from_secs(1));
        assert!(patience[1] > Duration::from_secs(16));
    }

    #[tokio::test(start_paused = true)]
    async fn entries_that_are_committed_themselves_say_so_at_once() {
        let follower = Follower::default();
        let mut pipeline = pipeline(&follower);
        told(&mut pipeline, vec![request(4, true, 4), request(5, true, 6)]).await;
        assert_eq!(*follower.committed.lock().unwrap(), [4, 6]);
    }

    #[tokio::test]
    async fn news_are_sent_themselves_when_the_entries_they_waited_for_fail() {
        let follower = Follower { fails: Some(2), ..Follower::default() };
        let mut pipeline = pipeline(&follower);
        let requests = vec![request(4, true, 4), request(5, false, 5), request(5, true, 5)];
        assert_eq!(told(&mut pipeline, requests).await, [Some(5), Some(5), None]);
        assert_eq!(*follower.n_entries.lock().unwrap(), [1, 1, 0]);
    }
}
