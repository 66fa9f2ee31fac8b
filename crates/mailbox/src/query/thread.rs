//! THREAD: messages already found, as conversations (RFC 5256 3, 4).

mod references;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher as _};

use minicbor::Decode;

use crate::answer::{Answer, ThreadNode};
use crate::codec;
use crate::ids::Uid;
use crate::message::Messages;
use crate::outcome::Refusal;
use crate::query::prefetch::Prefetch;
use crate::query::sort::sent_unix_s;
use crate::query::{Thread, ThreadBy};
use crate::rows::Source;

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
type IdHash = u64;

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

impl Message {
    fn new(uid: Uid, sent_unix_s: i64, keys: &ThreadKeys<'_>) -> Self {
        Self {
            uid,
            sent_unix_s,
            subject: mime::fold(keys.subject_base),
            has_re: keys.has_re,
            id: keys.message_id.map(hash),
            references: keys.references.iter().copied().map(hash).collect(),
        }
    }
}

fn hash(id: &str) -> IdHash {
    let mut hasher = DefaultHasher::new();
    hasher.write(id.as_bytes());
    hasher.finish()
}

pub(super) fn answer(rows: &dyn Source, query: &Thread) -> Result<Answer, Refusal> {
    let row = super::mailbox(rows, query.of)?;
    let messages = Messages::of(rows, query.of, &row);
    let mut prefetch = Prefetch::new(rows, query.of.account);
    let mut found = Vec::new();
    for range in query.uids.ranges() {
        messages.visit(rows, *range, &mut |uid, raw| {
            let state = raw.read();
            found.push(prefetch.read(state.email, |row| {
                let keys: OnlyKeys<'_> = codec::decode(row).expect("rows are verified when read");
                Message::new(uid, sent_unix_s(&state), &keys.sort)
            }));
            true
        });
    }
    let nodes = match query.by {
        ThreadBy::OrderedSubject => ordered_subject(found),
        ThreadBy::References => references::threads(found),
    };
    let from = query.from as usize;
    let page: Vec<ThreadNode> = nodes.iter().skip(from).take(THREADED_MAX).copied().collect();
    let end = from + page.len();
    let next = (end < nodes.len()).then_some(end as u32);
    Ok(Answer::Threads(page, next))
}

/// RFC 5256 3: messages of one base subject; the first is the parent of the others.
fn ordered_subject(mut found: Vec<Message>) -> Vec<ThreadNode> {
    found.sort_by_key(|message| (message.sent_unix_s, message.uid));
    let mut threads: Vec<Vec<Uid>> = Vec::new();
    let mut by_subject: BTreeMap<String, usize> = BTreeMap::new();
    for message in found {
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
