//! The stream to one node that commands and questions take. A call of its own for each of them costs
//! more than what most of them ask for.
//!
//! Promises: an answer says of a request what a call of its own would say; of a stream that never came
//! about nothing was sent. A node that does not know such streams is called as before.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use prost::Message;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};
use tracing::debug;

use crate::dial::{MESSAGE_BYTES_MAX, NotConnected};
use crate::proto::mail as wire;
use crate::proto::mail::mail_client::MailClient;
use wire::request_frame::Request as Asked;
use wire::response_frame::Response as Told;

/// Limit: requests that wait to be sent.
const QUEUE_LEN_MAX: usize = 4096;
/// Limit: octets that wait to be sent, of requests that may have been given up meanwhile; some times what
/// a connection has under way.
const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A node that knew no streams is asked for one again after so long: it may be of a later version by now.
const UNARY_FOR: Duration = Duration::from_secs(60);

/// Limit: octets an id takes in a frame.
const ID_BYTES_MAX: usize = 16;

/// To one node. Cheap to make: the stream begins when it is needed, and again when it broke.
pub(crate) struct Exchange {
    client: MailClient<Channel>,
    line: Mutex<Option<Arc<Line>>>,
    /// The node did not know streams; no other is tried before this.
    unary_until: Mutex<Option<Instant>>,
}

impl Exchange {
    pub(super) fn new(client: MailClient<Channel>) -> Self {
        Self { client, line: Mutex::new(None), unary_until: Mutex::new(None) }
    }

    /// Puts a command into a shard's log.
    pub(super) async fn propose(
        &self,
        message: wire::ProposeRequest,
        deadline: Instant,
    ) -> Result<Response<wire::ProposeResponse>, Status> {
        match self.call(Asked::Propose(message.clone()), deadline).await {
            Some(Ok(Told::Propose(response))) => Ok(Response::new(response)),
            Some(Ok(_)) => Err(Status::internal("answer to another request")),
            Some(Err(status)) => Err(status),
            None => self.client.clone().propose(message).await,
        }
    }

    /// Asks a question.
    pub(super) async fn query(
        &self,
        message: wire::QueryRequest,
        deadline: Instant,
    ) -> Result<Response<wire::QueryResponse>, Status> {
        match self.call(Asked::Query(message.clone()), deadline).await {
            Some(Ok(Told::Query(response))) => Ok(Response::new(response)),
            Some(Ok(_)) => Err(Status::internal("answer to another request")),
            Some(Err(status)) => Err(status),
            None => self.client.clone().query(message).await,
        }
    }

    /// `None`: the node knows no streams, and has done nothing.
    async fn call(&self, request: Asked, deadline: Instant) -> Option<Result<Told, Status>> {
        if self.unary_until().is_some_and(|until| Instant::now() < until) {
            return None;
        }
        let told = match self.line().send(request, deadline) {
            Ok(mut waiting) => waiting.answer().await,
            Err(status) => Err(status),
        };
        if told.as_ref().is_err_and(|status| status.code() == Code::Unimplemented) {
            *self.unary_until() = Some(Instant::now() + UNARY_FOR);
            return None;
        }
        Some(told)
    }

    fn unary_until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.unary_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn line(&self) -> Arc<Line> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        match &*line {
            Some(line) if !line.has_ended() => Arc::clone(line),
            _ => Arc::clone(line.insert(Line::begin(self.client.clone()))),
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let line = self.line.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = line {
            line.end(&Status::cancelled("client closed"));
        }
    }
}

/// One stream from its beginning to its end.
struct Line {
    state: Mutex<State>,
    n_bytes: Arc<AtomicUsize>,
}

struct State {
    /// `None` when the stream has ended.
    frames: Option<mpsc::Sender<(usize, wire::RequestFrame)>>,
    next_id: u64,
    waiting: HashMap<u64, oneshot::Sender<Result<Told, Status>>>,
}

impl Line {
    fn begin(client: MailClient<Channel>) -> Arc<Self> {
        let (frames, queued) = mpsc::channel(QUEUE_LEN_MAX);
        let state = State { frames: Some(frames), next_id: 1, waiting: HashMap::new() };
        let line = Arc::new(Self { state: Mutex::new(state), n_bytes: Arc::default() });
        let this = Arc::clone(&line);
        tokio::spawn(async move {
            let status = this.run(client, queued).await;
            debug!(%status, "stream to node ended");
            this.end(&status);
        });
        line
    }

    async fn run(
        &self,
        mut client: MailClient<Channel>,
        queued: mpsc::Receiver<(usize, wire::RequestFrame)>,
    ) -> Status {
        let n_bytes = Arc::clone(&self.n_bytes);
        let requests = ReceiverStream::new(queued).map(move |(size, frame)| {
            n_bytes.fetch_sub(size, Ordering::Relaxed);
            frame
        });
        let mut responses = match client.exchange(requests).await {
            Ok(response) => response.into_inner(),
            Err(status) => return status,
        };
        loop {
            match responses.message().await {
                Ok(Some(frame)) => self.answered(frame),
                Ok(None) => return Status::unavailable("closed by the node"),
                Err(status) => return status,
            }
        }
    }

    fn send(self: &Arc<Self>, request: Asked, deadline: Instant) -> Result<Waiting, Status> {
        let left = deadline.saturating_duration_since(Instant::now());
        let deadline_ms = u32::try_from(left.as_millis()).unwrap_or(u32::MAX);
        let mut frame = wire::RequestFrame { id: 0, deadline_ms, request: Some(request) };
        // Why here: on the stream it would end all that is under way.
        let size = frame.encoded_len();
        if size + ID_BYTES_MAX > MESSAGE_BYTES_MAX {
            return Err(Status::out_of_range("request larger than a message may be"));
        }
        if self.n_bytes.load(Ordering::Relaxed) > QUEUE_BYTES_MAX {
            return Err(Status::resource_exhausted(QUEUE_FULL));
        }
        let mut state = self.state();
        frame.id = state.next_id;
        state.next_id += 1;
        let id = frame.id;
        let frames = state.frames.as_ref().ok_or_else(|| never("stream ended"))?;
        self.n_bytes.fetch_add(size, Ordering::Relaxed);
        if frames.try_send((size, frame)).is_err() {
            self.n_bytes.fetch_sub(size, Ordering::Relaxed);
            return Err(Status::resource_exhausted(QUEUE_FULL));
        }
        let (sender, answer) = oneshot::channel();
        state.waiting.insert(id, sender);
        drop(state);
        Ok(Waiting { line: Arc::clone(self), id, answer })
    }

    fn answered(&self, frame: wire::ResponseFrame) {
        let sender = self.state().waiting.remove(&frame.id);
        if let Some(sender) = sender {
            let told = frame.response.ok_or_else(|| Status::internal("no answer in the answer"));
            // Why no matter: who gave up needs no answer.
            let _ = sender.send(told);
        }
    }

    fn has_ended(&self) -> bool {
        self.state().frames.is_none()
    }

    /// Whoever waits is told why.
    fn end(&self, status: &Status) {
        let waiting = {
            let mut state = self.state();
            state.frames = None;
            std::mem::take(&mut state.waiting)
        };
        for sender in waiting.into_values() {
            let _ = sender.send(Err(status.clone()));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nothing was sent.
/// Said without a word to the node: nothing speaks against it.
const QUEUE_FULL: &str = "too much waits to be sent";

fn never(why: &str) -> Status {
    Status::from_error(Box::new(NotConnected(why.to_owned())))
}

/// Waits for one answer; dropped, nobody does any more.
struct Waiting {
    line: Arc<Line>,
    id: u64,
    answer: oneshot::Receiver<Result<Told, Status>>,
}

impl Waiting {
    async fn answer(&mut self) -> Result<Told, Status> {
        let lost = |_| Err(Status::unavailable("stream ended"));
        (&mut self.answer).await.unwrap_or_else(lost)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.line.state().waiting.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::time::Duration;

    use bytes::Bytes;
    use futures_util::Stream;
    use hyper_util::rt::TokioIo;
    use tonic::transport::{Endpoint, Server};
    use tonic::{Request, Streaming};

    use super::*;
    use crate::dial::never_sent;
    use crate::proto::mail::mail_server::{Mail, MailServer};
    use wire::query_response::Result as Answered;

    /// A node as it was before there were streams; counts who asked for one.
    #[derive(Default)]
    struct Old(Arc<AtomicUsize>);

    type Frames<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

    #[tonic::async_trait]
    impl Mail for Old {
        type ExchangeStream = Frames<wire::ResponseFrame>;
        type WatchStream = Frames<wire::WatchResponse>;

        async fn propose(
            &self,
            request: Request<wire::ProposeRequest>,
        ) -> Result<Response<wire::ProposeResponse>, Status> {
            let outcome = request.into_inner().request;
            let result = Some(wire::propose_response::Result::Outcome(outcome));
            Ok(Response::new(wire::ProposeResponse { answer: Bytes::new(), result }))
        }

        async fn query(
            &self,
            request: Request<wire::QueryRequest>,
        ) -> Result<Response<wire::QueryResponse>, Status> {
            let result = Some(Answered::Answer(request.into_inner().query));
            Ok(Response::new(wire::QueryResponse { result, chunks: Vec::new() }))
        }

        async fn exchange(
            &self,
            _: Request<Streaming<wire::RequestFrame>>,
        ) -> Result<Response<Self::ExchangeStream>, Status> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Err(Status::unimplemented("of a later version"))
        }

        async fn chunk(
            &self,
            _: Request<wire::ChunkRequest>,
        ) -> Result<Response<wire::ChunkResponse>, Status> {
            Err(Status::unimplemented("not asked for"))
        }

        async fn watch(
            &self,
            _: Request<wire::WatchRequest>,
        ) -> Result<Response<Self::WatchStream>, Status> {
            Err(Status::unimplemented("not asked for"))
        }

        async fn leader(
            &self,
            _: Request<wire::LeaderRequest>,
        ) -> Result<Response<wire::LeaderResponse>, Status> {
            Err(Status::unimplemented("not asked for"))
        }

        async fn maildrop(
            &self,
            _: Request<wire::MaildropRequest>,
        ) -> Result<Response<wire::MaildropResponse>, Status> {
            Err(Status::unimplemented("not asked for"))
        }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    fn question() -> wire::QueryRequest {
        let query = Bytes::from_static(b"question");
        wire::QueryRequest { shard: 1, query, linearizable: false }
    }

    #[tokio::test]
    async fn a_node_that_knows_no_streams_is_called_as_before() {
        let n_asked = Arc::default();
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        // Why endless: a server whose connections have all come ends.
        let incoming =
            tokio_stream::iter([Ok::<_, std::io::Error>(theirs)]).chain(tokio_stream::pending());
        tokio::spawn(Server::builder().serve_with_incoming_shutdown(
            MailServer::new(Old(Arc::clone(&n_asked))),
            incoming,
            std::future::pending(),
        ));
        let ours = Mutex::new(Some(TokioIo::new(ours)));
        let connector = tower::service_fn(move |_| {
            let ours = ours.lock().unwrap().take().ok_or(NotConnected("no more".into()));
            std::future::ready(ours)
        });
        let channel =
            Endpoint::from_static("http://rookery.internal").connect_with_connector_lazy(connector);
        let exchange = Exchange::new(MailClient::new(channel));
        for n_times in [1, 1, 2, 2] {
            let told = exchange.query(question(), soon()).await.unwrap().into_inner();
            assert_eq!(told.result, Some(Answered::Answer(Bytes::from_static(b"question"))));
            assert_eq!(n_asked.load(Ordering::Relaxed), n_times);
            if n_times == 1 {
                tokio::time::pause();
                tokio::time::advance(UNARY_FOR / 2).await;
                tokio::time::resume();
            }
        }
        assert!(exchange.line.lock().unwrap().as_ref().unwrap().has_ended());
    }

    #[tokio::test]
    async fn nothing_was_sent_to_a_node_that_cannot_be_reached() {
        let connector = tower::service_fn(|_| {
            let nobody: Result<TokioIo<tokio::io::DuplexStream>, _> =
                Err(NotConnected("nobody".into()));
            std::future::ready(nobody)
        });
        let channel =
            Endpoint::from_static("http://rookery.internal").connect_with_connector_lazy(connector);
        let exchange = Exchange::new(MailClient::new(channel));
        for _ in 0..2 {
            let status = exchange.query(question(), soon()).await.unwrap_err();
            assert!(never_sent(&status), "{status}");
        }
    }

    #[tokio::test]
    async fn what_waits_for_a_node_that_takes_nothing_is_bounded() {
        let connector = tower::service_fn(|_| {
            std::future::pending::<Result<TokioIo<tokio::io::DuplexStream>, NotConnected>>()
        });
        let channel =
            Endpoint::from_static("http://rookery.internal").connect_with_connector_lazy(connector);
        let line = Line::begin(MailClient::new(channel));
        let query = Bytes::from(vec![0; 8 * 1024 * 1024]);
        let large = || {
            Asked::Query(wire::QueryRequest { shard: 1, query: query.clone(), linearizable: false })
        };
        let n_taken = (0..100).take_while(|_| line.send(large(), soon()).is_ok()).count();
        assert_eq!(n_taken, QUEUE_BYTES_MAX.div_ceil(8 * 1024 * 1024), "given up, but waiting");
        // Which is no reason to look for another leader.
        let refused = line.send(large(), soon()).err().unwrap();
        assert_eq!(refused.code(), Code::ResourceExhausted);
    }
}
