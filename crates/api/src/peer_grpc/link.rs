//! One stream to one node: queue, reconnection, and who waits for which answer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Channel;
use tracing::debug;

use super::answering::error_from_wire;
use crate::dial::{MESSAGE_BYTES_MAX, reason};
use crate::peer::{PeerError, PeerRequest, PeerResponse};
use crate::proto::raft as wire;
use crate::proto::raft::raft_client::RaftClient;

/// Limit: requests that wait to be sent.
const QUEUE_LEN_MAX: usize = 4096;
/// Limit: octets that wait to be sent; more than a connection's window, far less than memory.
const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Limit: what a message carries besides bodies and meta.
const OVERHEAD_MAX: usize = 4096;
/// Octets of a request that is not sent any more once nobody waits for it. Smaller ones are: they tell the
/// peer that this node lives.
const LARGE_BYTES: usize = 4096;
/// Pause before the first attempt to reconnect.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
/// Longest pause between attempts; a peer that is back must be found before the next election.
const PAUSE_MAX: Duration = Duration::from_millis(100);

type Answer = Result<PeerResponse, PeerError>;

pub(super) struct Link {
    state: Mutex<State>,
    task: OnceLock<AbortHandle>,
}

struct State {
    /// Where requests are put; `Err` tells why there is no connection at present.
    queue: Result<Queue, PeerError>,
    next_id: u64,
    waiting: HashMap<u64, oneshot::Sender<Answer>>,
}

struct Queue {
    frames: mpsc::Sender<(usize, wire::RequestFrame)>,
    n_bytes: Arc<AtomicUsize>,
}

/// Waits for one answer; dropped, nobody does any more.
pub(super) struct Waiting {
    link: Arc<Link>,
    id: u64,
    answer: oneshot::Receiver<Answer>,
}

impl Waiting {
    pub(super) async fn answer(&mut self) -> Answer {
        match (&mut self.answer).await {
            Ok(answer) => answer,
            Err(_) => Err(PeerError::Unreachable("transport closed".into())),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.link.state().waiting.remove(&self.id);
    }
}

impl Link {
    pub(super) fn start(channel: Channel) -> Arc<Self> {
        let state = State {
            queue: Err(PeerError::Unreachable("not connected yet".into())),
            next_id: 1,
            waiting: HashMap::new(),
        };
        let link = Arc::new(Self { state: Mutex::new(state), task: OnceLock::new() });
        let frames = link.open();
        let task = tokio::spawn(Arc::clone(&link).run(channel, frames));
        let _ = link.task.set(task.abort_handle());
        link
    }

    pub(super) fn stop(&self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
        self.fail(&PeerError::Unreachable("transport closed".into()));
    }

    /// Queues a request; the order of calls is the order on the wire.
    pub(super) fn send(self: &Arc<Self>, request: PeerRequest) -> Result<Waiting, PeerError> {
        let n_bytes = request.meta.len() + request.bodies.iter().map(Bytes::len).sum::<usize>();
        if n_bytes + OVERHEAD_MAX > MESSAGE_BYTES_MAX {
            return Err(PeerError::Refused("request larger than a message may be".into()));
        }
        let mut state = self.state();
        let id = state.next_id;
        state.next_id += 1;
        let queue = match &state.queue {
            Ok(queue) => queue,
            Err(error) => return Err(error.clone()),
        };
        if queue.n_bytes.load(Ordering::Relaxed) > QUEUE_BYTES_MAX {
            return Err(PeerError::Unreachable("queue full".into()));
        }
        if queue.frames.try_send((n_bytes, frame(id, request))).is_err() {
            return Err(PeerError::Unreachable("queue full".into()));
        }
        queue.n_bytes.fetch_add(n_bytes, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        state.waiting.insert(id, sender);
        drop(state);
        Ok(Waiting { link: Arc::clone(self), id, answer })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a new queue, to be emptied into the next connection.
    fn open(&self) -> Frames {
        let (frames, queued) = mpsc::channel(QUEUE_LEN_MAX);
        let n_bytes = Arc::new(AtomicUsize::new(0));
        self.state().queue = Ok(Queue { frames, n_bytes: Arc::clone(&n_bytes) });
        Frames { first: None, queued, n_bytes }
    }

    /// Whoever waits is told; whoever sends is told until there is a new queue.
    fn fail(&self, error: &PeerError) {
        let waiting = {
            let mut state = self.state();
            state.queue = Err(error.clone());
            std::mem::take(&mut state.waiting)
        };
        for (_, sender) in waiting {
            let _ = sender.send(Err(error.clone()));
        }
    }

    async fn run(self: Arc<Self>, channel: Channel, mut frames: Frames) {
        let client = RaftClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let mut pause = PAUSE_FIRST;
        loop {
            let (connected, status) = self.exchange(client.clone(), frames).await;
            debug!(%status, "stream to peer ended");
            self.fail(&PeerError::Unreachable(reason(&status)));
            pause = if connected { PAUSE_FIRST } else { (pause * 2).min(PAUSE_MAX) };
            sleep(pause).await;
            frames = self.open();
            if !connected {
                // Why wait: who asks after a long silence is told how the peer is now, and a peer that
                // nobody asks for is not dialled.
                frames.first = frames.queued.recv().await;
            }
        }
    }

    /// One connection from beginning to end; whether there was one.
    async fn exchange(
        self: &Arc<Self>,
        mut client: RaftClient<Channel>,
        frames: Frames,
    ) -> (bool, Status) {
        let Frames { first, queued, n_bytes } = frames;
        let queued = stream::iter(first).chain(ReceiverStream::new(queued));
        let link = Arc::clone(self);
        let requests = queued.filter_map(move |(size, frame)| {
            n_bytes.fetch_sub(size, Ordering::Relaxed);
            std::future::ready(link.is_wanted(frame.id, size).then_some(frame))
        });
        let mut responses = match client.exchange(requests).await {
            Ok(response) => response.into_inner(),
            Err(status) => return (false, status),
        };
        loop {
            match responses.message().await {
                Ok(Some(frame)) => self.answered(frame),
                Ok(None) => return (true, Status::unavailable("closed by the peer")),
                Err(status) => return (true, status),
            }
        }
    }

    /// Whether a request that is next is sent: over a slow network what was given up would come before what
    /// was sent in its place.
    fn is_wanted(&self, id: u64, n_bytes: usize) -> bool {
        n_bytes < LARGE_BYTES || self.state().waiting.contains_key(&id)
    }

    fn answered(&self, frame: wire::ResponseFrame) {
        let sender = self.state().waiting.remove(&frame.id);
        let answer = match frame.failure {
            None => Ok(PeerResponse { meta: frame.meta, bodies: frame.bodies }),
            Some(failure) => Err(error_from_wire(failure)),
        };
        if let Some(sender) = sender {
            let _ = sender.send(answer);
        }
    }
}

/// The other end of a [`Queue`].
struct Frames {
    /// Taken out of the queue already.
    first: Option<(usize, wire::RequestFrame)>,
    queued: mpsc::Receiver<(usize, wire::RequestFrame)>,
    n_bytes: Arc<AtomicUsize>,
}

fn frame(id: u64, request: PeerRequest) -> wire::RequestFrame {
    let to_disk = match request.to_disk {
        [0, ..] if request.to_disk == [0; 16] => Bytes::new(),
        disk => Bytes::copy_from_slice(&disk),
    };
    wire::RequestFrame {
        id,
        shard: request.shard.0,
        from_replica: request.from_replica,
        to_replica: request.to_replica,
        to_disk,
        kind: request.kind.into(),
        meta: request.meta,
        bodies: request.bodies,
        deadline_ms: u32::try_from(request.deadline.as_millis()).unwrap_or(u32::MAX),
    }
}

#[cfg(test)]
mod tests {
    use hyper_util::rt::TokioIo;
    use mailbox::ShardId;
    use tonic::transport::Endpoint;

    use super::*;
    use crate::dial::NotConnected;

    #[tokio::test]
    async fn what_was_given_up_before_it_was_sent_is_sent_only_if_it_is_small() {
        let connector = tower::service_fn(|_| {
            std::future::pending::<Result<TokioIo<tokio::io::DuplexStream>, NotConnected>>()
        });
        let channel =
            Endpoint::from_static("http://rookery.internal").connect_with_connector_lazy(connector);
        let link = Link::start(channel);
        let send = |n_bytes: usize| {
            let request = PeerRequest {
                node: "n2".into(),
                shard: ShardId(1),
                from_replica: 1,
                to_replica: 2,
                to_disk: [0; 16],
                kind: 1,
                meta: Bytes::from(vec![0; n_bytes]),
                bodies: Vec::new(),
                deadline: Duration::from_secs(2),
            };
            link.send(request).unwrap()
        };
        let (large, small) = (send(LARGE_BYTES), send(LARGE_BYTES - 1));
        let (large_id, small_id) = (large.id, small.id);
        assert!(link.is_wanted(large_id, LARGE_BYTES));
        drop((large, small));
        assert!(!link.is_wanted(large_id, LARGE_BYTES));
        assert!(link.is_wanted(small_id, LARGE_BYTES - 1));
        link.stop();
    }
}
