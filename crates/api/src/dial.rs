//! Outgoing connections: resolved, bound, encrypted and proven anew at every reconnect. Who looks for a
//! shard's leader may be passed on to it by another node.

pub(crate) mod detour;
mod names;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use tracing::warn;

use self::detour::Detours;
pub(crate) use self::names::NAMES;
use crate::tls::Identity;

/// How long one address may take to accept a connection.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_millis(1_000);
/// How long who accepted may take to prove who it is, and to say its first words: two round trips, over
/// networks on which one takes half a second. Who stood still then goes on with what it accepted.
const PROVE_TIMEOUT: Duration = Duration::from_millis(3_000);
/// How often the other side must show that it lives.
pub(crate) const KEEPALIVE_INTERVAL: Duration = Duration::from_millis(1_000);
/// How long it may take to do so.
pub(crate) const KEEPALIVE_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Limit: octets under way in one stream before its reader must have taken some.
pub(crate) const STREAM_WINDOW: u32 = 4 * 1024 * 1024;
/// Limit: octets under way in one connection; several streams share it.
pub(crate) const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
/// Limit: octets of one message on the wire, either way. An append carries at most some MiB.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Octets of one HTTP/2 frame: a usual delivery fits into one.
pub(crate) const HTTP2_FRAME_BYTES: u32 = 64 * 1024;
/// Octets read from a socket at once, two records of TLS: rustls asks for 4 KiB each time, and a delivery
/// would be four calls of the system.
const READ_BYTES: usize = 32 * 1024;

/// A socket as TLS reads it.
pub(crate) type Buffered = BufReader<TcpStream>;

/// Has more read from a socket than is asked for.
pub(crate) fn buffered<S: AsyncRead>(stream: S) -> BufReader<S> {
    BufReader::with_capacity(READ_BYTES, stream)
}

/// A connection within another one.
type Nested = TlsStream<BufReader<TlsStream<Buffered>>>;

/// A connection to a node, whichever way it goes.
pub(crate) trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Connection for S {}

/// Says at which `host:port` a node listens; asked at every reconnect.
pub type Resolver = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Whom to connect to.
#[derive(Clone)]
pub(crate) enum Target {
    /// Any node of the cluster, at this `host:port`.
    Seed(String),
    /// This node, wherever it is.
    Node(String, Resolver),
}

/// How to connect.
#[derive(Clone)]
pub(crate) struct Dialer {
    /// Who we are.
    pub(crate) identity: Identity,
    /// The address to come from.
    pub(crate) bind: Option<IpAddr>,
    /// Nodes that are reached through others.
    pub(crate) detours: Detours,
}

/// No connection: nothing was sent.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect: {0}")]
pub(crate) struct NotConnected(pub(crate) String);

impl Dialer {
    /// A channel that connects when it is first used and again whenever the connection broke.
    pub(crate) fn channel(&self, target: Target) -> Channel {
        let dialer = self.clone();
        let connector = tower::service_fn(move |_| {
            let (dialer, target) = (dialer.clone(), target.clone());
            async move { dialer.connect(&target).await.map(TokioIo::new) }
        });
        Endpoint::from_static("http://rookery.internal")
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(HTTP2_FRAME_BYTES)
            .connect_with_connector_lazy(connector)
    }

    async fn connect(&self, target: &Target) -> Result<Box<dyn Connection>, NotConnected> {
        let error = match self.connect_straight(target).await {
            Ok(stream) => return Ok(Box::new(stream)),
            Err(error) => error,
        };
        let Target::Node(node, resolver) = target else { return Err(error) };
        // Why now: by this time it may be known who can connect.
        let Some(via) = self.detours.via(node) else { return Err(error) };
        match self.connect_through(&via, node, resolver).await {
            Ok(stream) => {
                self.detours.was_taken(node, &via);
                warn!(node, via, error = error.0, "node is reached through another one");
                Ok(Box::new(stream))
            }
            Err(other) => {
                self.detours.has_failed(node, &via);
                Err(NotConnected(format!("{}; through {via}: {}", error.0, other.0)))
            }
        }
    }

    /// Through nobody.
    pub(crate) async fn connect_straight(
        &self,
        target: &Target,
    ) -> Result<TlsStream<Buffered>, NotConnected> {
        let (node, address) = match target {
            Target::Seed(address) => (None, Some(address.clone())),
            Target::Node(name, resolver) => (Some(name.as_str()), resolver(name)),
        };
        let address = address.ok_or_else(|| NotConnected("no such node".into()))?;
        let prove = |stream: TcpStream| self.prove(node, stream);
        first(node, &address, self.bind, prove).await
    }

    /// Through a node that connects to the one that is meant.
    async fn connect_through(
        &self,
        via: &str,
        node: &str,
        resolver: &Resolver,
    ) -> Result<Nested, NotConnected> {
        let address = resolver(via).ok_or_else(|| NotConnected("no such node".into()))?;
        let prove = |stream: TcpStream| async move {
            let (connector, name) =
                self.identity.connector_through(via).map_err(io::Error::other)?;
            let mut outer = connector.connect(name, buffered(stream)).await?;
            detour::ask(&mut outer, node).await?;
            self.prove(Some(node), outer).await
        };
        first(Some(via), &address, self.bind, prove).await
    }

    async fn prove<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        node: Option<&str>,
        stream: S,
    ) -> io::Result<TlsStream<BufReader<S>>> {
        let (connector, name) = self.identity.connector(node).map_err(io::Error::other)?;
        let mut stream = connector.connect(name, buffered(stream)).await?;
        // With TLS 1.3 the handshake is over here before the other side has judged our certificate. Its
        // first words are the settings of HTTP/2, or why it refuses: who writes before they are read may
        // find the connection reset, and the reason lost.
        if stream.fill_buf().await?.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed before a word"));
        }
        Ok(stream)
    }
}

/// The first address of a `host:port` at which somebody listens who proves to be whom we look for.
async fn first<T, F: Future<Output = io::Result<T>>>(
    node: Option<&str>,
    address: &str,
    bind: Option<IpAddr>,
    prove: impl Fn(TcpStream) -> F,
) -> Result<T, NotConnected> {
    let mut last = NotConnected(format!("resolve {address}: nothing found"));
    for address in NAMES.resolve(node, address).await? {
        let connected = async {
            let stream = open(address, bind).await?;
            timeout(PROVE_TIMEOUT, prove(stream)).await.map_err(too_slow)?
        };
        match connected.await {
            Ok(connected) => return Ok(connected),
            Err(error) => last = NotConnected(format!("{address}: {error}")),
        }
    }
    Err(last)
}

/// A connection of which nobody has proven anything yet.
pub(crate) async fn open(address: SocketAddr, bind: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if let Some(bind) = bind.filter(|bind| bind.is_ipv4() == address.is_ipv4()) {
        socket.bind(SocketAddr::new(bind, 0))?;
    }
    let connected = timeout(CONNECT_TIMEOUT, socket.connect(address)).await;
    let stream = connected.map_err(too_slow)??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn too_slow(_: tokio::time::error::Elapsed) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "too slow")
}

/// Whether a call failed before anything of it was sent.
pub(crate) fn never_sent(status: &tonic::Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<NotConnected>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// The innermost cause, in words: the other side's refusal of a certificate, say, which comes when the
/// connection is there already, and of which the status itself says "transport error".
pub(crate) fn reason(status: &tonic::Status) -> String {
    let mut words = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        words = error.to_string();
        source = error.source();
    }
    words
}
