//! A real store in memory, and the loop that lets a session talk to it.
#![allow(dead_code, reason = "each test binary uses its part")]

mod summary;
pub mod zip;

use std::collections::BTreeMap;

use bytes::Bytes;
use imap::{Config, Session};
use mailbox::command::{
    Append, AppendMessage, ChangeAccount, CreateAccount, OfMailbox, Quota, SpecialUse,
};
use mailbox::dialogue::{Engine, Login, Question, Reply, Step, Trouble};
use mailbox::*;

pub const ACCOUNT: AccountId = AccountId([7; 16]);
/// 2026-01-01 00:00:00 UTC.
pub const START_MS: u64 = 1_767_225_600_000;
const SESSION: SessionId = SessionId([1; 16]);
const TERM: u64 = 1;

/// One replica of a shard with one account, `ann@example.test` with password `secret`.
#[derive(Default)]
pub struct Store {
    pub rows: BTreeMap<Vec<u8>, Vec<u8>>,
    pub digest: RowDigest,
    pub chunks: BTreeMap<Digest, (Bytes, String)>,
    pub now_ms: u64,
    pub changes: Vec<Change>,
    /// Raw octets of one chunk of messages to come.
    pub chunk_bytes: usize,
    /// What the next question that is no chunk runs into.
    pub trouble: Option<Trouble>,
    /// What the next chunk runs into.
    pub chunk_trouble: Option<Trouble>,
    /// As a leader's memory has it.
    pub first_told: FirstTold,
    body: Vec<u8>,
    n_messages: usize,
    sequence: u64,
    names: BTreeMap<MailboxId, MailboxName>,
}

impl Bodies for Store {
    fn chunk(&self, chunk: &ChunkRef) -> Option<Bytes> {
        self.chunks.get(&chunk.digest).map(|(bytes, _)| bytes.clone())
    }
}

impl Store {
    pub fn new() -> Self {
        let mut store = Self { now_ms: START_MS, chunk_bytes: 512, ..Self::default() };
        store.apply(Command::OpenSession(SESSION), &[]);
        let name = |text| MailboxName::parse(text, '/').expect("a name");
        let create = CreateAccount {
            account: ACCOUNT,
            name: Address::parse("ann@example.test").expect("an address").0,
            password_hash: "$x$".into(),
            quota: Quota::default(),
            subscribe: None,
            mailboxes: vec![
                (name("Drafts"), Some(SpecialUse::Drafts)),
                (name("Trash"), Some(SpecialUse::Trash)),
            ],
        };
        assert_eq!(store.apply(Command::CreateAccount(create), &[]), Outcome::Done);
        store.changes.clear();
        store
    }

    pub fn apply(&mut self, command: Command, inline: &[ChunkRef]) -> Outcome {
        let is_first = matches!(command, Command::OpenSession(_));
        self.sequence += 1;
        let time = LogTime(self.now_ms);
        let request = Request {
            session: (!is_first).then_some(SESSION),
            sequence: self.sequence,
            lowest_unanswered: self.sequence,
            expires: LogTime(self.now_ms + 60_000),
            command,
        };
        let mut rows = Rows::new(&self.rows, self.digest);
        let applied = apply(&mut rows, &Entry { time, request }, inline);
        let (changes, digest) = rows.into_changes();
        for (key, value) in changes {
            match value {
                Some(value) => self.rows.insert(key, value),
                None => self.rows.remove(&key),
            };
        }
        self.digest = digest;
        self.changes.extend(applied.changes);
        applied.outcome
    }

    pub fn ask(&self, query: &Query) -> Answer {
        answer(&self.rows, self, query)
    }

    /// The same as a leader answers it.
    fn ask_and_settle(&mut self, query: &Query) -> Answer {
        let mut answer = self.ask(query);
        if FirstTold::concerns(query, &answer) {
            self.first_told.settle(TERM, query, &mut answer);
        }
        answer
    }

    /// The message as a store cuts it.
    fn message(&mut self, raw: &[u8]) -> (NewMessage, Vec<StoredChunk>) {
        self.n_messages += 1;
        let pieces = raw.chunks(self.chunk_bytes.max(1));
        let inline: Vec<_> =
            pieces.map(|piece| StoredChunk::raw(Bytes::copy_from_slice(piece))).collect();
        let chunks: Vec<_> = inline.iter().map(|chunk| chunk.chunk).collect();
        let message = NewMessage {
            digest: Digest::of_chunks(&chunks),
            chunks,
            size: raw.len() as u64,
            metadata: (&mime::scan(raw)).into(),
            upload: None,
            metadata_chunks: Vec::new(),
        };
        for (i, chunk) in inline.iter().enumerate() {
            let label = format!("{}.{i}", self.n_messages);
            self.chunks.insert(chunk.chunk.digest, (chunk.bytes.clone(), label));
        }
        (message, inline)
    }

    pub fn of(&self, name: &str) -> OfMailbox {
        let name = MailboxName::parse(name, '/').expect("a name");
        let named = command::NamedMailbox { account: ACCOUNT, name };
        match self.ask(&Query::Mailbox(named)) {
            Answer::Mailbox(info) => info.of,
            other => panic!("{other:?}"),
        }
    }

    /// Puts messages into a mailbox, in one command.
    pub fn append(&mut self, to: &str, raws: &[Vec<u8>], flags: &Flags) -> Outcome {
        let mailbox = self.of(to).mailbox;
        let (mut messages, mut refs) = (Vec::new(), Vec::new());
        for raw in raws {
            let (message, inline) = self.message(raw);
            refs.extend(inline.iter().map(|chunk| chunk.chunk));
            messages.push(AppendMessage { message, flags: flags.clone(), internal_date: None });
        }
        self.apply(
            Command::Append(Append {
                account: ACCOUNT,
                mailbox,
                messages,
                replaces: None,
                name: None,
            }),
            &refs,
        )
    }

    pub fn set_quota(&mut self, storage_bytes: Option<u64>, n_messages: Option<u64>) {
        let quota = Quota { storage_bytes, n_messages };
        let change = command::AccountChange::Quota(quota);
        let change = ChangeAccount { account: ACCOUNT, change };
        assert_eq!(self.apply(Command::ChangeAccount(change), &[]), Outcome::Done);
    }

    fn login(credentials: &dialogue::Credentials) -> Reply {
        let name = Address::parse("ann@example.test").expect("an address").0;
        match (credentials.login.as_str(), credentials.password.as_slice()) {
            ("ann@example.test", b"secret") => {
                Reply::Authenticated(Login { account: ACCOUNT, name })
            }
            ("suspended@example.test", b"secret") => Reply::Disabled,
            _ => Reply::Denied,
        }
    }

    /// What a frontend and its cluster would reply.
    pub fn reply(&mut self, question: Question) -> Reply {
        let is_chunk = matches!(question, Question::Chunk(..));
        let trouble = if is_chunk { self.chunk_trouble.take() } else { self.trouble.take() };
        if let Some(trouble) = trouble {
            return Reply::Trouble(trouble);
        }
        match question {
            Question::Authenticate(credentials) => Self::login(&credentials),
            Question::Query(query) => {
                let answer = self.ask_and_settle(&query);
                self.learn_names(&answer);
                Reply::Answer(answer)
            }
            Question::Command(command, inline) => {
                let refs: Vec<_> = inline.iter().map(|chunk| chunk.chunk).collect();
                let claim = match *command {
                    Command::ClaimRecent(of, below) => Some((of, below)),
                    _ => None,
                };
                let mut outcome = self.apply(*command, &refs);
                if let Some(claim) = claim {
                    self.first_told.settle_claim(TERM, claim, &mut outcome);
                }
                Reply::Outcome(outcome)
            }
            Question::CommandAnd(command, inline, then) => {
                let refs: Vec<_> = inline.iter().map(|chunk| chunk.chunk).collect();
                let outcome = self.apply(*command, &refs);
                Reply::OutcomeAnd(outcome, Some(self.ask_and_settle(&then)))
            }
            Question::BeginBody(_) | Question::BeginReplacement(..) => {
                self.body.clear();
                Reply::Done
            }
            Question::Body(octets) => {
                self.body.extend_from_slice(&octets);
                Reply::Done
            }
            Question::EndBody => {
                let raw = std::mem::take(&mut self.body);
                let (message, inline) = self.message(&raw);
                let metadata = message.metadata.read().expect("just made").into();
                Reply::Draft(Box::new(chunk::Draft { message, metadata, inline }))
            }
            Question::DropBody | Question::Listen(_) | Question::Watch(_) | Question::Unwatch => {
                Reply::Done
            }
            Question::Chunk(_, chunk) => Reply::Chunk(self.chunk(&chunk).expect("it was stored")),
            other => panic!("IMAP never asks {other:?}"),
        }
    }

    fn learn_names(&mut self, answer: &Answer) {
        match answer {
            Answer::Mailbox(info) | Answer::Opened(info, ..) => {
                self.names.insert(info.of.mailbox, info.name.clone());
            }
            Answer::Mailboxes(infos, _) => {
                self.names.extend(infos.iter().map(|info| (info.of.mailbox, info.name.clone())));
            }
            _ => {}
        }
    }

    /// A question in a few words.
    pub fn summary(&self, question: &Question) -> String {
        summary::of(self, question)
    }

    fn name_of(&self, mailbox: MailboxId) -> String {
        match self.names.get(&mailbox) {
            Some(name) => name.join('/'),
            None => format!("M{}", mailbox.0),
        }
    }
}

/// What stands in a transcript, `\xNN` for an octet that cannot.
pub fn unescaped(text: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        if byte == b'\\' && behind.first() == Some(&b'x') {
            let digits = std::str::from_utf8(&behind[1..3]).expect("two digits");
            octets.push(u8::from_str_radix(digits, 16).expect("two digits"));
            rest = &behind[3..];
        } else {
            octets.push(byte);
        }
    }
    octets
}

pub fn config() -> Config {
    Config {
        hostname: "mail.example".into(),
        tls_available: true,
        tls_active: false,
        plain_logins_allowed: true,
        message_bytes_max: 100_000,
        separator: '/',
        nonce: [9; 16],
    }
}

/// What a session did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Sent(Bytes),
    Asked(String),
    StartTls,
    Closed,
}

/// A session with its store.
pub struct Client {
    pub session: Session,
    pub is_closed: bool,
}

impl Client {
    pub fn new(config: Config) -> Self {
        Self { session: Session::new(config), is_closed: false }
    }

    /// Until the session waits: what it did. News are handed on while it waits, as a driver does.
    pub fn run(&mut self, store: &mut Store, told: &mut dyn FnMut(Event)) {
        for _ in 0..10_000_000 {
            if self.is_closed {
                return;
            }
            self.session.tick(LogTime(store.now_ms));
            match self.session.next_step() {
                Step::Send(bytes) => told(Event::Sent(bytes)),
                Step::Ask(question) => {
                    told(Event::Asked(store.summary(&question)));
                    match self.session.next_step() {
                        Step::Wait => {}
                        // Much that was said before is sent meanwhile.
                        Step::Send(bytes) => told(Event::Sent(bytes)),
                        _ => panic!("one Ask at a time"),
                    }
                    let reply = store.reply(question);
                    self.session.reply(reply);
                }
                Step::Wait if store.changes.is_empty() => return,
                Step::Wait => {
                    for change in std::mem::take(&mut store.changes) {
                        self.session.notify(change);
                    }
                }
                Step::Yield => {}
                Step::StartTls => {
                    told(Event::StartTls);
                    self.session.tls_started();
                }
                Step::Close => {
                    told(Event::Closed);
                    self.is_closed = true;
                }
            }
        }
        panic!("the session goes round in circles");
    }

    /// Sends octets and gives all that comes back.
    pub fn say(&mut self, store: &mut Store, octets: &[u8]) -> Vec<u8> {
        let mut sent = Vec::new();
        self.session.receive(octets);
        self.run(store, &mut |event| {
            if let Event::Sent(bytes) = event {
                sent.extend_from_slice(&bytes);
            }
        });
        sent
    }
}
