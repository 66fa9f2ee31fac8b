//! The desk: where a session's questions are answered. One for each connection.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::client::{DEADLINE, EVERY_MAILBOX};
use api::mail::Effort;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use mailbox::answer::MessageRecord;
use mailbox::chunk::unstow;
use mailbox::command::{OfMailbox, Place, Replaced};
use mailbox::dialogue::{Credentials, Login, Look, Question, Reply, Trouble};
use mailbox::{
    AccountId, Answer, Change, ChunkRef, Command, Digest, Draft, MailboxId, ModSeq, Outcome, Query,
    Refusal, StoredChunk,
};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Span, debug};

use crate::ahead::{Ahead, completed_by};
use crate::authenticate::Verdict;
use crate::ingest::{Failures, Ingest};
use crate::large::{Arrival, Held};
use crate::limits::{Counted, Origin, Turn};
use crate::maildrop::MaildropLock;
use crate::metrics::{Kind, LoginResult};
use crate::shared::Shared;
use crate::socket::Taking;
use crate::store::Watch;

/// Limit: commands of one session done side by side.
const SIDE_BY_SIDE_MAX: usize = 16;

/// No mailbox has this id: nothing is told yet.
const NO_MAILBOX: MailboxId = MailboxId(0);

/// After a gap that could not be closed.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Answers one session.
pub(crate) struct Desk {
    shared: Arc<Shared>,
    origin: Option<Origin>,
    shutdown: CancellationToken,
    /// Where the accounts are that this session was told of.
    places: BTreeMap<AccountId, Place>,
    /// Its place among the account's sessions; in POP3 until it has no maildrop any more.
    login: Option<Counted<AccountId>>,
    body: Option<Ingest>,
    held: Held,
    /// There was a message since the last recipient was named: the next one is another message's.
    had_body: bool,
    /// How it comes, if from a mail client.
    arrival: Option<Arrival>,
    failures: Failures,
    /// Whom the body is for.
    meant_for: Vec<AccountId>,
    ahead: Ahead,
    watched: Option<Watched>,
    maildrop: Option<MaildropLock>,
    taking: Arc<Taking>,
}

struct Watched {
    place: Place,
    of: OfMailbox,
    changes: Box<dyn Watch>,
    /// News may have been lost, here or on the way: how far the mailbox is has to be asked for.
    has_gap: bool,
    /// Not before this.
    rests_until: Instant,
}

impl Watched {
    fn mailboxes(&self) -> Query {
        Query::Mailboxes(self.of.account)
    }

    /// How far the mailbox is. Of one that is gone, or of which nothing is said, this is nothing new: then
    /// the session looks whether it is still there.
    fn found(&self, answer: &Answer) -> Option<Change> {
        if self.of.mailbox == NO_MAILBOX {
            return None;
        }
        let this = match answer {
            Answer::Mailboxes(mailboxes, _) => mailboxes.iter().find(|info| info.of == self.of),
            _ => None,
        };
        let highest_modseq = this.map_or(ModSeq::FIRST, |info| info.highest_modseq);
        Some(Change { of: self.of, highest_modseq })
    }
}

impl Desk {
    pub(crate) fn new(
        shared: Arc<Shared>,
        origin: Option<Origin>,
        shutdown: CancellationToken,
    ) -> Self {
        let ahead = Ahead::new(Arc::clone(&shared.store));
        Self {
            shared,
            origin,
            shutdown,
            places: BTreeMap::new(),
            login: None,
            body: None,
            held: Held::default(),
            had_body: false,
            arrival: None,
            failures: Failures::new(),
            meant_for: Vec::new(),
            ahead,
            watched: None,
            maildrop: None,
            taking: Arc::default(),
        }
    }

    /// How it is noted that the client takes nothing.
    pub(crate) fn taking(&self) -> Arc<Taking> {
        Arc::clone(&self.taking)
    }

    /// Whether somebody is logged in.
    pub(crate) fn is_logged_in(&self) -> bool {
        self.login.is_some()
    }

    /// Whether a message is on its way in, or waits to be stored.
    pub(crate) fn has_body(&self) -> bool {
        self.body.is_some() || self.held.has_place()
    }

    /// The next change of the mailbox that is watched; waits for ever when none is. Nothing is lost
    /// when the wait is given up.
    pub(crate) async fn next_change(&mut self) -> Change {
        let Some(watched) = &mut self.watched else { return std::future::pending().await };
        loop {
            if watched.has_gap {
                sleep_until(watched.rests_until).await;
                let asking = look_again(&self.shared, watched.place, watched.mailboxes());
                // Why boxed: most connections are idle, and few of them ask this.
                match Box::pin(asking).await {
                    Ok(answer) => {
                        watched.has_gap = false;
                        if let Some(change) = watched.found(&answer) {
                            return change;
                        }
                    }
                    Err(_) => sleep(ASK_AGAIN_AFTER).await,
                }
                continue;
            }
            let change = watched.changes.recv().await;
            if change.of == watched.of {
                return change;
            }
            watched.has_gap = change.of.mailbox == EVERY_MAILBOX;
        }
    }

    /// Finds out or does what the session asks for.
    pub(crate) async fn answer(&mut self, question: Question) -> Reply {
        let kind = Kind::of(&question);
        let asks = matches!(question, Question::Query(_));
        let asked = Instant::now();
        let reply = self.find_out(question).await.unwrap_or_else(Reply::Trouble);
        if let (true, Reply::Trouble(_), Some(watched)) = (asks, &reply, &mut self.watched) {
            // Why: it may have been the question what is new, of which nobody tells a second time. Why later:
            // it may fail at once, each time, and IDLE asks it again as soon as it is told.
            watched.has_gap = true;
            watched.rests_until = Instant::now() + ASK_AGAIN_AFTER;
        }
        if let Some(kind) = kind {
            self.shared.metrics.asked(kind, asked.elapsed());
        }
        reply
    }

    async fn find_out(&mut self, question: Question) -> Result<Reply, Trouble> {
        let is_lost = self.maildrop.as_ref().is_some_and(MaildropLock::is_lost);
        if is_lost && !matches!(question, Question::UnlockMaildrop) {
            return Ok(Reply::InUse);
        }
        match question {
            Question::Authenticate(credentials) => self.authenticate(credentials).await,
            Question::Recipient(address) => {
                if std::mem::take(&mut self.had_body) {
                    // Who was named before it got that message, or not.
                    self.places.clear();
                    self.held = Held::default();
                    self.ahead.give_up();
                }
                let found = self.shared.store.recipients(&address).await;
                self.shared.metrics.named(&found);
                let remember = |place| self.remember(place);
                found.map(|places| Reply::Recipient(places.into_iter().map(remember).collect()))
            }
            Question::Query(query) => self.query(query).await.map(Reply::Answer),
            Question::Command(command, inline) => {
                let done = self.single(*command, inline, None).await;
                done.map(|(outcome, _)| Reply::Outcome(outcome))
            }
            Question::CommandAnd(command, inline, then) => {
                let done = self.single(*command, inline, Some(*then)).await;
                done.map(|(outcome, answer)| Reply::OutcomeAnd(outcome, answer))
            }
            Question::Commands(commands) => Ok(Reply::Outcomes(self.deliver(commands).await)),
            Question::WouldTake(copies, first) => {
                Ok(Reply::Looks(self.would_take(copies, first).await))
            }
            Question::BeginBody(accounts) => self.begin_body(&accounts, None),
            Question::BeginReplacement(account, it) => self.begin_body(&[account], Some(it)),
            Question::Body(octets) => self.push_body(octets).await,
            Question::EndBody => self.end_body().await.map(|draft| Reply::Draft(Box::new(draft))),
            Question::DropBody => {
                self.drop_body();
                Ok(Reply::Done)
            }
            Question::Chunk(account, chunk) => self.chunk(account, chunk).await.map(Reply::Chunk),
            Question::Watch(of) => self.watch(of),
            Question::Listen(account) => self.watch(OfMailbox { account, mailbox: NO_MAILBOX }),
            Question::Unwatch => {
                self.watched = None;
                Ok(Reply::Done)
            }
            Question::LockMaildrop(account) => {
                let locked = self.lock_maildrop(account).await;
                if !matches!(locked, Ok(Reply::Done)) {
                    self.login = None;
                }
                locked
            }
            Question::UnlockMaildrop => {
                self.login = None;
                if let Some(maildrop) = self.maildrop.take() {
                    maildrop.release().await;
                }
                Ok(Reply::Done)
            }
        }
    }

    fn drop_body(&mut self) {
        (self.body, self.arrival) = (None, None);
        self.held = Held::default();
        self.had_body = true;
        self.ahead.give_up();
    }

    /// What came of each; nothing is kept of what they needed.
    async fn deliver(
        &mut self,
        commands: Vec<(Command, Vec<StoredChunk>)>,
    ) -> Vec<Result<Outcome, Trouble>> {
        let each: Vec<_> = commands.iter().map(|(command, _)| completed_by(command)).collect();
        let outcomes = self.commands(commands).await;
        for (completes, it) in each.iter().zip(&outcomes) {
            if let Some(completes) = completes {
                self.ahead.ended(completes, it.as_ref());
            }
        }
        self.held = Held::default();
        self.ahead.give_up();
        outcomes
    }

    fn remember(&mut self, place: Place) -> AccountId {
        self.places.insert(place.account, place);
        place.account
    }

    /// Every account a session names came from a reply, so it is known here.
    fn place(&self, account: AccountId) -> Result<Place, Trouble> {
        self.places.get(&account).copied().ok_or(Trouble::Unavailable)
    }

    async fn authenticate(&mut self, credentials: Credentials) -> Result<Reply, Trouble> {
        self.login = None;
        let metrics = Arc::clone(&self.shared.metrics);
        let login = credentials.login.clone();
        let checked = self.shared.authenticator.check(credentials, self.origin).await;
        let counted = match &checked {
            Ok(Verdict::Right(place, _)) => self.shared.limits.accounts.enter(place.account),
            _ => None,
        };
        metrics.login(match &checked {
            Ok(Verdict::Right(..)) if counted.is_none() => LoginResult::Limit,
            Ok(Verdict::Right(..)) => LoginResult::Right,
            Ok(Verdict::Wrong) => LoginResult::Wrong,
            Ok(Verdict::Disabled) => LoginResult::Disabled,
            Err(_) => LoginResult::Trouble,
        });
        let (place, record) = match checked? {
            Verdict::Right(place, record) => (place, record),
            Verdict::Wrong => {
                let penalty = sleep(self.shared.penalties.wrong(self.origin, &login));
                self.shutdown.run_until_cancelled(penalty).await;
                return Ok(Reply::Denied);
            }
            Verdict::Disabled => return Ok(Reply::Disabled),
        };
        if counted.is_none() {
            debug!(account = %place.account, "too many sessions of an account");
            return Ok(Reply::TooMany);
        }
        self.login = counted;
        self.remember(place);
        Span::current().record("account", tracing::field::display(place.account));
        Ok(Reply::Authenticated(Login { account: place.account, name: record.name }))
    }

    async fn query(&self, query: Query) -> Result<Answer, Trouble> {
        let account = account_of_query(&query).ok_or(Trouble::Unavailable)?;
        let place = self.place(account)?;
        // Why a turn: who asks much waits for itself, not others for it.
        let limits = &self.shared.limits;
        let _turn = match Effort::of(&query) {
            Effort::Mailbox => Some(limits.searches.turn(account).await),
            Effort::Names => Some(listing_turn(&self.shared, account).await?),
            Effort::Page | Effort::Little => None,
        };
        let mut answer = self.shared.store.query(place, query).await?;
        if let Answer::Messages(records, _) = &mut answer {
            for record in records.iter_mut().filter(|record| !record.metadata_chunks.is_empty()) {
                self.fetch_metadata(place, record).await?;
            }
        }
        Ok(answer)
    }

    /// Puts the whole metadata in the place of an excerpt.
    async fn fetch_metadata(
        &self,
        place: Place,
        record: &mut MessageRecord,
    ) -> Result<(), Trouble> {
        let mut octets = Vec::new();
        for chunk in std::mem::take(&mut record.metadata_chunks) {
            octets.extend_from_slice(&self.shared.store.chunk(place, chunk).await?);
        }
        let whole = record.metadata.as_ref().and_then(|excerpt| unstow(excerpt, &octets));
        record.metadata = Some(whole.ok_or(Trouble::Damaged)?.into());
        Ok(())
    }

    async fn command(
        &self,
        command: Command,
        inline: Vec<StoredChunk>,
    ) -> Result<Outcome, Trouble> {
        self.command_and(command, inline, None).await.map(|(outcome, _)| outcome)
    }

    /// Does a command; when it brought messages, or was to, lets go of what was sent ahead for them.
    async fn single(
        &mut self,
        command: Command,
        inline: Vec<StoredChunk>,
        then: Option<Query>,
    ) -> Result<(Outcome, Option<Answer>), Trouble> {
        if let Command::Upload(it) = &command {
            self.ahead.sent(self.place(it.account)?, it.upload);
        }
        let completes = completed_by(&command);
        let done = self.command_and(command, inline, then).await;
        if let Some(completes) = completes {
            self.held = Held::default();
            self.ahead.ended(&completes, done.as_ref().map(|(outcome, _)| outcome));
            self.ahead.give_up();
        }
        done
    }

    /// Does a command, and finds out what a query about its account finds then.
    async fn command_and(
        &self,
        command: Command,
        inline: Vec<StoredChunk>,
        then: Option<Query>,
    ) -> Result<(Outcome, Option<Answer>), Trouble> {
        let account = account_of_command(&command).ok_or(Trouble::Unavailable)?;
        let is_body = matches!(command, Command::Deliver(_) | Command::Append(_));
        if is_body && let Some(failed) = self.failed_before(account) {
            return failed.map(|outcome| (outcome, None));
        }
        let (store, place) = (&self.shared.store, self.place(account)?);
        match then.filter(|then| account_of_query(then) == Some(account)) {
            Some(then) => store.command_and(place, command, inline, then).await,
            None => Ok((store.command(place, command, inline).await?, None)),
        }
    }

    async fn commands(
        &self,
        commands: Vec<(Command, Vec<StoredChunk>)>,
    ) -> Vec<Result<Outcome, Trouble>> {
        if commands.len() == 1 {
            let mut outcomes = Vec::with_capacity(1);
            for (command, inline) in commands {
                outcomes.push(self.counted(command, inline).await);
            }
            return outcomes;
        }
        let doing = commands.into_iter().enumerate().map(|(n, (command, inline))| async move {
            // Why: all replies wait for the last outcome, and the process does not wait long for them.
            if n >= SIDE_BY_SIDE_MAX && self.shutdown.is_cancelled() {
                return Err(Trouble::Unavailable);
            }
            self.counted(command, inline).await
        });
        stream::iter(doing).buffered(SIDE_BY_SIDE_MAX).collect().await
    }

    /// What came of pieces sent ahead that did not arrive: their story is the better one to tell.
    fn failed_before(&self, account: AccountId) -> Option<Result<Outcome, Trouble>> {
        let failed = self.failures.get(&account)?;
        Some(match failed {
            Ok(Outcome::Refused(refusal)) => Ok(Outcome::Refused(refusal.clone())),
            Ok(_) => Ok(Outcome::Refused(Refusal::UploadGap)),
            Err(trouble) => Err(*trouble),
        })
    }

    async fn would_take(&self, copies: Vec<(AccountId, u64)>, first: Option<Digest>) -> Vec<Look> {
        let looking = copies.into_iter().map(|(account, n_bytes)| async move {
            match self.failed_before(account) {
                Some(Ok(Outcome::Refused(refusal))) => return Look::Refuses(refusal),
                Some(Err(trouble)) => return Look::Unknown(trouble),
                Some(Ok(_)) | None => {}
            }
            if let Some(first) = first
                && !self.shutdown.is_cancelled()
                && let Ok(Answer::Holds(true)) = self.query(Query::Holds(account, first)).await
            {
                return Look::Has;
            }
            if self.shutdown.is_cancelled() {
                return Look::Unknown(Trouble::Unavailable);
            }
            match self.query(Query::Account(account)).await {
                Ok(Answer::Account(record)) => match record.would_take(n_bytes) {
                    Outcome::Refused(refusal) => Look::Refuses(refusal),
                    _ => Look::Takes,
                },
                Ok(Answer::Refused(refusal)) => Look::Refuses(refusal),
                Ok(_) => Look::Unknown(Trouble::Unavailable),
                Err(trouble) => Look::Unknown(trouble),
            }
        });
        let looks: Vec<Look> = stream::iter(looking).buffered(SIDE_BY_SIDE_MAX).collect().await;
        self.shared.metrics.looked(&looks);
        looks
    }

    async fn counted(
        &self,
        command: Command,
        inline: Vec<StoredChunk>,
    ) -> Result<Outcome, Trouble> {
        let is_delivery = matches!(command, Command::Deliver(_));
        let outcome = self.command(command, inline).await;
        if is_delivery {
            self.shared.metrics.delivered(&outcome);
        }
        outcome
    }

    fn begin_body(
        &mut self,
        accounts: &[AccountId],
        replaces: Option<Replaced>,
    ) -> Result<Reply, Trouble> {
        let places: Result<Vec<_>, _> =
            accounts.iter().map(|account| self.place(*account)).collect();
        self.failures.clear();
        self.had_body = true;
        self.meant_for = accounts.to_vec();
        let large = &self.shared.large;
        // Who logged in is a mail client, and sends to its own account.
        let places_of_kind = match (&self.login, accounts) {
            (Some(_), [account]) => {
                self.arrival = Some(Arrival::new(*account));
                &large.from_clients
            }
            _ => &large.from_mtas,
        };
        self.body = Some(Ingest::new(
            Arc::clone(&self.shared.store),
            Arc::clone(&places_of_kind.bodies),
            self.shared.message_bytes_max,
            places?,
            replaces,
        ));
        Ok(Reply::Done)
    }

    async fn push_body(&mut self, octets: Bytes) -> Result<Reply, Trouble> {
        let body = self.body.as_mut().ok_or(Trouble::Unavailable)?;
        let large = &self.shared.large;
        let places = match &mut self.arrival {
            Some(arrival) => {
                arrival.came(octets.len(), large).await?;
                &large.from_clients
            }
            None => &large.from_mtas,
        };
        self.held.more(octets.len(), places).await?;
        body.push(octets).await?;
        if let Some(arrival) = &mut self.arrival {
            arrival.taken();
        }
        Ok(Reply::Done)
    }

    async fn end_body(&mut self) -> Result<Draft, Trouble> {
        self.arrival = None;
        let body = self.body.take().ok_or(Trouble::Unavailable)?;
        let finished = body.finish().await;
        if finished.is_err() {
            self.held = Held::default();
        }
        let (draft, failures) = finished?;
        self.failures = failures;
        let meant_for = std::mem::take(&mut self.meant_for);
        if let Some(upload) = draft.message.upload {
            for account in meant_for {
                self.ahead.sent(self.place(account)?, upload);
            }
        }
        Ok(draft)
    }

    async fn chunk(&self, account: AccountId, chunk: ChunkRef) -> Result<Bytes, Trouble> {
        self.shared.store.chunk(self.place(account)?, chunk).await
    }

    fn watch(&mut self, of: OfMailbox) -> Result<Reply, Trouble> {
        match &mut self.watched {
            Some(watched) if watched.of.account == of.account => watched.of = of,
            _ => {
                let place = self.place(of.account)?;
                let changes = self.shared.store.watch(place);
                let rests_until = Instant::now();
                self.watched = Some(Watched { place, of, changes, has_gap: false, rests_until });
            }
        }
        Ok(Reply::Done)
    }

    async fn lock_maildrop(&mut self, account: AccountId) -> Result<Reply, Trouble> {
        if let Some(maildrop) = &self.maildrop {
            return Ok(if maildrop.renew().await? { Reply::Done } else { Reply::InUse });
        }
        let store = Arc::clone(&self.shared.store);
        let place = self.place(account)?;
        self.maildrop = MaildropLock::take(store, place, self.taking()).await?;
        Ok(if self.maildrop.is_some() { Reply::Done } else { Reply::InUse })
    }
}

/// Asks for all mailboxes of an account after news were lost, when it is its turn.
async fn look_again(shared: &Shared, place: Place, query: Query) -> Result<Answer, Trouble> {
    let _among_all = shared.limits.gaps.turn(place.shard).await;
    let _turn = listing_turn(shared, place.account).await?;
    shared.store.query(place, query).await
}

/// Why in time: those before may wait for a shard without a majority, each until its deadline.
async fn listing_turn(shared: &Shared, account: AccountId) -> Result<Turn<AccountId>, Trouble> {
    let turn = shared.limits.listings.turn(account);
    timeout(DEADLINE, turn).await.map_err(|_| Trouble::Unavailable)
}

/// Whose rows a query reads; `None` for what sessions never ask.
fn account_of_query(query: &Query) -> Option<AccountId> {
    match query {
        Query::Resolve(_)
        | Query::Accounts(_)
        | Query::Groups(_)
        | Query::Moving(_)
        | Query::AccountRows(..)
        | Query::ChangedRows(..) => None,
        Query::Account(account) | Query::Mailboxes(account) | Query::Holds(account, _) => {
            Some(*account)
        }
        Query::Mailbox(mailbox) | Query::Open(mailbox, _) => Some(mailbox.account),
        Query::Uids(uids) => Some(uids.of.account),
        Query::Messages(messages) | Query::Bodies(messages) => Some(messages.of.account),
        Query::Vanished(vanished) | Query::News(vanished, ..) => Some(vanished.of.account),
        Query::Search(search) => Some(search.of.account),
        Query::Sort(sort) => Some(sort.of.account),
        Query::Thread(thread) => Some(thread.of.account),
    }
}

/// Whose rows a command changes; `None` for what sessions never ask.
fn account_of_command(command: &Command) -> Option<AccountId> {
    match command {
        Command::CreateMailbox(it) => Some(it.account),
        Command::DeleteMailbox(it) => Some(it.account),
        Command::RenameMailbox(it) => Some(it.account),
        Command::Subscribe(it) => Some(it.account),
        Command::ClaimRecent(it, _) => Some(it.account),
        Command::Upload(it) => Some(it.account),
        Command::Deliver(it) => Some(it.account),
        Command::Append(it) => Some(it.account),
        Command::Store(it) => Some(it.account),
        Command::Copy(it) => Some(it.account),
        Command::Move(it) => Some(it.account),
        Command::Expunge(it) => Some(it.account),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
