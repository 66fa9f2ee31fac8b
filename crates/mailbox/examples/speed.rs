//! How long the state machine takes: `cargo run --release -p mailbox --example speed`.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;
use mailbox::command::{CreateAccount, Deliver, OfMailbox, Quota, Store};
use mailbox::query::{Messages, Query, Uids};
use mailbox::*;

const ACCOUNT: AccountId = AccountId([7; 16]);
const SESSION: SessionId = SessionId([1; 16]);
const N_MESSAGES: u64 = 1_000_000;
const MESSAGE: &[u8] = b"From: Ann <ann@example.test>\r\nTo: bob@example.test\r\n\
Message-ID: <1@example.test>\r\nSubject: hello\r\nDate: Tue, 14 Nov 2023 22:13:20 +0000\r\n\r\nHi.\r\n";

struct NoBodies;

impl Bodies for NoBodies {
    fn chunk(&self, _: &ChunkRef) -> Option<Bytes> {
        None
    }
}

struct Shard {
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    digest: RowDigest,
    sequence: u64,
}

impl Shard {
    fn run(&mut self, command: Command, inline: &[ChunkRef]) -> Outcome {
        self.sequence += 1;
        let session = (!matches!(command, Command::OpenSession(_))).then_some(SESSION);
        let request = Request {
            session,
            sequence: self.sequence,
            lowest_unanswered: self.sequence,
            expires: LogTime(u64::MAX),
            command,
        };
        let entry = Entry { time: LogTime(1_700_000_000_000 + self.sequence), request };
        let mut rows = Rows::new(&self.rows, self.digest);
        let outcome = apply(&mut rows, &entry, inline).outcome;
        let (changes, digest) = rows.into_changes();
        self.digest = digest;
        for (key, value) in changes {
            match value {
                Some(value) => self.rows.insert(key, value),
                None => self.rows.remove(&key),
            };
        }
        outcome
    }
}

fn main() {
    let mut shard = Shard { rows: BTreeMap::new(), digest: RowDigest::default(), sequence: 0 };
    shard.run(Command::OpenSession(SESSION), &[]);
    let (name, _) = Address::parse("ann@example.test").expect("an address");
    shard.run(
        Command::CreateAccount(CreateAccount {
            account: ACCOUNT,
            name,
            password_hash: String::new(),
            quota: Quota::default(),
            subscribe: None,
            mailboxes: Vec::new(),
        }),
        &[],
    );
    let stored = StoredChunk::raw(Bytes::from_static(MESSAGE));
    let inline = [stored.chunk];
    let message = NewMessage {
        chunks: inline.to_vec(),
        digest: Digest::of_chunks(&inline),
        size: MESSAGE.len() as u64,
        metadata: (&mime::scan(MESSAGE)).into(),
        upload: None,
        metadata_chunks: Vec::new(),
    };
    let deliver = Deliver { account: ACCOUNT, detail: None, message, internal_date: None };
    let deliver = Command::Deliver(deliver);
    let begin = Instant::now();
    let mut mailbox = MailboxId(1);
    for _ in 0..N_MESSAGES {
        if let Outcome::Appended(appended) = shard.run(deliver.clone(), &inline) {
            mailbox = appended.mailbox;
        }
    }
    println!("Deliver: {:?} each", begin.elapsed() / N_MESSAGES as u32);

    let of = OfMailbox { account: ACCOUNT, mailbox };
    let begin = Instant::now();
    let answered = answer(&shard.rows, &NoBodies, &Query::Uids(Uids { of, from: Uid::FIRST }));
    let Answer::Uids(uids, _) = answered else { panic!("refused") };
    println!("Uids of {}: {:?}", uids.n_uids(), begin.elapsed());

    let begin = Instant::now();
    let flags = Flags { system: SystemFlags::SEEN, ..Flags::default() };
    let change = FlagChange::Add(flags);
    let some = UidSet::range(Uid::FIRST, Uid::new(400).expect("a UID"));
    let store = Store { account: ACCOUNT, mailbox, uids: some, change, unchanged_since: None };
    shard.run(Command::Store(store), &[]);
    println!("Store of 400: {:?}", begin.elapsed());

    list(&shard, of);
}

/// All messages, and those that changed since, page by page.
fn list(shard: &Shard, of: OfMailbox) {
    for changed_since in [None, Some(N_MESSAGES + 1)] {
        let begin = Instant::now();
        let (mut n_records, mut n_pages) = (0, 0);
        let uids = UidSet::all();
        let (metadata, chunks, expunged, only_envelope) = (false, false, false, false);
        let recent_to = None;
        let mut query = Messages {
            of,
            uids,
            changed_since,
            metadata,
            chunks,
            expunged,
            only_envelope,
            recent_to,
        };
        loop {
            let asked = Query::Messages(query.clone());
            let Answer::Messages(records, next) = answer(&shard.rows, &NoBodies, &asked) else {
                panic!("refused");
            };
            n_records += records.len();
            n_pages += 1;
            match next {
                Some(next) => query.uids = query.uids.starting_at(next),
                None => break,
            }
        }
        let spent = begin.elapsed();
        println!("Messages since {changed_since:?}: {n_records} in {n_pages} pages, {spent:?}");
    }
}
