//! THREAD: messages already found, as conversations (RFC 5256 3, 4).

mod references;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher as _};

use bytes::{Buf, BufMut};
use minicbor::Decode;

use crate::answer::{Answer, ThreadNode};
use crate::brief::Kind;
use crate::codec;
use crate::ids::Uid;
use crate::message::Messages;
use crate::outcome::Refusal;
use crate::query::briefs::{Briefs, Make};
use crate::query::prefetch::Prefetch;
use crate::query::sort::{GATHERED_BYTES_MAX, Room, sent_unix_s};
use crate::query::{Thread, ThreadBy, vanished};
use crate::rows::Source;
use crate::state::State;

/// Limit: nodes in one page, about 1 MiB of it.
pub const THREADED_MAX: usize = 150_000;

/// The keys for threads of a message's metadata; the rest of it is passed over unread.
#[derive(Decode)]
struct OnlyKeys<'b> {
    #[b(2)]
    sort: ThreadKeys<'b>,
}

/// Some of [`mime::SortKeys`].
#[derive(Decode)]
struct ThreadKeys<'b> {
    #[b(2)]
    subject_base: &'b str,
    #[n(3)]
    has_re: bool,
    #[b(9)]
    message_id: Option<&'b str>,
    #[b(10)]
    references: Vec<&'b str>,
}

/// A message-id; two that hash alike count as one.
pub(super) type IdHash = u64;

/// What threading needs of a message.
struct Message {
    uid: Uid,
    sent_unix_s: i64,
    /// Folded.
    subject: String,
    has_re: bool,
    id: Option<IdHash>,
    references: Vec<IdHash>,
}

/// Bits of the first octet of a brief. Behind it stand the hash of the message's own id, if it has one;
/// how many references there are and their hashes; and the subject.
const HAS_RE: u8 = 1;
const HAS_ID: u8 = 2;

/// The briefs that threading reads.
pub(super) const BRIEFS: (Kind, Make) = (Kind::Relations, make_brief);

/// Makes a brief of encoded metadata.
fn make_brief(metadata: &[u8], brief: &mut Vec<u8>) {
    let keys: OnlyKeys<'_> = codec::decode(metadata).expect("rows are verified when read");
    let keys = keys.sort;
    let has_id = if keys.message_id.is_some() { HAS_ID } else { 0 };
    brief.put_u8(has_id | if keys.has_re { HAS_RE } else { 0 });
    keys.message_id.iter().for_each(|id| brief.put_u64(hash(id)));
    brief.put_u32(keys.references.len() as u32);
    keys.references.iter().for_each(|id| brief.put_u64(hash(id)));
    brief.extend_from_slice(mime::fold(keys.subject_base).as_bytes());
}

impl Message {
    /// `None` if the brief is none.
    fn of_brief(uid: Uid, sent_unix_s: i64, mut brief: &[u8]) -> Option<Self> {
        let bits = brief.try_get_u8().ok()?;
        let id = (bits & HAS_ID != 0).then(|| brief.try_get_u64()).transpose().ok()?;
        let n_references = brief.try_get_u32().ok()?;
        let n_there = (n_references as usize).min(brief.len() / size_of::<IdHash>());
        let mut references = Vec::with_capacity(n_there);
        for _ in 0..n_references {
            references.push(brief.try_get_u64().ok()?);
        }
        let subject = std::str::from_utf8(brief).ok()?.to_owned();
        Some(Self { uid, sent_unix_s, subject, has_re: bits & HAS_RE != 0, id, references })
    }

    /// Octets it takes: its subject twice, since threads of one subject are found by it.
    fn n_bytes(&self) -> usize {
        let n_references = self.references.len();
        size_of::<Self>() + 2 * self.subject.len() + n_references * size_of::<IdHash>()
    }
}

pub(super) fn hash(id: &str) -> IdHash {
    let mut hasher = DefaultHasher::new();
    hasher.write(id.as_bytes());
    hasher.finish()
}

pub(super) fn answer(rows: &dyn Source, query: &Thread) -> Result<Answer, Refusal> {
    let row = super::mailbox(rows, query.of)?;
    let messages = Messages::of(rows, query.of, &row);
    let mut briefs = Briefs::new(rows, query.of.account, BRIEFS);
    let mut prefetch = Prefetch::new(rows, query.of.account);
    let mut brief = Vec::new();
    let mut found = Vec::new();
    let mut room = Room(GATHERED_BYTES_MAX);
    let mut gather = |uid: Uid, state: &State| {
        let message = |brief: &[u8]| Message::of_brief(uid, sent_unix_s(state), brief);
        let message = match briefs.find(state.email) {
            Some(brief) => message(brief),
            None => {
                brief.clear();
                prefetch.read(state.email, |row| make_brief(row, &mut brief));
                message(&brief)
            }
        };
        let message = message.expect("briefs are made here");
        let fits = room.take(message.n_bytes());
        found.push(message);
        fits
    };
    for range in query.uids.ranges() {
        let mut fits = Ok(());
        messages.visit(rows, *range, &mut |uid, raw| {
            fits = gather(uid, &raw.read());
            fits.is_ok()
        });
        fits?;
    }
    vanished::visit_gone(rows, query.of, (&query.uids, query.as_of), &mut gather)?;
    // Why: where several messages have one id, it is the first one's.
    found.sort_unstable_by_key(|message| message.uid);
    let nodes = match query.by {
        ThreadBy::OrderedSubject => ordered_subject(found, &|| rows.pause()),
        ThreadBy::References => references::threads(found, room, &|| rows.pause())?,
    };
    let from = query.from as usize;
    let page: Vec<ThreadNode> = nodes.iter().skip(from).take(THREADED_MAX).copied().collect();
    let end = from + page.len();
    let next = (end < nodes.len()).then_some(end as u32);
    let as_of = next.map(|_| query.as_of.unwrap_or(row.highest_modseq));
    Ok(Answer::Threads(page, next, as_of))
}

/// RFC 5256 3: messages of one base subject; the first is the parent of the others.
fn ordered_subject(mut found: Vec<Message>, pause: &dyn Fn()) -> Vec<ThreadNode> {
    found.sort_by_key(|message| (message.sent_unix_s, message.uid));
    let mut threads: Vec<Vec<Uid>> = Vec::new();
    let mut by_subject: BTreeMap<String, usize> = BTreeMap::new();
    for message in found {
        pause();
        let at = *by_subject.entry(message.subject).or_insert(threads.len());
        if at == threads.len() {
            threads.push(Vec::new());
        }
        threads[at].push(message.uid);
    }
    let nodes = threads.iter().flat_map(|uids| {
        let depths = std::iter::once(0).chain(std::iter::repeat(1));
        uids.iter().zip(depths).map(|(uid, depth)| ThreadNode { depth, uid: Some(*uid) })
    });
    nodes.collect()
}
