//! One listener for all services of a node. Enter at [`serve`]: it accepts mutual TLS only, and each
//! service is open only to the roles that need it, and what changes accounts only to operators.

mod admin;
mod arriving;
mod fault;
mod mail;
mod meta;
mod onward;
mod places;

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::codegen::{BoxFuture, Service};
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tracing::{debug, warn};

use crate::admin::AdminHandler;
use crate::counter::{Counter, Origin};
use crate::dial::{
    Buffered, CONNECTION_WINDOW, HTTP2_FRAME_BYTES, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT,
    MESSAGE_BYTES_MAX, NAMES, STREAM_WINDOW, buffered,
};
use crate::fault::{FaultHandler, Gate};
use crate::mail::MailHandler;
use crate::meta::MetaHandler;
use crate::peer::PeerHandler;
use crate::peer_grpc::RaftService;
use crate::proto::admin::admin_server::AdminServer;
use crate::proto::fault::fault_server::FaultServer;
use crate::proto::mail::mail_server::MailServer;
use crate::proto::meta::meta_server::MetaServer;
use crate::proto::raft::raft_server::RaftServer;
use crate::tls::{Identity, Peer, Role, is_to_be_passed_on, proven};
use arriving::{Room, Rooms};
pub use onward::Onward;
use onward::Passing;
use places::{Places, Seat};

/// Limit: connections at once that have not proved who they are yet; further ones wait.
const HANDSHAKES_MAX: usize = 1024;
/// Limit: those of them from one address, so that who proves nothing keeps no other out. All processes of a
/// cluster may come from one, each with a handful; and a node with what it passes on (`onward`).
const HANDSHAKES_OF_ORIGIN_MAX: u32 = 128;
/// How long a new connection may take to prove who it is.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Limit: calls at once on one connection.
const CALLS_PER_CONNECTION_MAX: u32 = 8192;
/// How often it is said that connections are not accepted.
const WARN_EVERY: Duration = Duration::from_secs(60);
/// How long calls that run may go on after shutdown was asked for.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(3);
/// How long to wait when no connection can be accepted (out of file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a node offers.
#[derive(Clone)]
pub struct Services {
    /// To frontends: the shards.
    pub mail: Arc<dyn MailHandler>,
    /// To other nodes: the replicas.
    pub peer: Arc<dyn PeerHandler>,
    /// To everybody: the placement; to nodes: registration and reports.
    pub meta: Arc<dyn MetaHandler>,
    /// To operators.
    pub admin: Arc<dyn AdminHandler>,
    /// To frontends and operators who do not reach a shard's leader: the way to other nodes.
    pub onward: Onward,
    /// To operators who rehearse, if that is allowed here.
    pub drill: Option<Drill>,
}

/// How a node is hurt.
#[derive(Clone)]
pub struct Drill {
    /// Does it.
    pub fault: Arc<dyn FaultHandler>,
    /// While it is closed nothing is received or sent.
    pub gate: Gate,
}

/// What a node says that was not started to be drilled.
const NO_DRILLS: &str = "drills are not allowed on this node: start it with --allow-drills, or set \
                         allow_drills = true in its configuration";

/// Serves until `shutdown` completes: then nobody is let in any more, streams end, running calls get a moment
/// to finish, and all connections are closed, at last those that are passed on.
pub async fn serve(
    listener: TcpListener,
    identity: Identity,
    services: Services,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    if let Ok(own) = listener.local_addr() {
        // Why: a node that leads the meta group asks itself, under the name that others know it by, and may
        // have been started while no name resolves.
        NAMES.came_from(&identity.peer().name, connectable(own.ip()));
    }
    let (stop, stopped) = watch::channel(false);
    let gate = services.drill.as_ref().map(|drill| drill.gate.clone());
    let passing = Passing::new(services.onward.clone(), identity.peer().name.clone());
    let router = Router::new(services, &stopped);
    let (accepted, incoming) = mpsc::channel(64);
    let (onward, leaving) = mpsc::channel(64);
    let passing = tokio::spawn(passing.run(leaving));
    let accepting = tokio::spawn(accept(listener, identity, (accepted, onward), gate));
    let server = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(HTTP2_FRAME_BYTES)
        .max_concurrent_streams(CALLS_PER_CONNECTION_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT));
    let mut ending = stopped.clone();
    let signal = async move {
        let _ = ending.wait_for(|stop| *stop).await;
    };
    let serving =
        server.serve_with_incoming_shutdown(router, ReceiverStream::new(incoming), signal);
    tokio::pin!(serving);
    tokio::select! {
        result = &mut serving => {
            accepting.abort();
            passing.abort();
            return result.map_err(io::Error::other);
        }
        () = shutdown => {}
    }
    accepting.abort();
    let _ = stop.send(true);
    let served = timeout(SHUTDOWN_GRACE, serving).await;
    // Why only now: there are calls on them as well.
    passing.abort();
    served.unwrap_or(Ok(())).map_err(io::Error::other)
}

/// Where this process reaches what it listens at.
fn connectable(listens: IpAddr) -> IpAddr {
    match listens {
        IpAddr::V4(any) if any.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(any) if any.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        one => one,
    }
}

/// Ends when the node shuts down.
async fn ended(mut stopped: watch::Receiver<bool>) {
    // Why: an error means that the server itself is gone, which ends its streams as well.
    let _ = stopped.wait_for(|stop| *stop).await;
}

async fn accept(
    listener: TcpListener,
    identity: Identity,
    (accepted, onward): (mpsc::Sender<io::Result<Accepted>>, mpsc::Sender<Accepted>),
    gate: Option<Gate>,
) {
    let acceptor = identity.acceptor();
    let places = Arc::new(Places::new());
    let unproven = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let origins = Counter::<Origin>::new(HANDSHAKES_OF_ORIGIN_MAX);
    let mut handshakes = tokio::task::JoinSet::new();
    let mut warned = None;
    loop {
        while handshakes.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&unproven).acquire_owned().await else { return };
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                if is_due(&mut warned, Instant::now()) {
                    warn!(%error, "connection not accepted");
                }
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(counted) = origins.enter(from.ip().into()) else {
            debug!("connection refused: too many from one address");
            continue;
        };
        let (acceptor, accepted, gate) = (acceptor.clone(), accepted.clone(), gate.clone());
        let (places, onward) = (Arc::clone(&places), onward.clone());
        handshakes.spawn(async move {
            let _ = stream.set_nodelay(true);
            let handshake = async {
                if let Some(gate) = &gate {
                    gate.opened().await;
                }
                acceptor.accept(buffered(stream)).await
            };
            match timeout(HANDSHAKE_TIMEOUT, handshake).await {
                Ok(Ok(stream)) => match proven(stream.get_ref().1.peer_certificates()) {
                    Some(peer) => {
                        let Some(seat) = places.take(&peer) else {
                            debug!(peer = peer.name, "connection refused: too many");
                            return;
                        };
                        drop((place, counted));
                        if peer.role == Role::Node {
                            NAMES.came_from(&peer.name, from.ip());
                        }
                        let is_passed_on = is_to_be_passed_on(stream.get_ref().1);
                        let gate = gate.map(Gated::new);
                        let address = from.ip();
                        let stream = Accepted { stream, peer, address, gate, _seat: seat };
                        match is_passed_on {
                            true => drop(onward.send(stream).await),
                            false => drop(accepted.send(Ok(stream)).await),
                        }
                    }
                    None => debug!("connection refused: certificate names no process"),
                },
                Ok(Err(error)) => debug!(%error, "connection refused"),
                Err(_) => debug!("connection refused: handshake too slow"),
            }
        });
    }
}

/// Whether to warn again. Why not each time: without a file descriptor left it fails many times a second.
fn is_due(warned: &mut Option<Instant>, now: Instant) -> bool {
    let is_due = warned.is_none_or(|at| now - at >= WARN_EVERY);
    if is_due {
        *warned = Some(now);
    }
    is_due
}

/// A connection whose other end is known.
struct Accepted {
    stream: TlsStream<Buffered>,
    peer: Peer,
    /// Where it comes from.
    address: IpAddr,
    gate: Option<Gated>,
    _seat: Seat,
}

/// A connection's place before a gate.
struct Gated {
    gate: Gate,
    /// Reading and writing wait each for itself, since each has a waker of its own.
    waiting: [Option<BoxFuture<(), Infallible>>; 2],
}

impl Gated {
    fn new(gate: Gate) -> Self {
        Self { gate, waiting: [None, None] }
    }

    fn poll_open(&mut self, way: usize, cx: &mut Context<'_>) -> Poll<()> {
        let waiting = &mut self.waiting[way];
        if waiting.is_none() && !self.gate.is_closed() {
            return Poll::Ready(());
        }
        let gate = self.gate.clone();
        let opened = waiting.get_or_insert_with(|| {
            Box::pin(async move {
                gate.opened().await;
                Ok(())
            })
        });
        let _ = std::task::ready!(opened.as_mut().poll(cx));
        *waiting = None;
        Poll::Ready(())
    }
}

impl Accepted {
    fn poll_open(&mut self, way: usize, cx: &mut Context<'_>) -> Poll<()> {
        self.gate.as_mut().map_or(Poll::Ready(()), |gate| gate.poll_open(way, cx))
    }
}

const READING: usize = 0;
const WRITING: usize = 1;

/// Who calls on a connection, and the room for what comes on it.
#[derive(Clone)]
struct Caller {
    peer: Peer,
    room: Arc<Room>,
}

impl Connected for Accepted {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        Caller { peer: self.peer.clone(), room: Room::of_connection() }
    }
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        std::task::ready!(self.poll_open(READING, cx));
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        std::task::ready!(self.poll_open(WRITING, cx));
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        std::task::ready!(self.poll_open(WRITING, cx));
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Finds the service and checks that the caller's role may use it.
#[derive(Clone)]
struct Router {
    mail: MailServer<mail::MailService>,
    raft: RaftServer<RaftService>,
    meta: MetaServer<meta::MetaService>,
    admin: AdminServer<admin::AdminService>,
    fault: Option<FaultServer<fault::FaultService>>,
    rooms: Rooms,
}

impl Router {
    fn new(services: Services, stopped: &watch::Receiver<bool>) -> Self {
        let mail = mail::MailService::new(services.mail, stopped.clone());
        let raft = RaftService::new(services.peer, stopped.clone());
        let meta = meta::MetaService { handler: services.meta, stopped: stopped.clone() };
        let admin = admin::AdminService { handler: services.admin };
        let fault = services.drill.map(|drill| fault::FaultService { handler: drill.fault });
        Self {
            mail: MailServer::new(mail)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
            raft: RaftServer::new(raft)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
            meta: MetaServer::new(meta).max_decoding_message_size(MESSAGE_BYTES_MAX),
            admin: AdminServer::new(admin).max_decoding_message_size(MESSAGE_BYTES_MAX),
            fault: fault.map(FaultServer::new),
            rooms: Rooms::new(),
        }
    }
}

impl Service<Request<Body>> for Router {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let caller = request.extensions_mut().remove::<Caller>();
        let role = caller.as_ref().map(|caller| caller.peer.role);
        if let Some(Caller { peer, room }) = caller {
            request = request.map(|body| self.rooms.count(body, peer.role, room));
            request.extensions_mut().insert(peer);
        }
        let service = request.uri().path().split('/').nth(1).unwrap_or_default();
        let status = match (service, role) {
            ("rookery.raft.v1.Raft", Some(Role::Node)) => return self.raft.call(request),
            ("rookery.mail.v1.Mail", Some(_)) => return self.mail.call(request),
            ("rookery.meta.v1.Meta", Some(_)) => return self.meta.call(request),
            ("rookery.admin.v1.Admin", Some(Role::Admin)) => return self.admin.call(request),
            ("rookery.fault.v1.Fault", Some(Role::Admin)) => match &mut self.fault {
                Some(fault) => return fault.call(request),
                None => Status::permission_denied(NO_DRILLS),
            },
            ("rookery.raft.v1.Raft" | "rookery.admin.v1.Admin" | "rookery.fault.v1.Fault", _) => {
                Status::permission_denied("not for this role")
            }
            _ => Status::unimplemented("no such service"),
        };
        Box::pin(async move { Ok(status.into_http()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_failing_is_said_once_a_minute() {
        let (mut warned, began) = (None, Instant::now());
        let due = [0, 1, 59, 60, 61].map(|s| is_due(&mut warned, began + Duration::from_secs(s)));
        assert_eq!(due, [true, false, false, true, false]);
    }
}
