//! THREAD: messages already found, as conversations (RFC 5256 3, 4).

mod references;

use std::collections::BTreeMap;

use mime::SortKeys;

use crate::answer::{Answer, ThreadNode};
use crate::ids::Uid;
use crate::message::Messages;
use crate::outcome::Refusal;
use crate::query::sort::{sent_unix_s, sort_keys};
use crate::query::{Thread, ThreadBy};
use crate::rows::Source;

/// Limit: nodes in one page, about 1 MiB of it.
pub const THREADED_MAX: usize = 150_000;

/// What threading needs of a message.
struct Message {
    uid: Uid,
    sent_unix_s: i64,
    keys: SortKeys,
}

pub(super) fn answer(rows: &dyn Source, query: &Thread) -> Result<Answer, Refusal> {
    let row = super::mailbox(rows, query.of)?;
    let messages = Messages::of(rows, query.of, &row);
    let mut found = Vec::new();
    for range in query.uids.ranges() {
        messages.visit(rows, *range, &mut |uid, raw| {
            let state = raw.read();
            let keys = sort_keys(rows, query.of.account, &state);
            found.push(Message { uid, sent_unix_s: sent_unix_s(&state, &keys), keys });
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
        let subject = mime::fold(&message.keys.subject_base);
        let at = *by_subject.entry(subject).or_insert(threads.len());
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
