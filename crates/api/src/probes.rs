//! The port of a process for probes and metrics, over plain HTTP. Whoever reaches it proves nothing, so what
//! it may take is bounded: so many connections, none of which lasts long.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Sleep, sleep};

use crate::counter::{Counted, Counter, Origin};

/// Limit: connections at once; further ones wait. A balancer, an orchestrator and a collector have one each.
const CONNECTIONS_MAX: usize = 64;
/// Limit: those from one address, so that who opens many keeps nobody else out.
const OF_ORIGIN_MAX: u32 = 16;
/// Limit: how long its first request may take to come; each asker is near and says all at once.
const FIRST_WITHIN: Duration = Duration::from_secs(5);
/// Limit: how long one lasts, whether it asks or not; a collector then comes back with another one. Several
/// times what any answer takes.
const AGE_MAX: Duration = Duration::from_secs(30);
/// How long a request that has begun may go on after the end was asked for.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(500);

/// Serves until `stop` completes; nobody who is connected holds up the end for long.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let bounded = Bounded::new(listener, Limits::default());
    let (ends, mut ended) = watch::channel(false);
    let stop = async move {
        stop.await;
        ends.send_replace(true);
    };
    let grace = async move {
        // Why the result is dropped: an error means that serving is over.
        drop(ended.wait_for(|ended| *ended).await);
        sleep(SHUTDOWN_GRACE).await;
    };
    tokio::select! {
        served = axum::serve(bounded, router).with_graceful_shutdown(stop).into_future() => served,
        () = grace => Ok(()),
    }
}

#[derive(Clone, Copy)]
struct Limits {
    n_max: usize,
    of_origin_max: u32,
    first_within: Duration,
    age_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            n_max: CONNECTIONS_MAX,
            of_origin_max: OF_ORIGIN_MAX,
            first_within: FIRST_WITHIN,
            age_max: AGE_MAX,
        }
    }
}

struct Bounded {
    listener: TcpListener,
    limits: Limits,
    places: Arc<Semaphore>,
    origins: Arc<Counter<Origin>>,
}

impl Bounded {
    fn new(listener: TcpListener, limits: Limits) -> Self {
        let places = Arc::new(Semaphore::new(limits.n_max));
        Self { listener, limits, places, origins: Counter::new(limits.of_origin_max) }
    }
}

impl Listener for Bounded {
    type Io = Passing;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Passing, SocketAddr) {
        let place = Arc::clone(&self.places).acquire_owned().await.expect("it is never closed");
        loop {
            let (stream, from) = Listener::accept(&mut self.listener).await;
            // Whoever has too many is closed without a word.
            let Some(counted) = self.origins.enter(from.ip().into()) else { continue };
            let asked = Asked::default();
            let (over, late) = (sleep(self.limits.age_max), sleep(self.limits.first_within));
            let (over, late) = (Box::pin(over), Box::pin(late));
            return (Passing { stream, asked, over, late, _held: (place, counted) }, from);
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that seems to be closed by the client when its time is over.
struct Passing {
    stream: TcpStream,
    asked: Asked,
    over: Pin<Box<Sleep>>,
    /// The first request has come before that.
    late: Pin<Box<Sleep>>,
    _held: (OwnedSemaphorePermit, Counted<Origin>),
}

/// How much there is of the empty line that ends the head of a first request.
#[derive(Default)]
struct Asked {
    n: usize,
}

impl Asked {
    const END: &[u8] = b"\r\n\r\n";

    fn read(&mut self, octets: &[u8]) {
        for octet in octets {
            if self.is_whole() {
                return;
            }
            self.n = match *octet {
                octet if octet == Self::END[self.n] => self.n + 1,
                b'\r' => 1,
                _ => 0,
            };
        }
    }

    fn is_whole(&self) -> bool {
        self.n == Self::END.len()
    }
}

impl Passing {
    fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        self.over.as_mut().poll(context).is_ready()
            || !self.asked.is_whole() && self.late.as_mut().poll(context).is_ready()
    }
}

impl AsyncRead for Passing {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_over(context) {
            return Poll::Ready(Ok(()));
        }
        let n_before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buf);
        self.asked.read(&buf.filled()[n_before..]);
        read
    }
}

impl AsyncWrite for Passing {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.stream).poll_write(context, bytes) {
            Poll::Pending if self.is_over(context) => {
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            wrote => wrote,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpSocket;

    use super::*;

    const COMES: Duration = Duration::from_secs(30);

    async fn ask(address: SocketAddr) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        drop(stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await);
        let mut told = Vec::new();
        // Why the result is dropped: on a busy machine its own time may be over.
        drop(stream.read_to_end(&mut told).await);
        String::from_utf8(told).unwrap()
    }

    #[tokio::test]
    async fn who_holds_connections_and_asks_nothing_keeps_nobody_out_for_long() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let age_max = Duration::from_millis(200);
        let bounded = Bounded::new(listener, Limits { n_max: 3, age_max, ..Limits::default() });
        let router = Router::new().route("/", get(|| async { "well" }));
        let serving = tokio::spawn(axum::serve(bounded, router).into_future());
        let mut silent = Vec::new();
        for _ in 0..6 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nHost: half a hea").await.unwrap();
            silent.push(stream);
        }
        let answered = async { while !ask(address).await.ends_with("well") {} };
        tokio::time::timeout(COMES, answered).await.expect("those who ask are kept out");
        for mut stream in silent {
            let mut rest = Vec::new();
            // Why the result is dropped: it may be reset, too.
            let ended = tokio::time::timeout(COMES, stream.read_to_end(&mut rest)).await;
            drop(ended.expect("it is closed"));
        }
        serving.abort();
    }

    #[tokio::test]
    async fn half_a_request_does_not_hold_up_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(|| async { "well" }));
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = tokio::spawn(serve(listener, router, async { drop(stopped.await) }));
        let mut half = TcpStream::connect(address).await.unwrap();
        half.write_all(b"GET / HTTP/1.1\r\nHost: half a hea").await.unwrap();
        assert!(ask(address).await.ends_with("well"), "what came before it was taken");
        drop(stop);
        let ended = tokio::time::timeout(AGE_MAX * 2 / 3, serving).await;
        ended.expect("it does not wait for the rest").unwrap().unwrap();
    }

    async fn from(source: &str, to: SocketAddr) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
        socket.connect(to).await.unwrap()
    }

    #[tokio::test]
    async fn one_address_keeps_no_other_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let late = COMES * 10;
        let limits = Limits { n_max: 4, of_origin_max: 2, first_within: late, age_max: late };
        let router = Router::new().route("/", get(|| async { "well" }));
        let serving =
            tokio::spawn(axum::serve(Bounded::new(listener, limits), router).into_future());
        let mut silent = Vec::new();
        for _ in 0..10 {
            silent.push(from("127.0.0.2", address).await);
        }
        let told = tokio::time::timeout(COMES, ask(address)).await.expect("it is kept out");
        assert!(told.ends_with("well"), "{told}");
        serving.abort();
    }

    #[tokio::test]
    async fn who_asks_slowly_is_let_go_before_who_has_asked() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let first_within = Duration::from_millis(200);
        let limits = Limits { first_within, ..Limits::default() };
        let router = Router::new().route("/", get(|| async { "well" }));
        let serving =
            tokio::spawn(axum::serve(Bounded::new(listener, limits), router).into_future());
        let mut asked = TcpStream::connect(address).await.unwrap();
        asked.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n").await.unwrap();
        asked.write_all(b"\r\n").await.unwrap();
        let mut told = [0; 12];
        asked.read_exact(&mut told).await.unwrap();
        assert_eq!(&told, b"HTTP/1.1 200");
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET / HTTP/1.1\r\nHost: half a hea").await.unwrap();
        let (mut rest, mut more) = (Vec::new(), Vec::new());
        let is_first = tokio::select! {
            biased;
            _ = slow.read_to_end(&mut rest) => true,
            _ = asked.read_to_end(&mut more) => false,
        };
        assert!(is_first, "who asked may ask again");
        serving.abort();
    }
}
