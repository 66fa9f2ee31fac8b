//! A shard in memory, for tests of what stands on the state machine: the real `apply` and `answer`
//! over a map, and the chunks beside it.

#![allow(dead_code)]

pub mod play;
pub mod transcript;

use std::collections::BTreeMap;

use bytes::Bytes;
use mailbox::chunk::CHUNK_BYTES_MAX;
use mailbox::command::{
    AccountChange, ChangeAccount, ClaimAddress, CreateAccount, Deliver, Place, Quota, SetGroup,
};
use mailbox::{
    AccountId, Address, Answer, Bodies, Change, ChunkRef, Command, Digest, Draft, Entry, LogTime,
    NewMessage, Outcome, Query, Request, RowDigest, Rows, SessionId, ShardId, StoredChunk,
};

/// The shard all accounts of a test are in.
pub const SHARD: ShardId = ShardId(1);

const SESSION: SessionId = SessionId([7; 16]);

/// Rows and chunks.
#[derive(Clone)]
pub struct Shard {
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    digest: RowDigest,
    chunks: BTreeMap<Digest, StoredChunk>,
    sequence: u64,
    n_accounts: u8,
    /// Log time in milliseconds.
    pub now: u64,
    /// What changed since somebody last looked.
    pub changes: Vec<Change>,
}

impl Default for Shard {
    fn default() -> Self {
        let mut shard = Self {
            rows: BTreeMap::new(),
            digest: RowDigest::default(),
            chunks: BTreeMap::new(),
            sequence: 0,
            n_accounts: 0,
            now: 1_795_466_067_000,
            changes: Vec::new(),
        };
        assert_eq!(shard.apply(None, Command::OpenSession(SESSION), &[]), Outcome::Done);
        shard
    }
}

impl Shard {
    /// Does a command of the shard's one session.
    pub fn command(&mut self, command: Command, inline: &[StoredChunk]) -> Outcome {
        self.apply(Some(SESSION), command, inline)
    }

    fn apply(
        &mut self,
        session: Option<SessionId>,
        command: Command,
        inline: &[StoredChunk],
    ) -> Outcome {
        self.sequence += 1;
        let request = Request {
            session,
            sequence: self.sequence,
            lowest_unanswered: self.sequence,
            expires: LogTime(u64::MAX),
            command,
        };
        let entry = Entry { time: LogTime(self.now), request };
        let refs: Vec<ChunkRef> = inline.iter().map(|stored| stored.chunk).collect();
        self.chunks.extend(inline.iter().map(|stored| (stored.chunk.digest, stored.clone())));
        let mut rows = Rows::new(&self.rows, self.digest);
        let applied = mailbox::apply(&mut rows, &entry, &refs);
        let (changes, digest) = rows.into_changes();
        self.digest = digest;
        for (key, value) in changes {
            match value {
                Some(value) => self.rows.insert(key, value),
                None => self.rows.remove(&key),
            };
        }
        self.changes.extend(applied.changes);
        applied.outcome
    }

    /// Answers from the rows as they are.
    /// Whether nothing is kept of messages that were begun and did not come.
    pub fn has_no_uploads(&self) -> bool {
        // The table of open uploads.
        !self.rows.keys().any(|key| key.first() == Some(&3))
    }

    pub fn query(&self, query: &Query) -> Answer {
        mailbox::answer(&self.rows, self, query)
    }

    /// A chunk as it is stored.
    pub fn stored_chunk(&self, chunk: &ChunkRef) -> Option<StoredChunk> {
        self.chunks.get(&chunk.digest).cloned()
    }

    /// Which account has this address.
    pub fn resolve(&self, address: &Address) -> Option<Place> {
        match self.query(&Query::Resolve(address.clone())) {
            Answer::Place(place) => place,
            Answer::Group(_) => None,
            other => panic!("Resolve was answered with {other:?}"),
        }
    }

    /// Who gets mail for it.
    pub fn recipients(&self, address: &Address) -> Vec<Place> {
        let share = |address: &Address| match self.query(&Query::Resolve(address.clone())) {
            Answer::Group(members) => members.iter().filter_map(|it| self.resolve(it)).collect(),
            _ => self.resolve(address).into_iter().collect(),
        };
        let places: Vec<Place> = share(address);
        if places.is_empty() { share(&address.catch_all()) } else { places }
    }

    /// Gives an address to several accounts.
    pub fn set_group(&mut self, address: &str, members: &[&str]) {
        let parse = |text: &str| Address::parse(text).expect("an address").0;
        let members = members.iter().map(|member| parse(member)).collect();
        let group = SetGroup { address: parse(address), members, expected: None };
        assert_eq!(self.command(Command::SetGroup(group), &[]), Outcome::Done);
    }

    /// Gives an account one more address.
    pub fn add_alias(&mut self, account: AccountId, alias: &str) {
        let address = Address::parse(alias).expect("an address").0;
        let place = Place { account, shard: SHARD, epoch: 1, alias: true };
        let claim = Command::ClaimAddress(ClaimAddress { address, place });
        assert_eq!(self.command(claim, &[]), Outcome::Done);
    }

    /// Creates an account and gives it its address.
    pub fn create_account(&mut self, name: &str, password_hash: &str) -> AccountId {
        self.n_accounts += 1;
        let account = AccountId([self.n_accounts; 16]);
        let name = Address::parse(name).expect("an address").0;
        let place = Place { account, shard: SHARD, epoch: 1, alias: false };
        let create = CreateAccount {
            account,
            name: name.clone(),
            password_hash: password_hash.to_owned(),
            quota: Quota::default(),
            subscribe: None,
            mailboxes: Vec::new(),
        };
        assert_eq!(self.command(Command::CreateAccount(create), &[]), Outcome::Done);
        let claim = ClaimAddress { address: name, place };
        assert_eq!(self.command(Command::ClaimAddress(claim), &[]), Outcome::Done);
        account
    }

    /// Changes a property of an account.
    pub fn change_account(&mut self, account: AccountId, change: AccountChange) {
        let change = Command::ChangeAccount(ChangeAccount { account, change });
        assert_eq!(self.command(change, &[]), Outcome::Done);
    }

    /// Puts a message into INBOX.
    pub fn deliver(&mut self, account: AccountId, raw: &[u8]) -> Outcome {
        let Draft { message, inline, .. } = draft(raw);
        let deliver = Deliver { account, detail: None, message, internal_date: None };
        self.command(Command::Deliver(deliver), &inline)
    }
}

impl Bodies for Shard {
    fn chunk(&self, chunk: &ChunkRef) -> Option<Bytes> {
        self.chunks.get(&chunk.digest).map(|stored| stored.bytes.clone())
    }
}

/// A message cut into raw chunks.
pub fn draft(raw: &[u8]) -> Draft {
    let inline: Vec<StoredChunk> = raw
        .chunks(CHUNK_BYTES_MAX)
        .map(|piece| StoredChunk::raw(Bytes::copy_from_slice(piece)))
        .collect();
    let chunks: Vec<ChunkRef> = inline.iter().map(|stored| stored.chunk).collect();
    let message = NewMessage {
        digest: Digest::of_chunks(&chunks),
        chunks,
        size: raw.len() as u64,
        metadata: (&mime::scan(raw)).into(),
        upload: None,
        metadata_chunks: Vec::new(),
    };
    let metadata = message.metadata.read().expect("just made");
    Draft { message, metadata: metadata.into(), inline }
}
