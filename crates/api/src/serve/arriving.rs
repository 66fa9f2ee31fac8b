//! Requests that have not come whole. What has come of one lies in memory, and room is made for all of it
//! when its length is told: whoever has a key of the cluster might begin thousands of large ones on each
//! connection, and end none.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

use crate::dial::MESSAGE_BYTES_MAX;
use crate::tls::Role;

/// Limit: octets of them on one connection. Ours have one stream with large requests, and send one of them
/// after the other.
const OF_CONNECTION_MAX: usize = 4 * MESSAGE_BYTES_MAX;
/// Limit: octets of them on all connections of frontends, or of nodes, or of operators. Most requests have no
/// more than a MiB, and those that come in one frame are never counted.
const OF_ROLE_MAX: usize = 512 * 1024 * 1024;
/// Octets before each message: whether it is compressed, and its length.
const HEAD_BYTES: usize = 5;

/// So many octets, and no more.
pub(super) struct Room {
    n_taken: AtomicUsize,
    n_max: usize,
}

impl Room {
    /// For what comes on one connection.
    pub(super) fn of_connection() -> Arc<Self> {
        Self::new(OF_CONNECTION_MAX)
    }

    fn new(n_max: usize) -> Arc<Self> {
        Arc::new(Self { n_taken: AtomicUsize::new(0), n_max })
    }

    /// Whether there is room for so many more, which is taken then.
    fn take(&self, n: usize) -> bool {
        let fits = self.n_taken.fetch_add(n, Ordering::Relaxed) + n <= self.n_max;
        if !fits {
            self.give_back(n);
        }
        fits
    }

    fn give_back(&self, n: usize) {
        self.n_taken.fetch_sub(n, Ordering::Relaxed);
    }
}

/// For what comes on all connections: each role has its own, so that whoever has a frontend's key keeps out
/// neither nodes nor operators.
#[derive(Clone)]
pub(super) struct Rooms {
    frontends: Arc<Room>,
    nodes: Arc<Room>,
    operators: Arc<Room>,
}

impl Rooms {
    pub(super) fn new() -> Self {
        let [frontends, nodes, operators] = [(); 3].map(|()| Room::new(OF_ROLE_MAX));
        Self { frontends, nodes, operators }
    }

    /// The same body; when there is no room for what it brings, it ends with an error.
    pub(super) fn count(&self, body: Body, role: Role, of_connection: Arc<Room>) -> Body {
        let of_role = match role {
            Role::Frontend => &self.frontends,
            Role::Node => &self.nodes,
            Role::Admin => &self.operators,
        };
        let rooms = [of_connection, Arc::clone(of_role)];
        Body::new(Arriving { body, rooms, message: Message::default(), n_taken: 0 })
    }
}

/// A request's body, or those of all requests of a stream.
struct Arriving {
    body: Body,
    rooms: [Arc<Room>; 2],
    message: Message,
    /// In each of the rooms.
    n_taken: usize,
}

impl Arriving {
    /// Takes so much room in all; false if there is not so much.
    fn take(&mut self, n: usize) -> bool {
        if n <= self.n_taken {
            self.rooms.iter().for_each(|room| room.give_back(self.n_taken - n));
            self.n_taken = n;
            return true;
        }
        let n_more = n - self.n_taken;
        let [of_connection, of_role] = &self.rooms;
        if !of_connection.take(n_more) {
            return false;
        }
        if !of_role.take(n_more) {
            of_connection.give_back(n_more);
            return false;
        }
        self.n_taken = n;
        true
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.take(0);
    }
}

impl http_body::Body for Arriving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(octets) = frame.data_ref()
        {
            let n_wanted = this.message.more(octets);
            if !this.take(n_wanted) {
                let full = Status::resource_exhausted("too many large requests on their way");
                return Poll::Ready(Some(Err(full)));
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// How much of a message has come.
#[derive(Default)]
struct Message {
    head: [u8; HEAD_BYTES],
    n_head: usize,
    len: usize,
    n_left: usize,
}

impl Message {
    /// The next octets of a stream of messages. How long the last one is, unless it has come whole.
    fn more(&mut self, mut octets: &[u8]) -> usize {
        while let [first, rest @ ..] = octets {
            if self.n_head < HEAD_BYTES {
                self.head[self.n_head] = *first;
                self.n_head += 1;
                octets = rest;
                if self.n_head == HEAD_BYTES {
                    let [_, len @ ..] = self.head;
                    self.len = u32::from_be_bytes(len) as usize;
                    self.n_left = self.len;
                }
            } else {
                let n = octets.len().min(self.n_left);
                self.n_left -= n;
                octets = &octets[n..];
            }
            if self.n_head == HEAD_BYTES && self.n_left == 0 {
                *self = Self::default();
            }
        }
        // A longer one is refused when it is read.
        self.len.min(MESSAGE_BYTES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::future::poll_fn;

    use http_body::Body as _;
    use tonic::Code;

    use super::*;

    /// Comes in these pieces, and then no more of it.
    struct Pieces(VecDeque<Bytes>);

    impl http_body::Body for Pieces {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            match self.0.pop_front() {
                Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
                None => Poll::Pending,
            }
        }
    }

    fn head(len: usize) -> Vec<u8> {
        [&[0_u8][..], &(len as u32).to_be_bytes()].concat()
    }

    #[test]
    fn a_message_counts_from_its_head_to_its_end() {
        let mut message = Message::default();
        assert_eq!(message.more(&[head(3), vec![1, 2, 3]].concat()), 0, "it came at once");
        assert_eq!(message.more(&head(0)), 0);
        assert_eq!(message.more(&[head(4), vec![1]].concat()), 4);
        assert_eq!(message.more(&[2, 3]), 4);
        assert_eq!(message.more(&[4, 0, 0]), 0, "of the next one nothing is known yet");
        assert_eq!(message.more(&[0, 1, 0, 9]), 256);
        assert_eq!(message.more(&[9; 255]), 0);
        assert_eq!(message.more(&[1, 255, 255, 255, 255]), MESSAGE_BYTES_MAX);
    }

    /// What comes of the first piece of a request of so many octets.
    async fn begin(rooms: &Rooms, role: Role, on: &Arc<Room>, len: usize) -> Result<Body, Code> {
        let pieces = Pieces(VecDeque::from([head(len).into()]));
        let mut body = rooms.count(Body::new(pieces), role, Arc::clone(on));
        match poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            Some(Ok(_)) => Ok(body),
            Some(Err(status)) => Err(status.code()),
            None => panic!("it ended"),
        }
    }

    #[tokio::test]
    async fn large_requests_that_do_not_end_find_no_room_and_leave_others_theirs() {
        let (rooms, role) = (Rooms::new(), Role::Frontend);
        let full = Some(Code::ResourceExhausted);
        let connections = [(); 9].map(|()| Room::of_connection());
        let mut begun = Vec::new();
        for connection in &connections[..8] {
            for _ in 0..4 {
                begun.push(begin(&rooms, role, connection, MESSAGE_BYTES_MAX).await.unwrap());
            }
            assert_eq!(begin(&rooms, role, connection, 1).await.err(), full, "of a connection");
        }
        assert_eq!(begin(&rooms, role, &connections[8], 1).await.err(), full, "of a role");
        assert!(begin(&rooms, Role::Node, &connections[8], MESSAGE_BYTES_MAX).await.is_ok());
        begun.pop();
        assert!(begin(&rooms, role, &connections[8], MESSAGE_BYTES_MAX).await.is_ok());
        assert!(begin(&rooms, role, &connections[7], MESSAGE_BYTES_MAX).await.is_ok());
    }
}
