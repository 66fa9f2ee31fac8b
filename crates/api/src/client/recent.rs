//! What was read lately and never changes: bodies, and what is known of single messages. A client reads
//! a message in pieces, and several sessions of an account read the same ones.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mailbox::chunk::{Codec, Digest};
use mailbox::command::OfMailbox;
use mailbox::query::Messages;
use mailbox::{AccountId, ChunkRef, MailboxId, StoredChunk, Uid, UidValidity};

use super::chunk::raw_octets;

/// Limit: octets kept for all sessions. Some thousand usual messages, as they are stored; a fifth of what
/// 10,000 idle connections may take.
const BYTES_MAX: usize = 32 * 1024 * 1024;
/// How long what nobody reads again is kept at most, once something else is read.
const KEPT_MAX: Duration = Duration::from_secs(600);
/// Limit: mailboxes whose UIDVALIDITY is known. Beyond it all are forgotten, and learned anew when they are
/// opened.
const MAILBOXES_MAX: usize = 16_384;
/// What an entry takes besides its octets.
const ENTRY_BYTES: usize = 256;

/// One for all sessions.
#[derive(Default)]
pub(super) struct Recent {
    kept: Mutex<Aging>,
    valid: Mutex<HashMap<(AccountId, MailboxId), UidValidity>>,
}

/// Names what a question about one message was answered with.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Message {
    account: AccountId,
    mailbox: MailboxId,
    /// Why: after a forced recovery a UID may be another message's, and this is another one too.
    uid_validity: UidValidity,
    uid: Uid,
    metadata: bool,
    chunks: bool,
    expunged: bool,
    only_envelope: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Chunk(Digest),
    Message(Message),
}

#[derive(Clone)]
enum Value {
    Chunk(StoredChunk),
    /// Encoded.
    Answer(Bytes),
}

impl Recent {
    /// Keeps bodies that came beside an answer.
    pub(super) fn put(&self, chunks: Vec<StoredChunk>) {
        let mut kept = self.kept();
        for chunk in chunks {
            // Why a copy: what came is a slice of everything that came with it.
            let bytes = Bytes::copy_from_slice(&chunk.bytes);
            let size = bytes.len();
            let key = Key::Chunk(chunk.chunk.digest);
            kept.put(key, Value::Chunk(StoredChunk { bytes, ..chunk }), size);
        }
    }

    /// The chunk, uncompressed, if it is here and its octets are what its name says.
    pub(super) fn chunk(&self, chunk: &ChunkRef) -> Option<StoredChunk> {
        let key = Key::Chunk(chunk.digest);
        let Some(Value::Chunk(found)) = self.kept().find(&key) else { return None };
        match raw_octets(&found).filter(|_| found.chunk == *chunk) {
            Some(bytes) => Some(StoredChunk { codec: Codec::Raw, bytes, ..found }),
            None => {
                self.kept().forget(&key);
                None
            }
        }
    }

    /// This is the UIDVALIDITY of a mailbox.
    pub(super) fn opened(&self, of: OfMailbox, uid_validity: UidValidity) {
        let mut valid = self.valid.lock().unwrap_or_else(PoisonError::into_inner);
        if valid.len() >= MAILBOXES_MAX {
            valid.clear();
        }
        valid.insert((of.account, of.mailbox), uid_validity);
    }

    /// Names the answer to a question about what never changes, if it is about one message of a mailbox
    /// that was opened. To be found before the question is asked.
    pub(super) fn message(&self, asked: &Messages) -> Option<Message> {
        let [(uid, last)] = *asked.uids.ranges() else { return None };
        if uid != last || asked.changed_since.is_some() {
            return None;
        }
        let (account, mailbox) = (asked.of.account, asked.of.mailbox);
        let valid = self.valid.lock().unwrap_or_else(PoisonError::into_inner);
        let uid_validity = *valid.get(&(account, mailbox))?;
        let Messages { metadata, chunks, expunged, only_envelope, .. } = *asked;
        Some(Message {
            account,
            mailbox,
            uid_validity,
            uid,
            metadata,
            chunks,
            expunged,
            only_envelope,
        })
    }

    /// The encoded answer.
    pub(super) fn answer(&self, message: &Message) -> Option<Bytes> {
        match self.kept().find(&Key::Message(*message))? {
            Value::Answer(answer) => Some(answer),
            Value::Chunk(_) => None,
        }
    }

    /// Keeps it.
    pub(super) fn answered(&self, message: Message, answer: &[u8]) {
        let answer = Bytes::copy_from_slice(answer);
        let size = answer.len();
        self.kept().put(Key::Message(message), Value::Answer(answer), size);
    }

    fn kept(&self) -> MutexGuard<'_, Aging> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Two generations: what is found in the old one is young again, and what is not goes with it.
struct Aging {
    young: HashMap<Key, (Value, usize)>,
    old: HashMap<Key, (Value, usize)>,
    n_young_bytes: usize,
    since: Instant,
}

impl Default for Aging {
    fn default() -> Self {
        let (young, old) = (HashMap::new(), HashMap::new());
        Self { young, old, n_young_bytes: 0, since: Instant::now() }
    }
}

impl Aging {
    fn put(&mut self, key: Key, value: Value, n_bytes: usize) {
        let size = n_bytes + ENTRY_BYTES;
        let is_full = self.n_young_bytes + size > BYTES_MAX / 2;
        if is_full || self.since.elapsed() > KEPT_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
            self.n_young_bytes = 0;
            self.since = Instant::now();
        }
        self.old.remove(&key);
        self.n_young_bytes += size;
        if let Some((_, replaced)) = self.young.insert(key, (value, size)) {
            self.n_young_bytes -= replaced;
        }
    }

    fn find(&mut self, key: &Key) -> Option<Value> {
        if let Some((value, _)) = self.young.get(key) {
            return Some(value.clone());
        }
        let (value, size) = self.old.remove(key)?;
        self.put(*key, value.clone(), size - ENTRY_BYTES);
        Some(value)
    }

    fn forget(&mut self, key: &Key) {
        self.old.remove(key);
        if let Some((_, size)) = self.young.remove(key) {
            self.n_young_bytes -= size;
        }
    }
}

#[cfg(test)]
mod tests {
    use mailbox::UidSet;

    use super::*;

    const OF: OfMailbox = OfMailbox { account: AccountId([1; 16]), mailbox: MailboxId(1) };

    fn uid(uid: u32) -> Uid {
        Uid::new(uid).unwrap()
    }

    fn validity(value: u32) -> UidValidity {
        UidValidity(value.try_into().unwrap())
    }

    fn about(first: u32, last: u32) -> Messages {
        Messages {
            of: OF,
            uids: UidSet::range(uid(first), uid(last)),
            changed_since: None,
            metadata: false,
            chunks: true,
            expunged: true,
            only_envelope: false,
            recent_to: None,
        }
    }

    #[test]
    fn a_chunk_is_given_out_only_if_it_is_right() {
        let recent = Recent::default();
        let chunk = StoredChunk::raw(Bytes::from_static(b"octets"));
        recent.put(vec![chunk.clone()]);
        assert_eq!(recent.chunk(&chunk.chunk), Some(chunk.clone()));
        assert_eq!(recent.chunk(&chunk.chunk), Some(chunk.clone()));
        let damaged = StoredChunk { bytes: Bytes::from_static(b"octetz"), ..chunk.clone() };
        recent.put(vec![damaged]);
        assert_eq!(recent.chunk(&chunk.chunk), None);
        assert!(recent.kept().young.is_empty());
    }

    #[test]
    fn what_nobody_reads_goes_when_there_is_too_much() {
        let recent = Recent::default();
        let chunk = |n: u16| {
            let octets: Vec<u8> = n.to_be_bytes().repeat(50_000);
            StoredChunk::raw(Bytes::from(octets))
        };
        let n_chunks = (2 * BYTES_MAX / 100_000) as u16;
        for n in 0..n_chunks {
            recent.put(vec![chunk(n)]);
            assert!(recent.chunk(&chunk(0).chunk).is_some(), "it is read again and again");
        }
        assert_eq!(recent.chunk(&chunk(1).chunk), None);
        assert!(recent.chunk(&chunk(n_chunks - 1).chunk).is_some());
        let kept = recent.kept();
        let n_bytes = |kept: &HashMap<_, (Value, usize)>| kept.values().map(|kept| kept.1).sum();
        let (young, old): (usize, usize) = (n_bytes(&kept.young), n_bytes(&kept.old));
        assert_eq!(young, kept.n_young_bytes);
        assert!(young + old <= BYTES_MAX);
    }

    #[test]
    fn an_answer_is_for_one_message_under_one_uidvalidity() {
        let recent = Recent::default();
        assert!(recent.message(&about(1, 1)).is_none(), "nobody knows what the UID means");
        recent.opened(OF, validity(7));
        assert!(recent.message(&about(1, 2)).is_none());
        assert!(recent.message(&Messages { changed_since: Some(1), ..about(1, 1) }).is_none());
        let message = recent.message(&about(1, 1)).unwrap();
        recent.answered(message, b"answer");
        assert_eq!(recent.answer(&message).as_deref(), Some(&b"answer"[..]));
        let with_metadata = Messages { metadata: true, ..about(1, 1) };
        for other in [about(2, 2), with_metadata] {
            assert_eq!(recent.answer(&recent.message(&other).unwrap()), None);
        }
        recent.opened(OF, validity(8));
        assert_eq!(recent.answer(&recent.message(&about(1, 1)).unwrap()), None);
    }
}
