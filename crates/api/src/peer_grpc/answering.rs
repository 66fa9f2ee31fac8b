//! The receiving side: one task per stream takes requests in order and runs their handlers side by
//! side, without a task or a copy of its own for any of them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{Stream, StreamExt};
use mailbox::ShardId;
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};

use crate::peer::{BoxFuture, PeerError, PeerHandler, PeerRequest, PeerResponse};
use crate::proto::raft as wire;
use crate::proto::raft::failure::Kind;
use crate::proto::raft::raft_server::Raft;
use crate::tls::Peer;

/// Limit: requests of one stream that are answered at once; above it nothing more is read.
const RUNNING_MAX: usize = 4096;

/// Service raft over a [`PeerHandler`].
pub(crate) struct RaftService {
    handler: Arc<dyn PeerHandler>,
    stopped: watch::Receiver<bool>,
}

impl RaftService {
    pub(crate) fn new(handler: Arc<dyn PeerHandler>, stopped: watch::Receiver<bool>) -> Self {
        Self { handler, stopped }
    }
}

#[tonic::async_trait]
impl Raft for RaftService {
    type ExchangeStream = Pin<Box<dyn Stream<Item = Result<wire::ResponseFrame, Status>> + Send>>;

    async fn exchange(
        &self,
        request: Request<Streaming<wire::RequestFrame>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let from = request
            .extensions()
            .get::<Peer>()
            .map(|peer| peer.name.clone())
            .ok_or_else(|| Status::permission_denied("no name"))?;
        let answering = Answering {
            from,
            handler: Arc::clone(&self.handler),
            requests: request.into_inner(),
            ended: false,
            running: FuturesUnordered::new(),
        };
        let mut stopped = self.stopped.clone();
        let stop = async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        };
        Ok(Response::new(Box::pin(answering.take_until(Box::pin(stop)))))
    }
}

/// The answers to one stream of requests. It runs when the connection asks for more answers.
struct Answering<S> {
    from: String,
    handler: Arc<dyn PeerHandler>,
    requests: S,
    ended: bool,
    running: FuturesUnordered<BoxFuture<'static, wire::ResponseFrame>>,
}

impl<S> Stream for Answering<S>
where
    S: Stream<Item = Result<wire::RequestFrame, Status>> + Unpin,
{
    type Item = Result<wire::ResponseFrame, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        while !this.ended && this.running.len() < RUNNING_MAX {
            match this.requests.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let running = begin(&*this.handler, this.from.clone(), frame);
                    // Order: polled for the first time in the order they are pushed.
                    this.running.push(running);
                }
                Poll::Ready(Some(Err(_))) => {
                    // Why at once: what is sent from now on is not read. Why no error: of what was sent
                    // before nobody knows whether it was done.
                    this.ended = true;
                    this.running.clear();
                }
                Poll::Ready(None) => this.ended = true,
                Poll::Pending => break,
            }
        }
        match this.running.poll_next_unpin(cx) {
            Poll::Ready(Some(frame)) => Poll::Ready(Some(Ok(frame))),
            Poll::Ready(None) if this.ended => Poll::Ready(None),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

fn begin(
    handler: &dyn PeerHandler,
    from: String,
    frame: wire::RequestFrame,
) -> BoxFuture<'static, wire::ResponseFrame> {
    let id = frame.id;
    let answer = request(frame).map(|request| handler.handle(from, request));
    Box::pin(async move {
        let answer = match answer {
            Ok(answer) => answer.await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(PeerResponse { meta, bodies }) => {
                wire::ResponseFrame { id, meta, bodies, failure: None }
            }
            Err(error) => {
                let failure = Some(error_to_wire(error));
                wire::ResponseFrame { id, failure, ..Default::default() }
            }
        }
    })
}

fn request(frame: wire::RequestFrame) -> Result<PeerRequest, PeerError> {
    let malformed = || PeerError::Refused("malformed request".into());
    let to_disk = match frame.to_disk.is_empty() {
        true => [0; 16],
        false => <[u8; 16]>::try_from(&*frame.to_disk).map_err(|_| malformed())?,
    };
    Ok(PeerRequest {
        node: String::new(),
        shard: ShardId(frame.shard),
        from_replica: frame.from_replica,
        to_replica: frame.to_replica,
        to_disk,
        kind: u8::try_from(frame.kind).map_err(|_| malformed())?,
        meta: frame.meta,
        bodies: frame.bodies,
        deadline: Duration::from_millis(frame.deadline_ms.into()),
    })
}

fn error_to_wire(error: PeerError) -> wire::Failure {
    let (kind, reason) = match error {
        PeerError::Unreachable(reason) => (Kind::Unreachable, reason),
        PeerError::Deadline => (Kind::Deadline, String::new()),
        PeerError::Refused(reason) => (Kind::Refused, reason),
    };
    wire::Failure { kind: kind.into(), reason }
}

/// A failure the peer told of.
pub(super) fn error_from_wire(failure: wire::Failure) -> PeerError {
    match failure.kind() {
        Kind::Deadline => PeerError::Deadline,
        Kind::Refused => PeerError::Refused(failure.reason),
        Kind::Unreachable | Kind::Unspecified => PeerError::Unreachable(failure.reason),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, stream};

    use super::*;

    /// Its disk hangs.
    struct Silent;

    impl PeerHandler for Silent {
        fn handle(
            &self,
            _: String,
            _: PeerRequest,
        ) -> BoxFuture<'static, Result<PeerResponse, PeerError>> {
            Box::pin(std::future::pending())
        }
    }

    #[test]
    fn a_stream_that_cannot_be_read_on_is_over_whatever_is_under_way() {
        let request = || Ok::<_, Status>(wire::RequestFrame { id: 1, ..Default::default() });
        let begun = || stream::iter([request()]);
        let answering = |requests| Answering {
            from: "n2".to_owned(),
            handler: Arc::new(Silent),
            requests,
            ended: false,
            running: FuturesUnordered::new(),
        };
        let full =
            || stream::iter([Err::<wire::RequestFrame, _>(Status::resource_exhausted("full"))]);
        let mut broken = answering(begun().chain(full()).boxed());
        assert!(matches!(broken.next().now_or_never(), Some(None)));
        let mut whole = answering(begun().boxed());
        assert!(whole.next().now_or_never().is_none(), "it is answered first");
    }
}
