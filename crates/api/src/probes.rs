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

/// Limit: connections at once; further ones wait. A balancer, an orchestrator and a collector have one each.
const CONNECTIONS_MAX: usize = 64;
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
    let bounded = Bounded::new(listener, CONNECTIONS_MAX, AGE_MAX);
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

struct Bounded {
    listener: TcpListener,
    places: Arc<Semaphore>,
    age_max: Duration,
}

impl Bounded {
    fn new(listener: TcpListener, n_max: usize, age_max: Duration) -> Self {
        Self { listener, places: Arc::new(Semaphore::new(n_max)), age_max }
    }
}

impl Listener for Bounded {
    type Io = Passing;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Passing, SocketAddr) {
        let place = Arc::clone(&self.places).acquire_owned().await.expect("it is never closed");
        let (stream, from) = Listener::accept(&mut self.listener).await;
        let over = Box::pin(sleep(self.age_max));
        (Passing { stream, over, _place: place }, from)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that seems to be closed by the client when its time is over.
struct Passing {
    stream: TcpStream,
    over: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl Passing {
    fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        self.over.as_mut().poll(context).is_ready()
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
        Pin::new(&mut self.stream).poll_read(context, buf)
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
        let bounded = Bounded::new(listener, 3, Duration::from_millis(200));
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
}
