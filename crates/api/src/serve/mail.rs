//! Service mail over a [`MailHandler`]. Accounts, addresses and groups are changed by operators alone, and
//! only they list them or read an account's rows as they are.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::OptionFuture;
use futures_util::{FutureExt, Stream, StreamExt};
use mailbox::command::{MoveAccount, MoveStep};
use mailbox::{AccountId, Command, Query, ShardId, StoredChunk};
use prost::Message;
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::task::JoinSet;
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, sleep_until, timeout};
use tonic::{Request, Response, Status, Streaming};

use crate::convert::mail::{change_to_wire, chunk_ref, decode, encode};
use crate::convert::{Malformed, id};
use crate::dial::MESSAGE_BYTES_MAX;
use crate::mail::{Changes, MailError, MailHandler};
use crate::proto::mail as wire;
use crate::proto::mail::mail_server::Mail;
use crate::tls::{Peer, Role};
use wire::request_frame::Request as Asked;
use wire::response_frame::Response as Told;
use wire::{chunk_response, maildrop_response, propose_response, query_response};

/// Limit: changes in one message of a watch; those that are there at once travel together.
const CHANGES_PER_MESSAGE_MAX: usize = 64;

/// How long changes gather after some were told. Those that come after a pause are told at once: IDLE waits
/// for them.
const TELL_AFTER: Duration = Duration::from_millis(5);

/// Limit: requests of one stream that are answered at once; above it nothing more is read.
const RUNNING_MAX: usize = 4096;

/// Limit: how long a request may take, whatever its caller says: several times what any client of ours waits
/// (`client::DEADLINE`).
const PATIENCE_MAX: Duration = Duration::from_secs(60);

/// Limit: octets of an answer that travels with the outcome of a command: half of what a message may have.
const ANSWER_BESIDE_BYTES_MAX: usize = MESSAGE_BYTES_MAX / 2;

/// Most questions are smaller; those that tell all UIDs a client knows may be larger.
const LARGE_QUERY_BYTES: usize = 64 * 1024;
/// Limit: KiB of large questions that are answered at once. What is in commands a shard counts itself.
const LARGE_QUERIES_KIB_MAX: usize = 64 * 1024;

#[derive(Clone)]
pub(super) struct MailService {
    handler: Arc<dyn MailHandler>,
    stopped: watch::Receiver<bool>,
    large_queries: Arc<Semaphore>,
}

#[tonic::async_trait]
impl Mail for MailService {
    type ExchangeStream = Pin<Box<dyn Stream<Item = Result<wire::ResponseFrame, Status>> + Send>>;
    type WatchStream = Pin<Box<dyn Stream<Item = Result<wire::WatchResponse, Status>> + Send>>;

    async fn propose(
        &self,
        request: Request<wire::ProposeRequest>,
    ) -> Result<Response<wire::ProposeResponse>, Status> {
        let role = role(&request);
        let done = timeout(PATIENCE_MAX, self.put(request.into_inner(), role)).await;
        Ok(Response::new(done.map_err(|_| not_in_time())??))
    }

    async fn query(
        &self,
        request: Request<wire::QueryRequest>,
    ) -> Result<Response<wire::QueryResponse>, Status> {
        let role = role(&request);
        let asked = timeout(PATIENCE_MAX, self.ask(request.into_inner(), role)).await;
        Ok(Response::new(asked.map_err(|_| not_in_time())??))
    }

    async fn exchange(
        &self,
        request: Request<Streaming<wire::RequestFrame>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let (service, role) = (self.clone(), role(&request));
        // Why only these end: what runs is told to the end, within the grace of the shutdown.
        let frames = request.into_inner().take_until(Box::pin(super::ended(self.stopped.clone())));
        let stream = told(frames, move |frame| service.clone().tell(frame, role));
        Ok(Response::new(Box::pin(stream.map(Ok))))
    }

    async fn chunk(
        &self,
        request: Request<wire::ChunkRequest>,
    ) -> Result<Response<wire::ChunkResponse>, Status> {
        let message = request.into_inner();
        let chunk = chunk_ref(&message.digest, message.raw_len)?;
        let result = match self.handler.chunk(ShardId(message.shard), chunk).await {
            Ok(stored) => chunk_response::Result::Chunk(stored.into()),
            Err(error) => chunk_response::Result::Error(error.into()),
        };
        Ok(Response::new(wire::ChunkResponse { result: Some(result) }))
    }

    async fn watch(
        &self,
        request: Request<wire::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let message = request.into_inner();
        let stopped = super::ended(self.stopped.clone());
        let failed = |error: MailError| wire::WatchResponse {
            changes: Vec::new(),
            error: Some(error.into()),
        };
        let stream: Self::WatchStream =
            match self.handler.watch(ShardId(message.shard), message.from).await {
                Ok(changes) => {
                    // The first message is empty: it says that the subscription stands.
                    let first = futures_util::stream::iter([wire::WatchResponse::default()]);
                    let told = first.chain(messages(changes));
                    Box::pin(told.map(Ok).take_until(Box::pin(stopped)))
                }
                Err(error) => {
                    Box::pin(futures_util::stream::once(async move { Ok(failed(error)) }))
                }
            };
        Ok(Response::new(stream))
    }

    async fn leader(
        &self,
        request: Request<wire::LeaderRequest>,
    ) -> Result<Response<wire::LeaderResponse>, Status> {
        let shard = ShardId(request.into_inner().shard);
        let response = match self.handler.leader(shard).await {
            Ok(known) => wire::LeaderResponse {
                leader: known.leader.unwrap_or_default(),
                term: known.term,
                error: None,
            },
            Err(error) => wire::LeaderResponse { error: Some(error.into()), ..Default::default() },
        };
        Ok(Response::new(response))
    }

    async fn maildrop(
        &self,
        request: Request<wire::MaildropRequest>,
    ) -> Result<Response<wire::MaildropResponse>, Status> {
        let message = request.into_inner();
        let account = AccountId(id(&message.account, "id of an account")?);
        let token = id(&message.token, "token of a maildrop")?;
        let shard = ShardId(message.shard);
        let held = match message.release {
            true => self.handler.unlock_maildrop(shard, account, token).await.map(|()| false),
            false => self.handler.lock_maildrop(shard, account, token).await,
        };
        let result = match held {
            Ok(held) => maildrop_response::Result::Held(held),
            Err(error) => maildrop_response::Result::Error(error.into()),
        };
        Ok(Response::new(wire::MaildropResponse { result: Some(result) }))
    }
}

impl MailService {
    pub(super) fn new(handler: Arc<dyn MailHandler>, stopped: watch::Receiver<bool>) -> Self {
        Self { handler, stopped, large_queries: Arc::new(Semaphore::new(LARGE_QUERIES_KIB_MAX)) }
    }

    /// Room for a question of so many octets, if it needs any.
    fn room(&self, n_bytes: usize) -> Result<Option<SemaphorePermit<'_>>, MailError> {
        if n_bytes <= LARGE_QUERY_BYTES {
            return Ok(None);
        }
        let kib = u32::try_from(n_bytes / 1024 + 1).map_err(|_| MailError::TooLarge)?;
        let room = self.large_queries.try_acquire_many(kib);
        room.map(Some).map_err(|_| MailError::Overloaded)
    }

    async fn put(
        &self,
        message: wire::ProposeRequest,
        role: Option<Role>,
    ) -> Result<wire::ProposeResponse, Status> {
        let request: mailbox::Request = decode(&message.request, "request")?;
        if !is_for(role, &request.command) {
            return Err(Status::permission_denied("not for this role"));
        }
        if !request.command.is_sound() {
            return Err(Malformed("metadata").into());
        }
        let chunks: Result<Vec<_>, _> =
            message.chunks.into_iter().map(StoredChunk::try_from).collect();
        let then: Option<Query> = match message.then.is_empty() {
            true => None,
            false => Some(decode(&message.then, "query")?),
        };
        if then.as_ref().is_some_and(|then| !may_ask(role, then)) {
            return Err(Status::permission_denied("not for this role"));
        }
        let result = self.handler.propose(ShardId(message.shard), request, chunks?, then).await;
        let (result, answer) = match result {
            Ok((outcome, answer)) => {
                let answer = answer.map(|answer| encode(&answer));
                // Why: with a larger one the outcome could not be told either.
                let answer = answer.filter(|answer| answer.len() <= ANSWER_BESIDE_BYTES_MAX);
                let answer = answer.unwrap_or_default();
                (propose_response::Result::Outcome(encode(&outcome)), answer)
            }
            Err(error) => (propose_response::Result::Error(error.into()), Bytes::new()),
        };
        Ok(wire::ProposeResponse { result: Some(result), answer })
    }

    async fn ask(
        &self,
        message: wire::QueryRequest,
        role: Option<Role>,
    ) -> Result<wire::QueryResponse, Status> {
        let _room = match self.room(message.query.len()) {
            Ok(room) => room,
            Err(error) => {
                let result = Some(query_response::Result::Error(error.into()));
                return Ok(wire::QueryResponse { result, chunks: Vec::new() });
            }
        };
        let query: Query = decode(&message.query, "query")?;
        if !may_ask(role, &query) {
            return Err(Status::permission_denied("not for this role"));
        }
        let shard = ShardId(message.shard);
        let mut chunks = Vec::new();
        let result = match self.handler.query(shard, query, message.linearizable).await {
            Ok(answer) => {
                let beside = self.handler.beside(shard, &answer).await;
                chunks = beside.into_iter().map(Into::into).collect();
                query_response::Result::Answer(encode(&answer))
            }
            Err(error) => query_response::Result::Error(error.into()),
        };
        Ok(wire::QueryResponse { result: Some(result), chunks })
    }

    /// Answers one request of a stream, within its deadline.
    async fn tell(self, frame: wire::RequestFrame, role: Option<Role>) -> wire::ResponseFrame {
        let patience = Duration::from_millis(frame.deadline_ms.into()).min(PATIENCE_MAX);
        let response = match frame.request {
            Some(Asked::Propose(message)) => {
                Some(Told::Propose(self.put_in_time(message, role, patience).await))
            }
            Some(Asked::Query(message)) => {
                // Why a task: many cores read rows for one stream. When that is gone, the task is too.
                let mut asking = JoinSet::new();
                asking.spawn(async move { self.ask_in_time(message, role, patience).await });
                asking.join_next().await.and_then(Result::ok).map(Told::Query)
            }
            None => None,
        };
        let told = wire::ResponseFrame { id: frame.id, response };
        // Why here: on the stream it would end all that is under way.
        if told.encoded_len() > MESSAGE_BYTES_MAX {
            // Why an answer: silence would be taken for a leader that is lost.
            let result = Some(query_response::Result::Error(MailError::TooLarge.into()));
            let too_large = wire::QueryResponse { result, chunks: Vec::new() };
            let is_query = matches!(told.response, Some(Told::Query(_)));
            let response = is_query.then_some(Told::Query(too_large));
            return wire::ResponseFrame { id: frame.id, response };
        }
        told
    }

    async fn put_in_time(
        &self,
        message: wire::ProposeRequest,
        role: Option<Role>,
        patience: Duration,
    ) -> wire::ProposeResponse {
        let error = match timeout(patience, self.put(message, role)).await {
            Ok(Ok(response)) => return response,
            Ok(Err(_)) => MailError::Invalid,
            Err(_) => MailError::Unknown,
        };
        wire::ProposeResponse {
            answer: Bytes::new(),
            result: Some(propose_response::Result::Error(error.into())),
        }
    }

    async fn ask_in_time(
        &self,
        message: wire::QueryRequest,
        role: Option<Role>,
        patience: Duration,
    ) -> wire::QueryResponse {
        let error = match timeout(patience, self.ask(message, role)).await {
            Ok(Ok(response)) => return response,
            Ok(Err(_)) => MailError::Invalid,
            Err(_) => MailError::Unavailable,
        };
        let result = Some(query_response::Result::Error(error.into()));
        wire::QueryResponse { result, chunks: Vec::new() }
    }
}

/// The answers to one stream of requests. It is over at once when that cannot be read any more, whatever is
/// under way: who sends is to know. Why no error then: of what was sent before nobody knows whether it was
/// done.
fn told<F: Future<Output = wire::ResponseFrame>>(
    frames: impl Stream<Item = Result<wire::RequestFrame, Status>>,
    tell: impl Fn(wire::RequestFrame) -> F,
) -> impl Stream<Item = wire::ResponseFrame> {
    frames
        .map(move |frame| OptionFuture::from(frame.ok().map(&tell)))
        .buffer_unordered(RUNNING_MAX)
        .scan((), |_, told| std::future::ready(told))
}

fn not_in_time() -> Status {
    Status::deadline_exceeded("no answer in time")
}

/// What the caller proved to be.
fn role<T>(request: &Request<T>) -> Option<Role> {
    request.extensions().get::<Peer>().map(|peer| peer.role)
}

/// Whether a caller may propose this.
fn is_for(role: Option<Role>, command: &Command) -> bool {
    match command {
        // Why: whoever needs an account finishes a move that was broken off after the departure.
        Command::MoveAccount(MoveAccount { step: MoveStep::Settle(_), .. }) => true,
        Command::ClaimAddress(_)
        | Command::ReleaseAddress(_)
        | Command::RepointAddress(_)
        | Command::SetGroup(_)
        | Command::CreateAccount(_)
        | Command::ChangeAccount(_)
        | Command::DeleteAccount(_)
        | Command::MoveAccount(_) => role == Some(Role::Admin),
        // Why nobody: a shard's own leader proposes them, and not by this way.
        Command::Housekeep(_) | Command::Renumber(_) => false,
        Command::OpenSession(_)
        | Command::CreateMailbox(_)
        | Command::DeleteMailbox(_)
        | Command::RenameMailbox(_)
        | Command::Subscribe(_)
        | Command::ClaimRecent(..)
        | Command::Upload(_)
        | Command::Deliver(_)
        | Command::Append(_)
        | Command::Store(_)
        | Command::Copy(_)
        | Command::Move(_)
        | Command::Expunge(_) => true,
    }
}

/// Whether a caller may ask this: sessions ask about one account and what they see of it.
fn may_ask(role: Option<Role>, query: &Query) -> bool {
    match query {
        Query::Accounts(_)
        | Query::Groups(_)
        | Query::Moving(_)
        | Query::AccountRows(..)
        | Query::ChangedRows(..) => role == Some(Role::Admin),
        Query::Resolve(_)
        | Query::Account(_)
        | Query::Mailboxes(_)
        | Query::Holds(..)
        | Query::Mailbox(_)
        | Query::Open(..)
        | Query::Uids(_)
        | Query::Messages(_)
        | Query::Bodies(_)
        | Query::Vanished(_)
        | Query::News(..)
        | Query::Search(_)
        | Query::Sort(_)
        | Query::Thread(_) => true,
    }
}

/// Changes as they are told. Those of one account come one by one, and each message costs both ends as much
/// as a small request.
fn messages(changes: Changes) -> impl Stream<Item = wire::WatchResponse> + Send {
    let begun = (changes.peekable(), None::<Instant>);
    futures_util::stream::unfold(begun, |(mut changes, quiet_until)| async move {
        Pin::new(&mut changes).peek().await?;
        if let Some(until) = quiet_until.filter(|until| Instant::now() < *until) {
            sleep_until(until).await;
        }
        let mut some = Vec::new();
        // Why unconstrained: a task that had its share of time is told that nothing is there.
        while some.len() < CHANGES_PER_MESSAGE_MAX
            && let Some(Some(change)) = unconstrained(changes.next()).now_or_never()
        {
            some.push(change);
        }
        // Why not after a full one: more may wait already, and who is too far behind is cut off.
        let is_full = some.len() == CHANGES_PER_MESSAGE_MAX;
        let quiet_until = (!is_full).then(|| Instant::now() + TELL_AFTER);
        Some((batch(some), (changes, quiet_until)))
    })
    .fuse()
}

/// Changes that were there at once as one message; an error ends it.
fn batch(changes: Vec<Result<(u64, mailbox::Change), MailError>>) -> wire::WatchResponse {
    let mut message = wire::WatchResponse::default();
    for change in changes {
        match change {
            Ok((log_index, change)) => message.changes.push(change_to_wire(log_index, &change)),
            Err(error) => {
                message.error = Some(error.into());
                break;
            }
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use mailbox::command::OfMailbox;
    use mailbox::{Answer, Change, ChunkRef, MailboxId, ModSeq, Outcome};
    use tokio::sync::mpsc;
    use tokio::time::sleep;
    use tokio_stream::wrappers::UnboundedReceiverStream;

    use super::*;
    use crate::mail::Leadership;

    /// Has no majority, and never will.
    struct Silent;

    #[async_trait]
    impl MailHandler for Silent {
        async fn propose(
            &self,
            _: ShardId,
            _: mailbox::Request,
            _: Vec<StoredChunk>,
            _: Option<Query>,
        ) -> Result<(Outcome, Option<Answer>), MailError> {
            std::future::pending().await
        }

        async fn query(&self, _: ShardId, _: Query, _: bool) -> Result<Answer, MailError> {
            std::future::pending().await
        }

        async fn chunk(&self, _: ShardId, _: ChunkRef) -> Result<StoredChunk, MailError> {
            std::future::pending().await
        }

        async fn watch(&self, _: ShardId, _: u64) -> Result<Changes, MailError> {
            std::future::pending().await
        }

        async fn leader(&self, _: ShardId) -> Result<Leadership, MailError> {
            std::future::pending().await
        }

        async fn lock_maildrop(
            &self,
            _: ShardId,
            _: AccountId,
            _: [u8; 16],
        ) -> Result<bool, MailError> {
            std::future::pending().await
        }

        async fn unlock_maildrop(
            &self,
            _: ShardId,
            _: AccountId,
            _: [u8; 16],
        ) -> Result<(), MailError> {
            std::future::pending().await
        }
    }

    #[test]
    fn a_stream_that_cannot_be_read_on_is_over_whatever_is_under_way() {
        let request = |id| Ok(wire::RequestFrame { id, ..Default::default() });
        let full = Err(Status::resource_exhausted("full"));
        let requests = futures_util::stream::iter([request(1), request(2), full]);
        let requests = requests.chain(futures_util::stream::pending());
        let mut told = Box::pin(told(requests, |request| async move {
            if request.id == 1 {
                std::future::pending::<()>().await;
            }
            wire::ResponseFrame { id: request.id, response: None }
        }));
        let next = told.next().now_or_never().flatten();
        assert_eq!(next.map(|response| response.id), Some(2));
        assert!(matches!(told.next().now_or_never(), Some(None)));
    }

    #[tokio::test(start_paused = true)]
    async fn no_request_takes_for_ever() {
        let (_stop, stopped) = watch::channel(false);
        let service = MailService::new(Arc::new(Silent), stopped);
        let query = encode(&Query::Account(AccountId([1; 16])));
        let message = wire::QueryRequest { shard: 1, query, linearizable: true };
        let began = Instant::now();
        let request = Some(Asked::Query(message.clone()));
        let frame = wire::RequestFrame { id: 1, deadline_ms: u32::MAX, request };
        let told = service.clone().tell(frame, Some(Role::Frontend)).await;
        assert!(matches!(told.response, Some(Told::Query(_))));
        assert!(Mail::query(&service, Request::new(message)).await.is_err());
        assert!(began.elapsed() < 3 * PATIENCE_MAX, "{:?}", began.elapsed());
    }

    #[test]
    fn large_questions_that_are_not_answered_find_no_room_and_small_ones_need_none() {
        let (_stop, stopped) = watch::channel(false);
        let service = MailService::new(Arc::new(Silent), stopped);
        let nearly_all = service.room(LARGE_QUERIES_KIB_MAX * 1024 - LARGE_QUERY_BYTES);
        assert!(matches!(nearly_all, Ok(Some(_))));
        let refused = service.room(LARGE_QUERY_BYTES + 1).err();
        assert_eq!(refused, Some(MailError::Overloaded));
        assert!(matches!(service.room(LARGE_QUERY_BYTES), Ok(None)));
        drop(nearly_all);
        assert!(service.room(LARGE_QUERY_BYTES + 1).is_ok());
    }

    type Sender = mpsc::UnboundedSender<Result<(u64, Change), MailError>>;

    fn change(sender: &Sender, log_index: u64) {
        let of = OfMailbox { account: AccountId([1; 16]), mailbox: MailboxId(1) };
        let change = Change { of, highest_modseq: ModSeq::new(log_index).unwrap() };
        sender.send(Ok((log_index, change))).unwrap();
    }

    fn indexes(message: &wire::WatchResponse) -> Vec<u64> {
        message.changes.iter().map(|change| change.log_index).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn news_after_a_pause_are_told_at_once_and_those_behind_them_together() {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut told = Box::pin(messages(Box::pin(UnboundedReceiverStream::new(receiver))));
        assert!(told.next().now_or_never().is_none());
        for round in 0..3 {
            let first = 10 * round + 1;
            change(&sender, first);
            let message = told.next().now_or_never().expect("told at once").unwrap();
            assert_eq!(indexes(&message), [first]);
            let began = Instant::now();
            change(&sender, first + 1);
            assert!(told.next().now_or_never().is_none(), "a message for each");
            change(&sender, first + 2);
            let message = told.next().await.unwrap();
            assert_eq!(indexes(&message), [first + 1, first + 2]);
            assert!(began.elapsed() <= TELL_AFTER + Duration::from_millis(1));
            sleep(TELL_AFTER * 2).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn all_changes_are_told_in_their_order_to_the_end_and_full_messages_do_not_wait() {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut told = Box::pin(messages(Box::pin(UnboundedReceiverStream::new(receiver))));
        let n = 20 * CHANGES_PER_MESSAGE_MAX as u64 + 1;
        for log_index in 1..=n {
            change(&sender, log_index);
        }
        sender.send(Err(MailError::Unavailable)).unwrap();
        drop(sender);
        let (began, mut all) = (Instant::now(), Vec::new());
        let mut error = None;
        while let Some(message) = told.next().await {
            assert!(error.is_none(), "the error is the last word");
            all.extend(indexes(&message));
            error = message.error;
        }
        assert_eq!(all, (1..=n).collect::<Vec<_>>());
        assert_eq!(error, Some(MailError::Unavailable.into()));
        assert!(began.elapsed() < TELL_AFTER, "{:?}", began.elapsed());
        assert!(told.next().await.is_none());
    }
}
