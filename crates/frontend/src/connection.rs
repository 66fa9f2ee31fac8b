//! The one loop that drives a protocol engine: bytes in, questions answered, bytes out.
//!
//! Promises: input is read only while the engine wants it and nothing waits to be written; a client
//! that takes nothing or says nothing for too long is let go; while it is silent the connection
//! holds no buffer.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use mailbox::LogTime;
use mailbox::dialogue::{Engine, Question, Reply, Step};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::desk::Desk;
use crate::limits::Origin;
use crate::shared::Shared;
use crate::socket::{STALLED_AFTER, Socket, Taking};

/// Limit: how long a client may take to log in.
pub(crate) const LOGIN_WITHIN: Duration = Duration::from_secs(60);

/// Limit: how long who logged in may take nothing of what was asked for. Clients pipeline, and hand what came
/// to slow filters; but of a phone that vanished while it took a message nothing else is heard, and it has a
/// place among its account's sessions for so long.
const TAKING_WITHIN: Duration = Duration::from_secs(180);

/// Small pieces are gathered up to this before they are written.
const GATHER_BYTES: usize = 16 * 1024;

/// From here on a piece is not copied to be gathered.
const LARGE_BYTES: usize = 8 * 1024;

/// When an answer takes longer than this, what was gathered is written meanwhile.
const HOLD_BACK: Duration = Duration::from_millis(5);

/// One client's connection.
pub(crate) struct Connection {
    pub(crate) shared: Arc<Shared>,
    pub(crate) engine: Box<dyn Engine>,
    /// Whether the client has to log in.
    pub(crate) has_login: bool,
    /// Where it comes from, as far as wrong passwords count by that.
    pub(crate) origin: Option<Origin>,
    pub(crate) shutdown: CancellationToken,
}

/// What ended a wait.
enum Event {
    Read(usize),
    Changed,
    Silent,
    ShutDown,
}

impl Connection {
    /// Serves the client to its end.
    pub(crate) async fn run(mut self, socket: Socket) -> io::Result<()> {
        let mut desk = Desk::new(Arc::clone(&self.shared), self.origin, self.shutdown.clone());
        let started = Instant::now();
        let login_until = self.has_login.then(|| started + LOGIN_WITHIN);
        let mut out = Output::new(socket, login_until, desk.taking());
        // Since when the client has all it asked for and says nothing.
        let mut silent_since = started;
        let mut has_asked = false;
        let mut is_over = false;
        loop {
            self.engine.tick(now());
            if desk.is_logged_in() {
                out.until = None;
            }
            out.patience = self.taking_within(&desk, out.until.is_none() && !is_over);
            match self.engine.next_step() {
                Step::Send(octets) => out.send(octets).await?,
                Step::Ask(question) => {
                    let reply = out.write_while(&mut desk, question).await?;
                    self.engine.tick(now());
                    self.engine.reply(reply);
                }
                Step::Wait => {
                    out.flush().await?;
                    // Why only here: what was fetched before QUIT takes as long as it takes.
                    if self.has_login && out.until.is_none() && !desk.is_logged_in() {
                        out.until = Some(Instant::now() + LOGIN_WITHIN);
                    }
                    // Why now: a client that takes half an hour to download was not silent for so long.
                    if std::mem::take(&mut has_asked) {
                        silent_since = Instant::now();
                    }
                    let mut until = silent_since + self.idle_limit();
                    if let Some(login_until) = out.until {
                        until = until.min(login_until);
                    }
                    let shutdown = (!is_over).then(|| self.shutdown.clone());
                    match self.wait(&mut out.socket, &mut desk, until, shutdown).await? {
                        Event::Read(0) => self.engine.end_of_input(),
                        Event::Read(_) => has_asked = true,
                        Event::Changed => {}
                        Event::Silent if is_over => return Err(io::ErrorKind::TimedOut.into()),
                        Event::Silent => {
                            is_over = true;
                            self.engine.timed_out();
                        }
                        Event::ShutDown => {
                            is_over = true;
                            self.engine.shut_down();
                        }
                    }
                }
                Step::Yield => tokio::task::yield_now().await,
                Step::StartTls => {
                    out.flush().await?;
                    let acceptor = self.shared.tls.as_ref();
                    let acceptor = acceptor.ok_or_else(|| io::Error::other("no certificate"))?;
                    // Why boxed: it is large, and over before a connection waits.
                    let begun = Box::pin(out.socket.start_tls(acceptor, &self.shutdown));
                    let socket = begun.await?;
                    out = Output::new(socket, out.until, desk.taking());
                    self.engine.tls_started();
                }
                Step::Close => {
                    out.flush().await?;
                    out.socket.close().await;
                    return Ok(());
                }
            }
        }
    }

    fn idle_limit(&self) -> Duration {
        Duration::from_secs(self.engine.idle_limit_s().into())
    }

    /// How long the client may take nothing of what it asked for. Whoever brings a message may have a place
    /// that others wait for.
    fn taking_within(&self, desk: &Desk, has_logged_in: bool) -> Duration {
        match self.has_login && has_logged_in && !desk.has_body() {
            true => TAKING_WITHIN,
            false => STALLED_AFTER,
        }
    }

    /// Waits for input, news, silence or the end.
    async fn wait(
        &mut self,
        socket: &mut Socket,
        desk: &mut Desk,
        until: Instant,
        shutdown: Option<CancellationToken>,
    ) -> io::Result<Event> {
        // Why: who always has something to say never lets the clock be looked at.
        if Instant::now() >= until {
            return Ok(Event::Silent);
        }
        let engine = &mut self.engine;
        let wants_input = engine.wants_input();
        let going_down = async {
            match shutdown {
                Some(token) => token.cancelled_owned().await,
                None => std::future::pending().await,
            }
        };
        let input = async {
            if !wants_input {
                return std::future::pending().await;
            }
            let engine = &mut *engine;
            socket
                .read(|octets| {
                    if !octets.is_empty() {
                        engine.tick(now());
                        engine.receive(octets);
                    }
                })
                .await
        };
        let event = async {
            tokio::select! {
                read = input => read.map(Event::Read).map(|event| (event, None)),
                change = desk.next_change() => Ok((Event::Changed, Some(change))),
                () = going_down => Ok((Event::ShutDown, None)),
            }
        };
        match timeout_at(until, event).await {
            Err(_) => Ok(Event::Silent),
            Ok(Err(error)) => Err(error),
            Ok(Ok((event, change))) => {
                self.engine.tick(now());
                if let Some(change) = change {
                    self.engine.notify(change);
                }
                Ok(event)
            }
        }
    }
}

/// What is on its way to the client: small pieces gathered, and between them at most one large one.
struct Output {
    socket: Socket,
    gathered: BytesMut,
    large: Option<Bytes>,
    /// Small pieces behind the large one.
    behind: BytesMut,
    /// Who has not logged in takes all by then.
    until: Option<Instant>,
    /// Who takes nothing for so long is let go.
    patience: Duration,
    taking: Arc<Taking>,
}

impl Output {
    fn new(socket: Socket, until: Option<Instant>, taking: Arc<Taking>) -> Self {
        let (gathered, behind) = (BytesMut::new(), BytesMut::new());
        Self { socket, gathered, large: None, behind, until, patience: STALLED_AFTER, taking }
    }

    /// Small pieces wait for company; a large one waits until something else is to be done, so that
    /// the next chunk of a message is fetched while this one is sent.
    async fn send(&mut self, octets: Bytes) -> io::Result<()> {
        let is_large = octets.len() > LARGE_BYTES;
        let small = if self.large.is_some() { &self.behind } else { &self.gathered };
        let is_full = !is_large && small.len() + octets.len() > GATHER_BYTES;
        if is_full || (is_large && self.large.is_some()) {
            self.flush().await?;
        }
        if is_large {
            self.large = Some(octets);
        } else if self.large.is_some() {
            self.behind.extend_from_slice(&octets);
        } else {
            self.gathered.extend_from_slice(&octets);
        }
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        let gathered = std::mem::take(&mut self.gathered);
        let large = self.large.take().unwrap_or_default();
        let behind = std::mem::take(&mut self.behind);
        // Why together: a response is one packet for the client to wake up for.
        let mut pieces = [IoSlice::new(&gathered), IoSlice::new(&large), IoSlice::new(&behind)];
        let writing = self.socket.write_all(&mut pieces, self.patience, &self.taking);
        match self.until {
            Some(until) => timeout_at(until, writing).await?,
            None => writing.await,
        }
    }

    /// Answers a question; when that takes long, or much was gathered, writes it meanwhile.
    async fn write_while(&mut self, desk: &mut Desk, question: Question) -> io::Result<Reply> {
        // Why: boxed, an answer's state costs memory only while there is a question.
        let mut answering = Box::pin(desk.answer(question));
        if self.gathered.is_empty() && self.large.is_none() {
            return Ok(answering.await);
        }
        if self.large.is_none() {
            tokio::select! {
                biased;
                reply = &mut answering => return Ok(reply),
                () = sleep(HOLD_BACK) => {}
            }
        }
        let (reply, written) = tokio::join!(answering, self.flush());
        written.map(|()| reply)
    }
}

/// The clock sessions are told.
fn now() -> LogTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    LogTime(since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn future_bytes<A, B, F: Future>(_: impl FnOnce(A, B) -> F) -> usize {
        size_of::<F>()
    }

    /// Most connections of a frontend are idle; what each keeps is this and its engine.
    #[test]
    fn a_waiting_connection_is_small() {
        let n_bytes = future_bytes(Connection::run);
        assert!(n_bytes <= 4096, "{n_bytes} octets");
    }
}
