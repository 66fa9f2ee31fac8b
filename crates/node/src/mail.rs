//! What frontends ask of this node: propose, query, chunk, watch, maildrop locks.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use api::mail::{BESIDE_BYTES_MAX, Changes, Leadership, MailError, MailHandler};
use api::placement::META_SHARD;
use async_trait::async_trait;
use mailbox::chunk::CHUNK_BYTES_MAX;
use mailbox::command::{InternalDate, OfMailbox};
use mailbox::{
    AccountId, Answer, ChunkRef, Command, Entry, FirstTold, LogTime, Outcome, Query, Refusal,
    Request, Rows, SessionId, ShardId, StoredChunk, Uid,
};
use replica::{Role, View};
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use crate::config::Config;
use crate::lookup::{Lookups, Place};
use crate::refuse;
use crate::replicas::Running;
use crate::shared::{Shared, lock};

/// Limit: changes waiting for a reader before it has to begin anew.
const WATCH_QUEUE_MAX: usize = 1024;
/// A leader that no majority answered for so long is not sure to lead; longer where heartbeats are rarer.
const QUORUM_AGE_MAX: Duration = Duration::from_secs(1);
/// How often a watch looks whether this replica still leads.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Limit: bodies, and their octets, that are read by whoever answers. Why any: to read one that the system
/// has in memory takes less than another thread to begin with it.
const READ_HERE_BODIES_MAX: usize = 4;
const READ_HERE_BYTES_MAX: u64 = 64 << 10;
/// How often a view that was lost is taken anew.
const VIEWS_MAX: usize = 3;

/// Limit: how far beyond log time a request may expire: a year. Clients give theirs some ten seconds, by
/// clocks that may be wrong, and the log time of a shard that nobody writes to stands still; the shard keeps
/// a session and its outcomes until all that was asked in it has expired.
const EXPIRES_WITHIN: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// The shards of this node.
pub(crate) struct Mail(pub Arc<Shared>);

impl Mail {
    /// Why not the meta group: it keeps no mail, and a log that it cannot read stops all its replicas.
    fn running(&self, shard: ShardId) -> Result<Arc<Running>, MailError> {
        match shard {
            META_SHARD => Err(MailError::Invalid),
            shard => self.0.replicas.of_shard(shard).ok_or(MailError::NoSuchShard),
        }
    }

    fn lookups(&self, running: &Running) -> Result<&Lookups, MailError> {
        self.0.lookups.get(&running.disk_id).ok_or(MailError::Unavailable)
    }

    /// Why: until every mailbox has its new UIDVALIDITY, a client would take another history for the one it
    /// knows.
    fn refuse_if_forced(&self, shard: ShardId) -> Result<(), MailError> {
        let placement = self.0.known.placement();
        let forced = placement.shard(shard).is_some_and(|shard| shard.forced.is_some());
        if forced { Err(MailError::Unavailable) } else { Ok(()) }
    }

    /// Why: while leaderships are handed over, a proposal that comes in would only be caught between
    /// two leaders; its sender is told at once who is next.
    fn refuse_if_draining(&self, running: &Running) -> Result<(), MailError> {
        if self.0.is_draining() {
            let status = running.replica.status();
            if status.role != Role::Leader {
                return Err(MailError::NotLeader { leader: leader_name(running) });
            }
        }
        Ok(())
    }

    /// Why here, not where it is applied: earlier versions apply the same log.
    async fn refuse_if_lasting(
        &self,
        running: &Running,
        expires: LogTime,
    ) -> Result<(), MailError> {
        // Why first the clock, which costs nothing: log time is ahead of it only where one leapt.
        if !is_lasting(expires, now()) || running.replica.status().role != Role::Leader {
            return Ok(());
        }
        let view = running.replica.local_view().map_err(refuse::propose)?;
        let read = |view: &View| {
            let digest = view.digest();
            view.read(|source, _| log_time(&mut Rows::new(source, digest)))
        };
        let log_time = view.apart(read).await.and_then(Result::ok);
        let log_time = log_time.ok_or(MailError::Unavailable)?;
        if is_lasting(expires, log_time) {
            tracing::debug!(shard = %running.replica.shard(), "refused: it expires too late");
            return Err(MailError::Invalid);
        }
        Ok(())
    }

    async fn term_of_lead(&self, running: &Running) -> Result<u64, MailError> {
        running.replica.read().await.map_err(refuse::propose)?;
        let status = running.replica.status();
        if status.role == Role::Leader {
            Ok(status.term)
        } else {
            Err(MailError::NotLeader { leader: leader_name(running) })
        }
    }
}

fn leader_name(running: &Running) -> Option<String> {
    running.replica.status().leader.map(|(_, member)| member.node)
}

#[async_trait]
impl MailHandler for Mail {
    async fn propose(
        &self,
        shard: ShardId,
        mut request: Request,
        chunks: Vec<StoredChunk>,
        then: Option<Query>,
    ) -> Result<(Outcome, Option<Answer>), MailError> {
        let running = self.running(shard)?;
        self.refuse_if_forced(shard)?;
        self.refuse_if_draining(&running)?;
        self.refuse_if_lasting(&running, request.expires).await?;
        if chunks.iter().any(|chunk| chunk.bytes.len() > CHUNK_BYTES_MAX) {
            return Err(MailError::TooLarge);
        }
        date(&mut request.command, now());
        let claim = match request.command {
            Command::ClaimRecent(of, below) => Some((of, below)),
            _ => None,
        };
        let command = mailbox::codec::encode(&request);
        let size = command.len() + chunks.iter().map(|chunk| chunk.bytes.len()).sum::<usize>();
        let kib = u32::try_from(size / 1024 + 1).map_err(|_| MailError::TooLarge)?;
        let _room = self.0.in_flight.try_acquire_many(kib).map_err(|_| MailError::Overloaded)?;
        // The replica verifies every chunk against its digest before it proposes.
        let Some(then) = then else {
            let response = running.replica.propose(command, chunks).await;
            let outcome = outcome(&response.map_err(refuse::propose)?)?;
            return Ok((settled_claim(&running, claim, outcome), None));
        };
        // Why no round: whatever was acknowledged before this command came lies before it in the log.
        let proposed = running.replica.propose_and_view(command, chunks).await;
        let (response, view) = proposed.map_err(refuse::propose)?;
        let outcome = settled_claim(&running, claim, outcome(&response)?);
        // Why no wait: the outcome would wait too, and the question can be asked by itself.
        let place = self.lookups(&running).ok().and_then(|places| places.free_place(&then));
        let Some(place) = place else { return Ok((outcome, None)) };
        let then = Arc::new(then);
        let answer = answer(view, Arc::clone(&then), place).await;
        Ok((outcome, answer.map(|answer| settled(&running, &then, answer))))
    }

    async fn query(
        &self,
        shard: ShardId,
        query: Query,
        linearizable: bool,
    ) -> Result<Answer, MailError> {
        let running = self.running(shard)?;
        self.refuse_if_forced(shard)?;
        // Why before there is a view: what is overwritten is kept for that.
        let place = self.lookups(&running)?.place(&query).await;
        let query = Arc::new(query);
        for _ in 0..VIEWS_MAX {
            let view = match linearizable {
                true => running.replica.read().await,
                false => running.replica.local_view(),
            };
            let view = view.map_err(refuse::propose)?;
            if let Some(answer) = answer(view, Arc::clone(&query), place.clone()).await {
                return Ok(settled(&running, &query, answer));
            }
        }
        Err(MailError::Unavailable)
    }

    async fn beside(&self, shard: ShardId, answer: &Answer) -> Vec<StoredChunk> {
        let (Answer::Messages(records, _), Ok(running)) = (answer, self.running(shard)) else {
            return Vec::new();
        };
        let mut left = BESIDE_BYTES_MAX;
        let mut digests = Vec::new();
        for body in records.iter().filter_map(|record| record.body.as_ref()) {
            let size = body.chunks.iter().map(|chunk| u64::from(chunk.raw_len)).sum();
            // Why only whole messages: of a large one perhaps only a part is wanted.
            let Some(rest) = left.checked_sub(size) else { break };
            left = rest;
            digests.extend(body.chunks.iter().map(|chunk| chunk.digest));
        }
        let is_little =
            digests.len() <= READ_HERE_BODIES_MAX && BESIDE_BYTES_MAX - left <= READ_HERE_BYTES_MAX;
        // Why not with several disks: one that hangs would hold up those who ask the others.
        let chunks = if is_little && self.0.config.data_dirs.len() == 1 {
            digests.iter().filter_map(|digest| running.replica.stored_chunk(digest)).collect()
        } else {
            running.replica.stored_chunks(digests).await
        };
        for stored in &chunks {
            self.0.count_read(&stored.chunk);
        }
        chunks
    }

    async fn chunk(&self, shard: ShardId, chunk: ChunkRef) -> Result<StoredChunk, MailError> {
        let running = self.running(shard)?;
        self.0.count_read(&chunk);
        running.replica.chunk(&chunk).await.map_err(refuse::chunk)
    }

    async fn watch(&self, shard: ShardId, _from: u64) -> Result<Changes, MailError> {
        let running = self.running(shard)?;
        let changes = running.replica.changes();
        // After this round nothing that is acknowledged later can be missed.
        let term = self.term_of_lead(&running).await?;
        let (sender, receiver) = mpsc::channel(WATCH_QUEUE_MAX);
        let (stop, age_max) = (self.0.stop.clone(), quorum_age_max(&self.0.config));
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                end = forward(&running, (term, age_max), changes, &sender) => {
                    let _ = sender.send(Err(end)).await;
                }
            }
        });
        Ok(Box::pin(ReceiverStream::new(receiver)))
    }

    async fn leader(&self, shard: ShardId) -> Result<Leadership, MailError> {
        let running = self.0.replicas.of_shard(shard).ok_or(MailError::NoSuchShard)?;
        let status = running.replica.status();
        // Why not itself: another one may lead by now, and who asks would come back here.
        let age_max = quorum_age_max(&self.0.config);
        let is_doubted = status.role == Role::Leader && !is_sure(&status, age_max);
        let leader = status.leader.filter(|_| !is_doubted).map(|(_, member)| member.node);
        Ok(Leadership { leader, term: status.term })
    }

    async fn lock_maildrop(
        &self,
        shard: ShardId,
        account: AccountId,
        token: [u8; 16],
    ) -> Result<bool, MailError> {
        let running = self.running(shard)?;
        let term = self.term_of_lead(&running).await?;
        Ok(lock(&running.leases).lock(term, account, token, Instant::now()))
    }

    async fn unlock_maildrop(
        &self,
        shard: ShardId,
        account: AccountId,
        token: [u8; 16],
    ) -> Result<(), MailError> {
        let running = self.running(shard)?;
        let status = running.replica.status();
        if status.role != Role::Leader {
            return Err(MailError::NotLeader { leader: leader_name(&running) });
        }
        lock(&running.leases).unlock(status.term, account, token);
        Ok(())
    }
}

/// What came of a claim of `\Recent`, without what other sessions were told before.
fn settled_claim(
    running: &Running,
    claim: Option<(OfMailbox, Option<Uid>)>,
    mut outcome: Outcome,
) -> Outcome {
    if let Some(claim) = claim {
        let term = running.replica.term();
        lock(&running.first_told).settle_claim(term, claim, &mut outcome);
    }
    outcome
}

/// An answer in which nothing is `\Recent` that another session was told before.
fn settled(running: &Running, query: &Query, mut answer: Answer) -> Answer {
    if FirstTold::concerns(query, &answer) {
        let term = running.replica.term();
        lock(&running.first_told).settle(term, query, &mut answer);
    }
    answer
}

fn now() -> LogTime {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    LogTime(u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

/// Dates what arrives by the clock of this node. Why not by log time: a clock that leapt ahead for a moment
/// moves that for good, and all that comes until then would bear the same date.
fn date(command: &mut Command, now: LogTime) {
    let now = InternalDate { unix_s: (now.0 / 1000).cast_signed(), zone_minutes: 0 };
    match command {
        Command::Deliver(deliver) => deliver.internal_date = deliver.internal_date.or(Some(now)),
        Command::Append(append) => {
            for message in &mut append.messages {
                message.internal_date = message.internal_date.or(Some(now));
            }
        }
        _ => {}
    }
}

/// Whether a leader leads for certain: a majority answered it lately, or it is one by itself.
fn is_sure(status: &replica::Status, age_max: Duration) -> bool {
    let age = Duration::from_millis(status.quorum_age_ms.unwrap_or(0));
    status.voters.len() <= 1 || age < age_max
}

/// Two heartbeats, and a round trip that is shorter than an election.
fn quorum_age_max(config: &Config) -> Duration {
    let ms = config.heartbeat_ms.saturating_mul(2).saturating_add(config.election_max_ms);
    QUORUM_AGE_MAX.max(Duration::from_millis(ms))
}

/// Whether a request would last beyond what it may, were this log time.
fn is_lasting(expires: LogTime, log_time: LogTime) -> bool {
    let within_ms = EXPIRES_WITHIN.as_millis() as u64;
    expires.0 > log_time.0.saturating_add(within_ms)
}

/// What log time a shard is at: it is told to whoever comes too late by it.
fn log_time(rows: &mut Rows<'_>) -> LogTime {
    let request = Request {
        session: None,
        sequence: 0,
        lowest_unanswered: 0,
        expires: LogTime(0),
        command: Command::OpenSession(SessionId([0; 16])),
    };
    let applied = mailbox::apply(rows, &Entry { time: LogTime(0), request }, &[]);
    match applied.outcome {
        Outcome::Refused(Refusal::Expired(Some(log_time))) => log_time,
        _ => LogTime(0),
    }
}

fn outcome(response: &[u8]) -> Result<Outcome, MailError> {
    mailbox::codec::decode(response).map_err(|_| MailError::Unknown)
}

/// Hands changes on until this replica is not sure to lead any more; says why it ended.
async fn forward(
    running: &Running,
    (term, age_max): (u64, Duration),
    mut changes: broadcast::Receiver<(u64, mailbox::Change)>,
    sender: &mpsc::Sender<Result<(u64, mailbox::Change), MailError>>,
) -> MailError {
    let status = running.replica.watch_status();
    let leads = |status: &replica::Status| {
        status.role == Role::Leader && status.term == term && is_sure(status, age_max)
    };
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            change = changes.recv() => match change {
                Ok(change) => match sender.try_send(Ok(change)) {
                    Ok(()) => {}
                    Err(mpsc::error::TrySendError::Full(_)) => return MailError::Overloaded,
                    Err(mpsc::error::TrySendError::Closed(_)) => return MailError::Unavailable,
                },
                Err(broadcast::error::RecvError::Lagged(_)) => return MailError::Overloaded,
                Err(broadcast::error::RecvError::Closed) => return MailError::Unavailable,
            },
            _ = look.tick() => if !leads(&status.borrow()) {
                return MailError::NotLeader { leader: leader_name(running) };
            },
            () = sender.closed() => return MailError::Unavailable,
        }
    }
}

/// `None`: the view was lost, another one helps.
async fn answer(view: View, query: Arc<Query>, place: Place) -> Option<Answer> {
    if !place.is_needed() {
        let read =
            move |view: &View| view.read(|rows, bodies| mailbox::answer(rows, bodies, &query)).ok();
        return view.apart(read).await.flatten();
    }
    let read = move |is_wanted: &dyn Fn() -> bool| {
        let answered =
            view.read_while(is_wanted, |rows, bodies| mailbox::answer(rows, bodies, &query));
        answered.ok()
    };
    place.run(read).await
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use mailbox::command::Deliver;
    use mailbox::{Digest, NewMessage, RowDigest};

    use super::*;

    const MAX_MS: u64 = EXPIRES_WITHIN.as_millis() as u64;

    #[test]
    fn a_leader_with_rare_heartbeats_is_sure_from_one_to_the_next() {
        let config = |times: &str| {
            let text = "name = \"n1\"\ndata_dirs = [\"a\"]\nidentity_dir = \"i\"\n";
            Config::parse(&format!("{text}{times}")).unwrap()
        };
        assert_eq!(quorum_age_max(&config("")), QUORUM_AGE_MAX);
        let rare = config("heartbeat_ms = 2000\nelection_min_ms = 4000\nelection_max_ms = 6000\n");
        let member = replica::Member { node: "n1".into(), disk_id: [1; 16] };
        let voters: BTreeMap<_, _> = (1..=3).map(|id| (id, member.clone())).collect();
        // It was answered 500 ms after it was sent, and the next one is not yet.
        let quorum_age_ms = Some(2 * 2000 + 500);
        let status = replica::Status { voters, quorum_age_ms, ..replica::Status::default() };
        assert!(is_sure(&status, quorum_age_max(&rare)));
        assert!(!is_sure(&status, QUORUM_AGE_MAX));
    }

    #[test]
    fn what_arrives_is_dated_by_the_clock_unless_it_has_a_date() {
        let raw: &[u8] = b"";
        let message = NewMessage {
            digest: Digest([1; 32]),
            chunks: Vec::new(),
            size: 0,
            metadata: (&mime::scan(raw)).into(),
            upload: None,
            metadata_chunks: Vec::new(),
        };
        let (account, given) = (AccountId([1; 16]), InternalDate { unix_s: 7, zone_minutes: 60 });
        let of = |internal_date: Option<InternalDate>| {
            let message = message.clone();
            let deliver = Deliver { account, detail: None, message, internal_date };
            let mut command = Command::Deliver(deliver);
            date(&mut command, LogTime(5_999));
            match command {
                Command::Deliver(deliver) => deliver.internal_date,
                _ => None,
            }
        };
        assert_eq!(of(None), Some(InternalDate { unix_s: 5, zone_minutes: 0 }));
        assert_eq!(of(Some(given)), Some(given));
    }

    #[test]
    fn no_request_lasts_for_longer_than_a_year() {
        let nothing: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let mut rows = Rows::new(&nothing, RowDigest::default());
        assert_eq!(log_time(&mut rows), LogTime(0));
        // A clock leapt: those that are told log time say it too.
        let time = LogTime(now().0 + 100 * MAX_MS);
        let command = Command::OpenSession(SessionId([1; 16]));
        let request = Request {
            session: None,
            sequence: 0,
            lowest_unanswered: 0,
            expires: LogTime(time.0 + 7_500),
            command,
        };
        assert!(is_lasting(request.expires, now()));
        let opened = mailbox::apply(&mut rows, &Entry { time, request }, &[]);
        assert_eq!(opened.outcome, Outcome::Done);
        assert_eq!(log_time(&mut rows), time);
        assert!(!is_lasting(LogTime(time.0 + MAX_MS), time));
        assert!(is_lasting(LogTime(time.0 + MAX_MS + 1), time));
        assert!(is_lasting(LogTime(u64::MAX), time));
    }
}
