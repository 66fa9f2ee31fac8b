//! How a protocol engine talks to its surroundings. An engine never awaits: it is given bytes,
//! replies and news, and says what it wants next. One `Ask` is open at a time; until its reply
//! came, `next_step` gives `Send` or `Wait` only.

use std::fmt;

use bytes::Bytes;

use crate::address::Address;
use crate::answer::Answer;
use crate::chunk::{ChunkRef, Digest, Draft, StoredChunk};
use crate::command::{Command, OfMailbox, Replaced};
use crate::ids::{AccountId, LogTime};
use crate::outcome::{Change, Outcome, Refusal};
use crate::query::Query;

/// A protocol session: imap, pop3 or lmtp.
pub trait Engine: Send {
    /// Bytes from the client, in any cuts. The driver stops reading while [`Engine::wants_input`]
    /// is false, so that a pipelining client cannot fill memory.
    fn receive(&mut self, bytes: &[u8]);

    /// The client closed its sending side.
    fn end_of_input(&mut self);

    /// Whether more bytes may be received now.
    fn wants_input(&self) -> bool;

    /// The reply to the open question.
    fn reply(&mut self, reply: Reply);

    /// Somebody changed a mailbox this session watches, or may have: where news were lost on the way, or a
    /// question could not be answered, this comes as soon as the store can be asked.
    fn notify(&mut self, change: Change);

    /// TLS is up: plaintext that was buffered is dropped (RFC 9051 6.2.1, RFC 2595 4).
    fn tls_started(&mut self);

    /// The driver's clock, in milliseconds since 1970; told before every other call.
    fn tick(&mut self, now: LogTime);

    /// Seconds without input after which the driver calls [`Engine::timed_out`].
    fn idle_limit_s(&self) -> u32;

    /// The client was silent too long: say goodbye as the protocol wants.
    fn timed_out(&mut self);

    /// The frontend is going down: say goodbye as the protocol wants.
    fn shut_down(&mut self);

    /// What to do now.
    fn next_step(&mut self) -> Step;
}

/// What an engine wants done.
#[derive(Debug)]
pub enum Step {
    /// Write this to the client.
    Send(Bytes),
    /// Find this out, then call [`Engine::reply`].
    Ask(Question),
    /// Nothing to do until input, a reply or news arrive.
    Wait,
    /// There is more to do, but others on this thread have their turn first.
    Yield,
    /// Flush, then do the TLS handshake and call [`Engine::tls_started`].
    StartTls,
    /// Flush and close the connection.
    Close,
}

/// What an engine can ask for. Every account it names came from a reply.
#[derive(Debug)]
pub enum Question {
    /// Is this the password?
    Authenticate(Credentials),
    /// Who gets mail for this address? -> [`Reply::Recipient`]
    Recipient(Address),
    /// -> [`Reply::Answer`]. The account is the one the query names.
    Query(Query),
    /// -> [`Reply::Outcome`]. Chunks in `inline` travel beside the command.
    Command(Box<Command>, Vec<StoredChunk>),
    /// The same, and what this query finds right after the command -> [`Reply::OutcomeAnd`].
    CommandAnd(Box<Command>, Vec<StoredChunk>, Box<Query>),
    /// Independent commands, done side by side -> [`Reply::Outcomes`] in the same order.
    Commands(Vec<(Command, Vec<StoredChunk>)>),
    /// Would each of these take a message of so many octets now? -> [`Reply::Looks`] in the same order.
    /// With a chunk: who has that has the message already.
    WouldTake(Vec<(AccountId, u64)>, Option<Digest>),
    /// A body begins that is meant for these accounts -> [`Reply::Done`].
    BeginBody(Vec<AccountId>),
    /// The same of a message that is to replace this one of the account's -> [`Reply::Done`].
    BeginReplacement(AccountId, Replaced),
    /// Its next raw octets -> [`Reply::Done`] as soon as more can be taken.
    Body(Bytes),
    /// It is complete -> [`Reply::Draft`].
    EndBody,
    /// It will not be completed -> [`Reply::Done`].
    DropBody,
    /// The raw octets of a chunk, whole -> [`Reply::Chunk`].
    Chunk(AccountId, ChunkRef),
    /// Tell of changes of this mailbox from now on (and no other) -> [`Reply::Done`]. If the account
    /// was listened to before, from then on.
    Watch(OfMailbox),
    /// Note changes of this account from now on, for a `Watch` to come -> [`Reply::Done`].
    Listen(AccountId),
    /// Tell of nothing any more -> [`Reply::Done`].
    Unwatch,
    /// POP3: the maildrop is this session's, or still is -> [`Reply::Done`] or [`Reply::InUse`]. The
    /// driver keeps the lock alive until the connection ends or `UnlockMaildrop`. When it is lost, any
    /// other question gets `InUse`.
    LockMaildrop(AccountId),
    /// POP3: no longer -> [`Reply::Done`].
    UnlockMaildrop,
}

/// A login name and a password. `Debug` shows neither.
pub struct Credentials {
    /// As the client wrote it.
    pub login: String,
    /// As the client wrote it.
    pub password: Vec<u8>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

/// What came of a question.
#[derive(Debug)]
pub enum Reply {
    /// Nothing to tell.
    Done,
    /// It cannot be answered now.
    Trouble(Trouble),
    /// Authenticate: it is.
    Authenticated(Login),
    /// Authenticate: wrong name or password (never told which).
    Denied,
    /// Authenticate: right, but the account is suspended or lacks this service.
    Disabled,
    /// Authenticate: right, but the account has as many sessions as it may.
    TooMany,
    /// Recipient: none if nobody has the address, several if it is a group's; nobody twice.
    Recipient(Vec<AccountId>),
    /// Query.
    Answer(Answer),
    /// Command.
    Outcome(Outcome),
    /// CommandAnd; without an answer the query has to be asked by itself.
    OutcomeAnd(Outcome, Option<Answer>),
    /// Commands.
    Outcomes(Vec<Result<Outcome, Trouble>>),
    /// WouldTake.
    Looks(Vec<Look>),
    /// EndBody.
    Draft(Box<Draft>),
    /// Chunk.
    Chunk(Bytes),
    /// LockMaildrop: another session has it. Any question: it has it now.
    InUse,
}

/// Whether an account would take a message.
#[derive(Clone, Debug)]
pub enum Look {
    /// It would.
    Takes,
    /// It has it: an earlier try brought it.
    Has,
    /// A delivery would be refused for this.
    Refuses(Refusal),
    /// That could not be found out.
    Unknown(Trouble),
}

/// Who logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// Whose session this is now.
    pub account: AccountId,
    /// Login and primary address.
    pub name: Address,
}

/// Why a question has no answer now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// No majority within the deadline, or the frontend cannot reach the cluster: nothing was done.
    Unavailable,
    /// It may or may not have been done, and that could not be found out in time.
    Unknown,
    /// The store refuses growth: disks are full.
    Full,
    /// Octets are damaged and no good copy could be had in time.
    Damaged,
    /// The message is larger than the store takes.
    TooLarge,
    /// Too much at once; later it will do.
    Overloaded,
}
