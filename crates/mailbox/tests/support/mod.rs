//! A shard in memory for tests, and short ways to say commands.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::BTreeMap;

use bytes::Bytes;
use mailbox::command::{
    Append, AppendMessage, Copy, CreateAccount, CreateMailbox, Deliver, Expunge, Housekeep, Move,
    NamedMailbox, OfMailbox, Quota, RenameMailbox, Store,
};
use mailbox::query::{Messages, Query};
use mailbox::*;

pub const ACCOUNT: AccountId = AccountId([7; 16]);
pub const SESSION: SessionId = SessionId([1; 16]);
pub const START_MS: u64 = 1_700_000_000_000;

/// One replica of a shard, and one client of it.
#[derive(Default, Clone)]
pub struct Shard {
    pub rows: BTreeMap<Vec<u8>, Vec<u8>>,
    pub digest: RowDigest,
    pub chunks: BTreeMap<Digest, Bytes>,
    pub now_ms: u64,
    pub sequence: u64,
    pub log: Vec<(Entry, Vec<ChunkRef>)>,
    /// For large mailboxes: the test says when.
    pub is_checked_seldom: bool,
}

impl Bodies for Shard {
    fn chunk(&self, chunk: &ChunkRef) -> Option<Bytes> {
        self.chunks.get(&chunk.digest).cloned()
    }
}

impl Shard {
    /// With an open session, nothing else.
    pub fn new() -> Self {
        let mut shard = Self { now_ms: START_MS, ..Self::default() };
        shard.alone(Command::OpenSession(SESSION));
        shard
    }

    /// With one account.
    pub fn with_account() -> Self {
        let mut shard = Self::new();
        assert_eq!(shard.run(create_account(ACCOUNT, Quota::default())), Outcome::Done);
        shard
    }

    /// Applies an entry as it is.
    pub fn entry(&mut self, entry: &Entry, inline: &[ChunkRef]) -> Applied {
        let mut rows = Rows::new(&self.rows, self.digest);
        rows.keep_before();
        let applied = apply(&mut rows, entry, inline);
        let n_writes = rows.n_writes();
        let is_sliced = matches!(
            entry.request.command,
            Command::Store(_) | Command::Copy(_) | Command::Move(_) | Command::Expunge(_)
        );
        let n_writes_max = if is_sliced { command::SLICE_ROWS_MAX } else { command::ROWS_MAX };
        assert!(n_writes <= n_writes_max, "{n_writes} rows in one command: {entry:?}");
        let before = rows.take_before();
        let (changes, digest) = rows.into_changes();
        assert!(changes.keys().eq(before.keys()), "other rows than were changed by {entry:?}");
        for (key, value) in changes {
            assert_eq!(before[&key], self.rows.get(&key).cloned(), "before {entry:?}");
            match value {
                Some(value) => self.rows.insert(key, value),
                None => self.rows.remove(&key),
            };
        }
        self.digest = digest;
        if !self.is_checked_seldom {
            let verdict = invariant::check(&self.rows, digest);
            assert_eq!(verdict, Ok(()), "after {entry:?}");
            self.log.push((entry.clone(), inline.to_vec()));
        }
        applied
    }

    /// Checks the invariants now.
    pub fn check(&self) {
        assert_eq!(invariant::check(&self.rows, self.digest), Ok(()));
    }

    /// The next request of the session.
    pub fn request(&mut self, command: Command) -> Request {
        self.sequence += 1;
        Request {
            session: Some(SESSION),
            sequence: self.sequence,
            lowest_unanswered: self.sequence,
            expires: LogTime(self.now_ms + 60_000),
            command,
        }
    }

    pub fn apply(&mut self, command: Command, inline: &[ChunkRef]) -> Applied {
        let request = self.request(command);
        let time = LogTime(self.now_ms);
        self.entry(&Entry { time, request }, inline)
    }

    pub fn run(&mut self, command: Command) -> Outcome {
        self.apply(command, &[]).outcome
    }

    /// A command without a session.
    pub fn alone(&mut self, command: Command) -> Outcome {
        let request = Request {
            session: None,
            sequence: 0,
            lowest_unanswered: 0,
            expires: LogTime(self.now_ms + 60_000),
            command,
        };
        let time = LogTime(self.now_ms);
        self.entry(&Entry { time, request }, &[]).outcome
    }

    pub fn ask(&self, query: &Query) -> Answer {
        answer(&self.rows, self, query)
    }

    pub fn housekeep(&mut self, housekeep: Housekeep) -> bool {
        match self.alone(Command::Housekeep(housekeep)) {
            Outcome::Housekept { more } => more,
            other => panic!("{other:?}"),
        }
    }

    /// Housekeeping of everything older than now, until nothing is left to do.
    pub fn clean(&mut self) -> usize {
        self.now_ms += 1;
        let now = LogTime(self.now_ms);
        let all = Housekeep { sessions_before: LogTime(0), uploads_before: now, purge_before: now };
        let mut n_steps = 1;
        while self.housekeep(all.clone()) {
            n_steps += 1;
            assert!(n_steps < 10_000, "housekeeping ends");
        }
        n_steps
    }

    pub fn mailbox(&self, text: &str) -> MailboxInfo {
        match self.ask(&Query::Mailbox(named(text))) {
            Answer::Mailbox(info) => *info,
            other => panic!("{text}: {other:?}"),
        }
    }

    pub fn of(&self, text: &str) -> OfMailbox {
        self.mailbox(text).of
    }

    pub fn create(&mut self, text: &str) -> MailboxId {
        match self.run(create(text)) {
            Outcome::MailboxCreated(id) => id,
            other => panic!("{text}: {other:?}"),
        }
    }

    /// A message with this text.
    pub fn message(&mut self, raw: &[u8]) -> (NewMessage, Vec<ChunkRef>) {
        let refs = self.cut(raw);
        let chunk::Stowed { packed, whole, .. } = chunk::stow(mime::scan(raw));
        let metadata_chunks = self.cut(&whole);
        let inline = [&refs[..], &metadata_chunks].concat();
        let message = NewMessage {
            digest: Digest::of_chunks(&refs),
            chunks: refs,
            size: raw.len() as u64,
            metadata: packed,
            upload: None,
            metadata_chunks,
        };
        (message, inline)
    }

    fn cut(&mut self, octets: &[u8]) -> Vec<ChunkRef> {
        let pieces = octets.chunks(64 * 1024);
        let chunks: Vec<_> =
            pieces.map(|piece| StoredChunk::raw(Bytes::copy_from_slice(piece))).collect();
        let refs = chunks.iter().map(|chunk| chunk.chunk).collect();
        self.chunks.extend(chunks.into_iter().map(|chunk| (chunk.chunk.digest, chunk.bytes)));
        refs
    }

    pub fn deliver(&mut self, raw: &[u8]) -> Outcome {
        let (message, inline) = self.message(raw);
        let deliver = Deliver { account: ACCOUNT, detail: None, message, internal_date: None };
        self.apply(Command::Deliver(deliver), &inline).outcome
    }

    pub fn append(&mut self, to: &str, raws: &[Vec<u8>], flags: &Flags) -> Outcome {
        let mailbox = self.of(to).mailbox;
        let (mut messages, mut inline) = (Vec::new(), Vec::new());
        for raw in raws {
            let (message, chunks) = self.message(raw);
            inline.extend(chunks);
            messages.push(AppendMessage { message, flags: flags.clone(), internal_date: None });
        }
        let append = Append { account: ACCOUNT, mailbox, messages, replaces: None, name: None };
        self.apply(Command::Append(append), &inline).outcome
    }

    /// So many small messages.
    pub fn fill(&mut self, to: &str, n_messages: usize) {
        let raws: Vec<Vec<u8>> = (0..n_messages).map(|i| mail(&format!("fill {i}"))).collect();
        for some in raws.chunks(64) {
            let outcome = self.append(to, some, &Flags::default());
            assert!(matches!(outcome, Outcome::Appended(_)), "{outcome:?}");
        }
    }

    pub fn uids(&self, of: &str) -> UidSet {
        let query = query::Uids { of: self.of(of), from: Uid::FIRST };
        match self.ask(&Query::Uids(query)) {
            Answer::Uids(uids, None) => uids,
            other => panic!("{other:?}"),
        }
    }

    /// All pages.
    pub fn messages(&self, mut query: Messages) -> Vec<MessageRecord> {
        let mut all = Vec::new();
        loop {
            match self.ask(&Query::Messages(query.clone())) {
                Answer::Messages(records, next) => {
                    all.extend(records);
                    match next {
                        Some(next) => query.uids = query.uids.starting_at(next),
                        None => return all,
                    }
                }
                other => panic!("{other:?}"),
            }
        }
    }

    pub fn everything(&self, of: &str) -> Vec<MessageRecord> {
        self.messages(list(self.of(of)))
    }

    /// Runs a command again and again from where it stopped.
    pub fn slices(&mut self, mut command: Command) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        loop {
            let outcome = self.run(command.clone());
            let next = match &outcome {
                Outcome::Stored(stored) => stored.next,
                Outcome::Copied(copied) => copied.next,
                Outcome::Expunged(expunged) => expunged.next,
                _ => None,
            };
            let to = match &outcome {
                Outcome::Copied(copied) => copied.to,
                _ => None,
            };
            outcomes.push(outcome);
            let Some(next) = next else {
                return outcomes;
            };
            match &mut command {
                Command::Copy(Copy { uids, further, .. }) => {
                    *uids = uids.starting_at(next);
                    *further = true;
                }
                Command::Store(Store { uids, .. })
                | Command::Move(Move { uids, .. })
                | Command::Expunge(Expunge { uids, .. }) => *uids = uids.starting_at(next),
                Command::RenameMailbox(rename) => {
                    rename.further = true;
                    rename.into = to;
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

pub fn list(of: OfMailbox) -> Messages {
    let uids = UidSet::all();
    let (changed_since, metadata, chunks, expunged) = (None, false, false, false);
    let (only_envelope, recent_to) = (false, None);
    Messages { of, uids, changed_since, metadata, chunks, expunged, only_envelope, recent_to }
}

pub fn mail(subject: &str) -> Vec<u8> {
    format!("From: Ann <ann@example.test>\r\nSubject: {subject}\r\n\r\nBody of {subject}.\r\n")
        .into_bytes()
}

pub fn uid(uid: u32) -> Uid {
    Uid::new(uid).expect("a UID")
}

pub fn set(uids: &[u32]) -> UidSet {
    uids.iter().map(|number| uid(*number)).collect()
}

pub fn name(text: &str) -> MailboxName {
    MailboxName::parse(text, '/').expect("a name")
}

pub fn named(text: &str) -> NamedMailbox {
    NamedMailbox { account: ACCOUNT, name: name(text) }
}

pub fn address(text: &str) -> Address {
    Address::parse(text).expect("an address").0
}

pub fn system(flags: SystemFlags) -> Flags {
    Flags { system: flags, ..Flags::default() }
}

pub fn create_account(account: AccountId, quota: Quota) -> Command {
    Command::CreateAccount(CreateAccount {
        account,
        name: address("ann@example.test"),
        password_hash: "$x$".into(),
        quota,
        subscribe: None,
        mailboxes: vec![(name("Sent"), Some(command::SpecialUse::Sent))],
    })
}

pub fn create(text: &str) -> Command {
    Command::CreateMailbox(CreateMailbox { account: ACCOUNT, name: name(text), special_use: None })
}

pub fn delete(text: &str) -> Command {
    Command::DeleteMailbox(named(text))
}

pub fn rename(from: &str, to: &str) -> Command {
    let (account, from, to) = (ACCOUNT, name(from), name(to));
    Command::RenameMailbox(RenameMailbox { account, from, to, further: false, into: None })
}

pub fn store(of: OfMailbox, uids: UidSet, change: FlagChange) -> Command {
    let OfMailbox { account, mailbox } = of;
    Command::Store(Store { account, mailbox, uids, change, unchanged_since: None })
}

pub fn copy(from: OfMailbox, to: OfMailbox, uids: UidSet, staging: u8) -> Command {
    let staging = UploadId([staging; 16]);
    let (account, from, to) = (from.account, from.mailbox, to.mailbox);
    Command::Copy(Copy {
        account,
        from,
        to,
        uids,
        staging,
        to_name: None,
        whole: false,
        further: false,
    })
}

pub fn r#move(from: OfMailbox, to: OfMailbox, uids: UidSet) -> Command {
    Command::Move(Move {
        account: from.account,
        from: from.mailbox,
        to: to.mailbox,
        uids,
        to_name: None,
    })
}

pub fn expunge(of: OfMailbox, uids: UidSet, only_deleted: bool) -> Command {
    let OfMailbox { account, mailbox } = of;
    Command::Expunge(Expunge { account, mailbox, uids, only_deleted })
}
