//! One stream of appends to one follower: several under way, and none for nothing.
//!
//! openraft makes a request without entries whenever more is committed and there is nothing else to
//! say, which is after almost every entry. A follower is in no hurry to hear that, so such a request
//! waits a moment; when one with entries comes meanwhile, that carries the news, and nothing is sent or
//! answered in the place of the other one: openraft counts what a follower has, not answers.
//! Nor does each request with entries say what else is committed: a follower that hears of several
//! entries at once applies them at once.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::Stream;
use openraft::errors::RPCError;
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::network::Peer;
use crate::pace::size_bytes;
use crate::raft::{LogId, Types};

/// How long a follower may not know what is committed. Shorter than a heartbeat, which tells it too; and
/// whoever leads next has no more than that to apply before it serves.
const NEWS_WAIT_MAX: Duration = Duration::from_millis(100);
/// Limit: bytes of entries after which it is told at once: until then it keeps them in memory.
const UNTOLD_BYTES_MAX: usize = 256 << 10;

pub(crate) type AppendResult = Result<StreamAppendResult<Types>, RPCError<Types>>;

/// The requests for one follower, without those whose news travel with others.
pub(crate) struct Sparing<S> {
    requests: S,
    is_begun: bool,
    has_ended: bool,
    /// The last request without entries, as long as it waits.
    news: Option<AppendEntriesRequest<Types>>,
    /// It goes alone then.
    until: Instant,
    /// Wakes up then, or sooner. Why it stays: most news never wait to the end.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl<S> Sparing<S> {
    pub fn new(requests: S) -> Self {
        let (news, until, alarm) = (None, Instant::now(), None);
        Self { requests, is_begun: false, has_ended: false, news, until, alarm }
    }

    /// Ends when the news have waited long enough.
    fn poll_until(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let until = self.until;
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(until)));
        loop {
            ready!(alarm.as_mut().poll(context));
            if Instant::now() >= until {
                return Poll::Ready(());
            }
            alarm.as_mut().reset(until);
        }
    }
}

impl<S: Stream<Item = AppendEntriesRequest<Types>> + Unpin> Stream for Sparing<S> {
    type Item = AppendEntriesRequest<Types>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        while !this.has_ended {
            match Pin::new(&mut this.requests).poll_next(context) {
                // Why not the first: it asks where the follower is.
                Poll::Ready(Some(request)) if this.is_begun && request.entries.is_empty() => {
                    if this.news.is_none() {
                        this.until = Instant::now() + NEWS_WAIT_MAX;
                    }
                    this.news = Some(request);
                }
                Poll::Ready(Some(request)) => {
                    this.is_begun = true;
                    // Invariant: it was made later, so it says all that is committed.
                    this.news = None;
                    return Poll::Ready(Some(request));
                }
                Poll::Ready(None) => this.has_ended = true,
                Poll::Pending => break,
            }
        }
        // Why at once at the end: openraft takes a stream whose last request was not answered for one that
        // got nowhere.
        if this.news.is_some() && !this.has_ended {
            ready!(this.poll_until(context));
        }
        match this.news.take() {
            None if !this.has_ended => Poll::Pending,
            news => Poll::Ready(news),
        }
    }
}

/// See the module.
pub(crate) struct Pipeline {
    peer: Peer,
    told: Option<Told>,
}

/// What the follower was last told of what is committed, and when.
struct Told {
    commit: Option<LogId>,
    at: Instant,
    /// Bytes of the entries sent since.
    n_bytes: usize,
}

impl Pipeline {
    pub fn new(peer: Peer) -> Self {
        Self { peer, told: None }
    }

    /// Takes the next request; each is sent in the order of the calls.
    pub fn append(
        &mut self,
        mut request: AppendEntriesRequest<Types>,
    ) -> impl Future<Output = AppendResult> + Send + use<> {
        self.tell_less(&mut request);
        let prev = request.prev_log_id;
        let last = request.entries.last().map(|entry| entry.log_id).or(prev);
        // Order: queued before this returns.
        let answer = self.peer.append(request);
        async move { answer.await.map(|response| response.into_stream_result(prev, last)) }
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
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, Weak};

    use api::peer::{BoxFuture, PeerError, PeerRequest, PeerResponse, PeerTransport};
    use bytes::Bytes;
    use futures_util::{FutureExt, StreamExt, stream};
    use mailbox::ShardId;
    use openraft::raft::AppendEntriesResponse;

    use super::*;
    use crate::network::Network;
    use crate::raft::{Entry, LeaderId, LogId, Member, Payload, Proposal, Vote};
    use crate::wire;

    /// Notes how many entries each request has, and what it says is committed.
    #[derive(Clone, Default)]
    struct Follower {
        n_entries: Arc<Mutex<Vec<usize>>>,
        committed: Arc<Mutex<Vec<u64>>>,
        patience: Arc<Mutex<Vec<Duration>>>,
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

    fn index(answer: AppendResult) -> Option<u64> {
        Some(answer.ok()?.ok()??.index)
    }

    /// What each request is told, in their order: the log id up to which the follower is.
    async fn told(
        pipeline: &mut Pipeline,
        requests: Vec<AppendEntriesRequest<Types>>,
    ) -> Vec<Option<u64>> {
        let answers: Vec<_> =
            requests.into_iter().map(|request| pipeline.append(request)).collect();
        let answers = futures_util::future::join_all(answers).await;
        answers.into_iter().map(index).collect()
    }

    /// The same of those that are sent.
    async fn sent(
        follower: &Follower,
        requests: Vec<AppendEntriesRequest<Types>>,
    ) -> Vec<Option<u64>> {
        let requests: Vec<_> = Sparing::new(stream::iter(requests)).collect().await;
        told(&mut pipeline(follower), requests).await
    }

    #[tokio::test]
    async fn news_travel_with_the_next_entries() {
        let follower = Follower::default();
        let requests = vec![
            request(4, true, 4),
            request(5, false, 5),
            request(5, false, 5),
            request(5, true, 5),
        ];
        assert_eq!(sent(&follower, requests).await, [Some(5), Some(6)]);
        assert_eq!(*follower.n_entries.lock().unwrap(), [1, 1]);
    }

    #[tokio::test]
    async fn news_alone_are_sent_a_little_later_and_the_first_request_at_once() {
        let all = [4, 5, 6].map(|commit| request(6, false, commit));
        let mut requests = Sparing::new(stream::iter(all).chain(stream::pending()));
        assert!(requests.next().now_or_never().flatten().is_some());
        let begun = Instant::now();
        let news = requests.next().await.unwrap();
        assert!(begun.elapsed() >= NEWS_WAIT_MAX);
        assert_eq!(news.leader_commit, Some(log_id(6)), "the last ones tell all");
        assert!(requests.next().now_or_never().is_none(), "they are sent once");
    }

    #[tokio::test(start_paused = true)]
    async fn news_wait_anew_after_entries_took_some_along() {
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        let receiver = tokio_stream::wrappers::UnboundedReceiverStream::new(receiver);
        let mut requests = Sparing::new(receiver);
        for request in [request(4, true, 4), request(5, false, 5)] {
            sender.send(request).unwrap();
        }
        assert!(requests.next().now_or_never().flatten().is_some());
        assert!(requests.next().now_or_never().is_none());
        tokio::time::advance(NEWS_WAIT_MAX / 2).await;
        for request in [request(5, true, 5), request(6, false, 6)] {
            sender.send(request).unwrap();
        }
        let begun = Instant::now();
        assert_eq!(requests.next().await.unwrap().entries.len(), 1);
        assert_eq!(begun.elapsed(), Duration::ZERO);
        assert_eq!(requests.next().await.unwrap().entries.len(), 0);
        assert!(begun.elapsed() >= NEWS_WAIT_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn news_that_wait_when_there_are_no_more_requests_are_sent_at_once() {
        let (follower, begun) = (Follower::default(), Instant::now());
        let requests = vec![request(4, true, 4), request(5, false, 5)];
        assert_eq!(sent(&follower, requests).await, [Some(5), Some(5)]);
        assert_eq!(*follower.n_entries.lock().unwrap(), [1, 0]);
        assert_eq!(begun.elapsed(), Duration::ZERO);
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
}
