//! A connection's bytes, inside TLS or not, over the network or on this machine. Nothing is buffered
//! here between calls: an idle connection holds no more than the kernel and rustls need.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

/// Octets read at once.
const READ_BYTES: usize = 32 * 1024;

/// Limit: how long a client that has not logged in, or an MTA, may take no byte at all while there is
/// something to send.
pub(crate) const STALLED_AFTER: Duration = Duration::from_secs(60);

/// Limit: how long a goodbye may take.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// Limit: how long a TLS handshake may take.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(30);

/// What comes of waiting for a client that was told nothing yet; an error when the frontend goes down.
pub(crate) async fn unless_shut_down<T>(
    shutdown: &CancellationToken,
    waiting: impl Future<Output = T>,
) -> io::Result<T> {
    let ended = shutdown.run_until_cancelled(waiting).await;
    ended.ok_or_else(|| io::Error::other("going down"))
}

/// Since when a client takes nothing of what there is for it.
#[derive(Default)]
pub(crate) struct Taking {
    waits: Mutex<Option<Instant>>,
}

impl Taking {
    /// For how long it has taken nothing; for no time while there is nothing for it.
    pub(crate) fn nothing_for(&self) -> Duration {
        self.waits().map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn begins(&self) {
        *self.waits() = Some(Instant::now());
    }

    fn has_all(&self) {
        *self.waits() = None;
    }

    fn waits(&self) -> MutexGuard<'_, Option<Instant>> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One end of a connection.
pub(crate) enum Socket {
    Plain(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Socket {
    /// Does the server's side of a handshake, unless the frontend goes down meanwhile.
    pub(crate) async fn start_tls(
        self,
        acceptor: &TlsAcceptor,
        shutdown: &CancellationToken,
    ) -> io::Result<Self> {
        let Self::Plain(stream) = self else {
            return Err(io::Error::other("the connection cannot begin TLS"));
        };
        let handshake = timeout(HANDSHAKE_WITHIN, acceptor.accept(stream));
        let stream = unless_shut_down(shutdown, handshake).await???;
        Ok(Self::Tls(Box::new(stream)))
    }

    /// Waits for octets and hands them to `take`; 0 is the end. The buffer lives only while it is
    /// used, so waiting costs nothing.
    pub(crate) async fn read(&mut self, mut take: impl FnMut(&[u8])) -> io::Result<usize> {
        poll_fn(|context| {
            let mut octets = [MaybeUninit::<u8>::uninit(); READ_BYTES];
            let mut buffer = ReadBuf::uninit(&mut octets);
            ready!(self.poll_read(context, &mut buffer))?;
            take(buffer.filled());
            Poll::Ready(Ok(buffer.filled().len()))
        })
        .await
    }

    fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(context, buffer),
        }
    }

    /// Writes all pieces, as fast as the client takes them; an error when it takes nothing for so long.
    pub(crate) async fn write_all(
        &mut self,
        mut pieces: &mut [IoSlice<'_>],
        patience: Duration,
        taking: &Taking,
    ) -> io::Result<()> {
        // Why first: leaves out what is empty.
        IoSlice::advance_slices(&mut pieces, 0);
        while !pieces.is_empty() {
            taking.begins();
            let n = match self {
                Self::Plain(stream) => timeout(patience, stream.write_vectored(pieces)).await??,
                Self::Unix(stream) => timeout(patience, stream.write_vectored(pieces)).await??,
                Self::Tls(stream) => timeout(patience, stream.write_vectored(pieces)).await??,
            };
            if n == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            IoSlice::advance_slices(&mut pieces, n);
        }
        if let Self::Tls(stream) = self {
            flush(stream, patience, taking).await?;
        }
        taking.has_all();
        Ok(())
    }

    /// Says goodbye, and reads what is still under way for a moment: closing with unread octets
    /// would make the kernel throw away what was said last.
    pub(crate) async fn close(mut self) {
        let closing = async {
            match &mut self {
                Self::Plain(stream) => stream.shutdown().await?,
                Self::Unix(stream) => stream.shutdown().await?,
                Self::Tls(stream) => stream.shutdown().await?,
            }
            while self.read(|_| {}).await? > 0 {}
            io::Result::Ok(())
        };
        // A client that is gone already needs no goodbye.
        let _ = timeout(CLOSE_WITHIN, closing).await;
    }
}

/// Sends what rustls keeps. Why step by step: a flush tells at its end only whether anything went out.
async fn flush(
    stream: &mut TlsStream<TcpStream>,
    patience: Duration,
    taking: &Taking,
) -> io::Result<()> {
    let (stream, tls) = stream.get_mut();
    while tls.wants_write() {
        taking.begins();
        let writing = poll_fn(|context| {
            loop {
                ready!(stream.poll_write_ready(context))?;
                match tls.write_tls(&mut AtOnce(stream)) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    written => return Poll::Ready(written),
                }
            }
        });
        if timeout(patience, writing).await?? == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
    }
    Ok(())
}

/// Takes as much as the kernel does without waiting.
struct AtOnce<'a>(&'a TcpStream);

impl io::Write for AtOnce<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.try_write(octets)
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(pieces)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
