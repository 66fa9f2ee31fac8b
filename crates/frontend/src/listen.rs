//! Listeners, and how a connection gets its engine.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mailbox::dialogue::Engine;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, debug, info_span, warn};

use crate::connection::Connection;
use crate::random;
use crate::shared::Shared;
use crate::socket::Socket;

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

/// Between the levels of mailbox names.
const SEPARATOR: char = '/';

impl Protocol {
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

/// One port.
pub(crate) struct Port {
    pub(crate) protocol: Protocol,
    pub(crate) listener: TcpListener,
    pub(crate) shared: Arc<Shared>,
    /// Connections there may still be.
    pub(crate) room: Arc<Semaphore>,
    pub(crate) tasks: TaskTracker,
    pub(crate) shutdown: CancellationToken,
}

impl Port {
    /// Accepts until told to stop.
    pub(crate) async fn serve(self) {
        loop {
            let accepted = tokio::select! {
                () = self.shutdown.cancelled() => return,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => self.take(stream, peer),
                Err(error) => {
                    warn!(%error, port = self.protocol.name(), "accept failed");
                    tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
                }
            }
        }
    }

    fn take(&self, stream: TcpStream, peer: SocketAddr) {
        let room = Arc::clone(&self.room).try_acquire_owned();
        let counted = self.shared.limits.connected(peer.ip().to_canonical());
        let (Ok(room), Some(counted)) = (room, counted) else {
            // Best effort: the client is turned away with or without a word.
            let _ = stream.try_write(self.protocol.too_many());
            debug!(port = self.protocol.name(), "too many connections");
            return;
        };
        let session = session_name();
        let span = info_span!(
            "session",
            protocol = self.protocol.name(),
            session,
            account = tracing::field::Empty
        );
        let serving = serve(
            self.protocol,
            stream,
            peer,
            Arc::clone(&self.shared),
            Opening { session, shutdown: self.shutdown.clone() },
        );
        let serving = async move {
            let _held = (room, counted);
            if let Err(error) = serving.await {
                debug!(%error, "connection ended early");
            }
        };
        self.tasks.spawn(serving.instrument(span));
    }
}

struct Opening {
    session: String,
    shutdown: CancellationToken,
}

async fn serve(
    protocol: Protocol,
    stream: TcpStream,
    peer: SocketAddr,
    shared: Arc<Shared>,
    opening: Opening,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut socket = Socket::Plain(stream);
    if protocol.is_inside_tls() {
        let acceptor = shared.tls.as_ref().ok_or_else(|| io::Error::other("no certificate"))?;
        socket = socket.start_tls(acceptor).await?;
    }
    let engine = engine(protocol, peer, &shared, opening.session);
    let has_login = protocol != Protocol::Lmtp;
    let connection = Connection { shared, engine, has_login, shutdown: opening.shutdown };
    connection.run(socket).await
}

fn engine(
    protocol: Protocol,
    peer: SocketAddr,
    shared: &Shared,
    session: String,
) -> Box<dyn Engine> {
    let hostname = shared.hostname.clone();
    let message_bytes_max = shared.message_bytes_max;
    let is_tls = protocol.is_inside_tls();
    let can_start_tls = shared.tls.is_some();
    let peer = peer.ip().to_canonical();
    let allow_plain_login = shared.allow_plain_login && peer.is_loopback();
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
            peer: Some(peer.to_string()),
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
