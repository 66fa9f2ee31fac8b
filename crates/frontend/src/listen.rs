//! Listeners, and how a connection gets its engine.

use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mailbox::dialogue::Engine;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, debug, info_span, warn};

use crate::connection::Connection;
use crate::limits::{Counted, Origin};
use crate::proxy;
use crate::random;
use crate::shared::Shared;
use crate::socket::{Socket, unless_shut_down};
use crate::unix::SocketFile;

/// What is spoken on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// IMAP with STARTTLS.
    Imap,
    /// IMAP inside TLS.
    Imaps,
    /// POP3 with STLS.
    Pop3,
    /// POP3 inside TLS.
    Pop3s,
    /// LMTP.
    Lmtp,
    /// Probes.
    Http,
}

/// After a failed accept (no file descriptors left) the next one is tried later.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Failed accepts are told once in so long: with no file descriptors left each port fails ten times a second.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// A peer that was silent for so long is asked whether it is there. NAT routers forget a connection after
/// some minutes, and a phone is woken up by each probe.
const PROBE_AFTER: Duration = Duration::from_secs(120);
/// Without an answer it is asked again,
const PROBE_EVERY: Duration = Duration::from_secs(20);
/// so many times.
const PROBES_MAX: u32 = 3;

/// Between the levels of mailbox names.
const SEPARATOR: char = '/';

impl Protocol {
    /// In the order of their numbers.
    pub(crate) const ALL: [Self; 6] =
        [Self::Imap, Self::Imaps, Self::Pop3, Self::Pop3s, Self::Lmtp, Self::Http];

    /// As it stands in settings and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Imap => "imap",
            Self::Imaps => "imaps",
            Self::Pop3 => "pop3",
            Self::Pop3s => "pop3s",
            Self::Lmtp => "lmtp",
            Self::Http => "http",
        }
    }

    /// Whether mail clients speak it, maybe through a load balancer.
    pub(crate) fn is_for_clients(self) -> bool {
        !matches!(self, Self::Lmtp | Self::Http)
    }

    fn is_inside_tls(self) -> bool {
        matches!(self, Self::Imaps | Self::Pop3s)
    }

    /// What a client is told for which there is no room.
    fn too_many(self) -> &'static [u8] {
        match self {
            Self::Imap => b"* BYE [UNAVAILABLE] Too many connections\r\n",
            Self::Pop3 => b"-ERR [SYS/TEMP] Too many connections\r\n",
            Self::Lmtp => b"421 4.3.2 Too many connections\r\n",
            Self::Imaps | Self::Pop3s | Self::Http => b"",
        }
    }
}

/// What connections come from.
pub(crate) enum Listener {
    Tcp(TcpListener),
    /// The file goes with the listener.
    Unix {
        listener: UnixListener,
        _file: SocketFile,
    },
}

impl Listener {
    /// The next connection, and where it is from.
    async fn accept(&self) -> io::Result<(Socket, SocketAddr)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Socket::Plain(stream), peer))
            }
            // Who may open the file is on this machine.
            Self::Unix { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                Ok((Socket::Unix(stream), (Ipv4Addr::LOCALHOST, 0).into()))
            }
        }
    }
}

/// One port.
pub(crate) struct Port {
    pub(crate) protocol: Protocol,
    pub(crate) listener: Listener,
    pub(crate) shared: Arc<Shared>,
    /// Connections there may still be.
    pub(crate) room: Arc<Semaphore>,
    pub(crate) tasks: TaskTracker,
    pub(crate) shutdown: CancellationToken,
}

impl Port {
    /// Accepts until told to stop.
    pub(crate) async fn serve(self) {
        let mut warned = None;
        loop {
            let accepted = tokio::select! {
                () = self.shutdown.cancelled() => return,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((socket, peer)) => self.take(socket, peer.ip().to_canonical()),
                Err(error) => {
                    if is_due(&mut warned) {
                        warn!(%error, port = self.protocol.name(), "accept failed");
                    }
                    self.shutdown.run_until_cancelled(sleep(ACCEPT_AGAIN_AFTER)).await;
                }
            }
        }
    }

    fn take(&self, socket: Socket, peer: IpAddr) {
        let Ok(room) = Arc::clone(&self.room).try_acquire_owned() else {
            self.shared.turn_away(self.protocol, &socket);
            return;
        };
        let is_proxied = self.protocol.is_for_clients()
            && self.shared.trusted_proxies.iter().any(|network| network.contains(peer));
        let limits = &self.shared.limits;
        let counted = match (is_proxied, self.protocol.is_for_clients()) {
            (true, _) => None,
            (false, true) => limits.connected(peer),
            (false, false) => limits.delivers(peer),
        };
        if !is_proxied && counted.is_none() {
            self.shared.turn_away(self.protocol, &socket);
            return;
        }
        let session = session_name();
        let span = info_span!(
            "session",
            protocol = self.protocol.name(),
            session,
            account = tracing::field::Empty
        );
        let arrival = Arrival {
            protocol: self.protocol,
            shared: Arc::clone(&self.shared),
            session,
            shutdown: self.shutdown.clone(),
            room,
            counted,
        };
        let serving = async move {
            let served = match is_proxied {
                true => arrival.serve_proxied(socket).await,
                false => arrival.serve(socket, peer).await,
            };
            if let Err(error) = served {
                debug!(%error, "connection ended early");
            }
        };
        self.tasks.spawn(serving.instrument(span));
    }
}

/// Whether it is to be told again, as it is then.
fn is_due(told: &mut Option<Instant>) -> bool {
    let is_due = told.is_none_or(|told| told.elapsed() >= WARN_EVERY);
    if is_due {
        *told = Some(Instant::now());
    }
    is_due
}

impl Shared {
    fn turn_away(&self, protocol: Protocol, socket: &Socket) {
        // Best effort: the client is turned away with or without a word.
        let words = protocol.too_many();
        let _ = match socket {
            Socket::Plain(stream) => stream.try_write(words),
            Socket::Unix(stream) => stream.try_write(words),
            Socket::Tls(_) => Ok(0),
        };
        self.metrics.turned_away(protocol);
        debug!(port = protocol.name(), "too many connections");
    }
}

/// Has the kernel ask whether the peer is still there.
///
/// Why: a phone that changes networks says no goodbye; what it left would keep its place among its account's
/// sessions for half an hour, and a maildrop locked.
fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    let probes = TcpKeepalive::new()
        .with_time(PROBE_AFTER)
        .with_interval(PROBE_EVERY)
        .with_retries(PROBES_MAX);
    SockRef::from(stream).set_tcp_keepalive(&probes)
}

/// A connection that has just come.
struct Arrival {
    protocol: Protocol,
    shared: Arc<Shared>,
    session: String,
    shutdown: CancellationToken,
    /// Its place among all connections.
    room: OwnedSemaphorePermit,
    /// Its place among those from its address.
    counted: Option<Counted<Origin>>,
}

impl Arrival {
    /// Behind a load balancer: who it is comes first.
    async fn serve_proxied(mut self, mut socket: Socket) -> io::Result<()> {
        let Socket::Plain(stream) = &mut socket else {
            return Err(io::Error::other("no load balancer comes this way"));
        };
        let header = unless_shut_down(&self.shutdown, proxy::client(stream)).await?;
        let Some(client) = header? else { return Ok(()) };
        let client = client.ip().to_canonical();
        self.counted = self.shared.limits.connected(client);
        if self.counted.is_none() {
            self.shared.turn_away(self.protocol, &socket);
            return Ok(());
        }
        self.serve(socket, client).await
    }

    async fn serve(self, mut socket: Socket, peer: IpAddr) -> io::Result<()> {
        let Self { protocol, shared, session, shutdown, room, counted } = self;
        let _held = (room, counted, shared.metrics.opened(protocol));
        let is_remote = matches!(socket, Socket::Plain(_));
        if let Socket::Plain(stream) = &socket {
            stream.set_nodelay(true)?;
            keep_alive(stream)?;
        }
        if protocol.is_inside_tls() {
            let acceptor = shared.tls.as_ref().ok_or_else(|| io::Error::other("no certificate"))?;
            socket = socket.start_tls(acceptor, &shutdown).await?;
        }
        // Behind what is on this machine, as webmail, is everybody.
        let origin = (is_remote && !peer.is_loopback()).then(|| peer.into());
        let engine = engine(protocol, is_remote.then_some(peer), &shared, session);
        let has_login = protocol != Protocol::Lmtp;
        Connection { shared, engine, has_login, origin, shutdown }.run(socket).await
    }
}

fn engine(
    protocol: Protocol,
    peer: Option<IpAddr>,
    shared: &Shared,
    session: String,
) -> Box<dyn Engine> {
    let hostname = shared.hostname.clone();
    let message_bytes_max = shared.message_bytes_max;
    let is_tls = protocol.is_inside_tls();
    let can_start_tls = shared.tls.is_some();
    let is_near = peer.is_none_or(|peer| peer.is_loopback());
    let allow_plain_login = shared.allow_plain_login && is_near;
    match protocol {
        Protocol::Imap | Protocol::Imaps => Box::new(imap::Session::new(imap::Config {
            hostname,
            tls_available: can_start_tls,
            tls_active: is_tls,
            plain_logins_allowed: allow_plain_login,
            message_bytes_max,
            separator: SEPARATOR,
            nonce: random::bytes(),
        })),
        Protocol::Pop3 | Protocol::Pop3s => Box::new(pop3::Session::new(pop3::Settings {
            hostname,
            is_tls,
            can_start_tls,
            allow_plain_login,
        })),
        // Probes never come here: `http` serves them.
        Protocol::Lmtp | Protocol::Http => Box::new(lmtp::Session::new(lmtp::Settings {
            hostname,
            session,
            peer: peer.map(|peer| peer.to_string()),
            message_bytes_max,
        })),
    }
}

/// Names a session in logs and Received fields.
fn session_name() -> String {
    random::bytes::<6>().iter().fold(String::new(), |mut name, byte| {
        // Writing to a string does not fail.
        let _ = write!(name, "{byte:02x}");
        name
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_peer_that_vanished_is_let_go_after_minutes() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        keep_alive(&stream).unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        let unanswered = PROBE_EVERY * socket.tcp_keepalive_retries().unwrap();
        let patience = socket.tcp_keepalive_time().unwrap() + unanswered;
        assert!(patience <= Duration::from_secs(300), "{patience:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_again_and_again_is_told_seldom() {
        let mut told = None;
        let mut n_told = 0;
        // Two minutes and a half.
        for _ in 0..1_500 {
            n_told += u32::from(is_due(&mut told));
            sleep(ACCEPT_AGAIN_AFTER).await;
        }
        assert_eq!(n_told, 3);
    }
}
