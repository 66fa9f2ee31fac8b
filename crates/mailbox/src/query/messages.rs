//! Messages: what FETCH needs but octets of bodies.

use std::collections::BTreeSet;

use mime::PackedEnvelope;

use crate::answer::{Answer, Body, MessageRecord, Passed};
use crate::brief::Kind;
use crate::command::OfMailbox;
use crate::ids::{AccountId, EmailId, Uid};
use crate::message;
use crate::outcome::Refusal;
use crate::query::briefs::Briefs;
use crate::query::prefetch::Prefetch;
use crate::query::{
    ENVELOPE_PAGE_MAX, KEYWORDS_PAGE_BYTES_MAX, METADATA_PAGE_BYTES_MAX, METADATA_PAGE_MAX,
    Messages, STATE_PAGE_MAX,
};
use crate::row::{self, ContentRow, GoneRow};
use crate::rows::Source;
use crate::state::State;
use crate::table::{self, Fields, Table};
use crate::uid_set::UidSet;

/// Limit: states one page looks at, those that did not change included.
const EXAMINED_MAX: usize = 65_536;

/// One page: messages that are there or gone, and where to go on.
type Page = (Vec<(Uid, State, bool)>, Option<Uid>);

pub(super) fn answer(rows: &dyn Source, query: &Messages) -> Result<Answer, Refusal> {
    let row = super::mailbox(rows, query.of)?;
    let messages = message::Messages::of(rows, query.of, &row);
    let n_max = match (query.chunks, query.metadata, query.only_envelope) {
        (false, false, _) => STATE_PAGE_MAX,
        (false, true, true) => ENVELOPE_PAGE_MAX,
        _ => METADATA_PAGE_MAX,
    } as usize;
    let changed = query
        .changed_since
        .and_then(|since| changed_since(rows, query.of, (&messages, &query.uids), (since, n_max)));
    let uids = changed.as_ref().unwrap_or(&query.uids);
    let mut page = present(rows, &messages, (uids, query.changed_since), n_max);
    if query.expunged {
        // Why not behind the page: it is looked for range by range, of which there may be a million.
        let gone = expunged(rows, query, page.1, n_max);
        page = merge(page, gone, n_max);
    }
    let (found, mut next) = page;
    let mut records: Vec<MessageRecord> = Vec::with_capacity(found.len());
    let mut metadata = KeptMetadata::new(rows, query);
    let mut n_bytes = 0;
    for (uid, state, expunged) in found {
        // Why: whoever asks holds the whole metadata of a page, and of one message it is megabytes.
        let is_large = records.last().is_some_and(|last| !last.metadata_chunks.is_empty());
        if is_large || n_bytes >= METADATA_PAGE_BYTES_MAX {
            next = Some(uid);
            break;
        }
        let kept = query.metadata.then(|| metadata.read(state.email));
        n_bytes += kept.as_ref().map_or(0, Kept::n_bytes);
        let recent = uid >= row.first_recent;
        let record = record(rows, query, (uid, state, expunged), kept);
        records.push(MessageRecord { recent, ..record });
    }
    Ok(Answer::Messages(records, next))
}

/// Which of `among` changed later, read from the index; `None` when so many did that going through
/// all states in order is the shorter way.
fn changed_since(
    rows: &dyn Source,
    of: OfMailbox,
    (messages, among): (&message::Messages, &UidSet),
    (since, n_max): (u64, usize),
) -> Option<UidSet> {
    let from = table::by_modseq(of.account, Table::Modseq, of.mailbox, since.saturating_add(1), 0);
    let end = table::end_of(&table::of_mailbox(of.account, Table::Modseq, of.mailbox));
    let mut uids = BTreeSet::new();
    let mut n_seen = 0;
    rows.scan(&from, &end, &mut |key, _| {
        let uid = Fields(key).uid();
        if among.contains(uid) {
            uids.insert(uid);
        }
        n_seen += 1;
        n_seen <= EXAMINED_MAX.min(8 * n_max)
    });
    if n_seen > EXAMINED_MAX.min(8 * n_max) {
        return None;
    }
    // What lies in an extent has no index of its own; the state tells.
    let mut ranges: Vec<(Uid, Uid)> = uids.into_iter().map(|uid| (uid, uid)).collect();
    for (first, last) in messages.extents_since(since) {
        let within = among.starting_at(first);
        let within = within.ranges().iter().take_while(|range| range.0 <= last);
        ranges.extend(within.map(|range| (range.0, range.1.min(last))));
    }
    Some(UidSet::from_ranges(ranges))
}

fn present(
    rows: &dyn Source,
    messages: &message::Messages,
    (uids, since): (&UidSet, Option<u64>),
    n_max: usize,
) -> Page {
    let mut found = Vec::new();
    let mut next = None;
    let (mut n_seen, mut n_bytes) = (0, 0);
    for range in uids.ranges() {
        let went_on = messages.visit(rows, *range, &mut |uid, raw| {
            if found.len() == n_max || n_seen == EXAMINED_MAX || n_bytes >= KEYWORDS_PAGE_BYTES_MAX
            {
                next = Some(uid);
                return false;
            }
            n_seen += 1;
            if since.is_none_or(|since| raw.modseq() > since) {
                let state = raw.read();
                n_bytes += state.flags.n_keyword_bytes();
                found.push((uid, state, false));
            }
            true
        });
        if !went_on {
            break;
        }
    }
    (found, next)
}

fn expunged(rows: &dyn Source, query: &Messages, end: Option<Uid>, n_max: usize) -> Page {
    let OfMailbox { account, mailbox } = query.of;
    let mut found = Vec::new();
    let mut next = None;
    let (mut n_seen, mut n_bytes) = (0, 0);
    for (first, last) in query.uids.ranges() {
        if end.is_some_and(|end| *first >= end) {
            break;
        }
        let from = table::by_uid(account, Table::Gone, mailbox, *first);
        let mut to = table::by_uid(account, Table::Gone, mailbox, *last);
        to.push(0);
        rows.scan(&from, &to, &mut |key, value| {
            if found.len() == n_max || n_seen == EXAMINED_MAX || n_bytes >= KEYWORDS_PAGE_BYTES_MAX
            {
                next = Some(Fields(key).uid());
                return false;
            }
            n_seen += 1;
            let gone: GoneRow = row::read(value);
            if query.changed_since.is_none_or(|since| gone.modseq.value() > since) {
                let modseq = gone.modseq.value();
                n_bytes += gone.state.flags.n_keyword_bytes();
                found.push((Fields(key).uid(), State { modseq, ..gone.state }, true));
            }
            true
        });
        if next.is_some() {
            break;
        }
    }
    (found, next)
}

/// One page of two, up to where both are known.
fn merge(present: Page, gone: Page, n_max: usize) -> Page {
    let mut next = [present.1, gone.1].into_iter().flatten().min();
    let mut found = present.0;
    found.extend(gone.0);
    found.sort_by_key(|(uid, _, _)| *uid);
    found.retain(|(uid, _, _)| next.is_none_or(|next| *uid < next));
    if found.len() > n_max {
        next = Some(found[n_max].0);
        found.truncate(n_max);
    }
    (found, next)
}

/// As much of a message's metadata as is told.
enum Kept {
    All(Passed),
    Envelope(PackedEnvelope),
}

/// Reads that of one message after the other.
struct KeptMetadata<'s> {
    prefetch: Prefetch<'s>,
    /// If these are enough.
    envelopes: Option<Briefs<'s>>,
}

impl<'s> KeptMetadata<'s> {
    fn new(rows: &'s dyn Source, query: &Messages) -> Self {
        let account = query.of.account;
        let of_envelopes = || Briefs::new(rows, account, (Kind::Envelopes, make_brief));
        let envelopes = query.only_envelope.then(of_envelopes);
        Self { prefetch: Prefetch::new(rows, account), envelopes }
    }

    fn read(&mut self, email: EmailId) -> Kept {
        if let Some(envelope) = self.envelopes.as_mut().and_then(|briefs| briefs.find(email)) {
            return Kept::Envelope(PackedEnvelope::of_octets(envelope));
        }
        let only_envelope = self.envelopes.is_some();
        self.prefetch.read(email, |row| Kept::of(row, only_envelope))
    }
}

/// None of an excerpt: what it is of has to be read to know the envelope.
fn make_brief(metadata: &[u8], brief: &mut Vec<u8>) {
    if let Kept::Envelope(envelope) = Kept::of(metadata, true) {
        brief.extend_from_slice(envelope.octets());
    }
}

impl Kept {
    fn n_bytes(&self) -> usize {
        match self {
            Kept::All(metadata) => metadata.n_bytes(),
            Kept::Envelope(envelope) => envelope.octets().len(),
        }
    }

    fn of(row: &[u8], only_envelope: bool) -> Self {
        // What an excerpt is of has to be read to know the envelope.
        if only_envelope && !Passed::may_be_excerpt(row) {
            let envelope = PackedEnvelope::of_metadata(row);
            return Self::Envelope(envelope.expect("rows are verified when read"));
        }
        Self::All(Passed::row(row.to_vec()))
    }
}

fn record(
    rows: &dyn Source,
    query: &Messages,
    (uid, state, expunged): (Uid, State, bool),
    kept: Option<Kept>,
) -> MessageRecord {
    let account = query.of.account;
    let (metadata, envelope) = match kept {
        Some(Kept::All(metadata)) => (Some(metadata), None),
        Some(Kept::Envelope(envelope)) => (None, Some(envelope)),
        None => (None, None),
    };
    let body = query.chunks.then(|| {
        let content = content(rows, account, state.email);
        Body { chunks: content.split().0.to_vec(), digest: content.digest }
    });
    let is_excerpt = metadata.as_ref().is_some_and(Passed::is_excerpt);
    let metadata_chunks = match is_excerpt {
        true => content(rows, account, state.email).split().1.to_vec(),
        false => Vec::new(),
    };
    MessageRecord {
        uid,
        modseq: state.modseq(),
        flags: state.flags,
        internal_date: state.internal_date,
        save_date: state.save_date,
        size: state.size,
        email_id: state.email,
        thread_id: state.thread,
        uidl: state.uidl,
        expunged,
        metadata,
        body,
        metadata_chunks,
        envelope,
        recent: false,
    }
}

/// The metadata of a content some message has.
pub(super) fn metadata(
    rows: &dyn Source,
    account: AccountId,
    email: EmailId,
) -> Box<mime::Metadata> {
    let row = row::load(rows, &table::metadata(account, email));
    row.expect("a message's content outlives it")
}

/// The chunks of a content some message has.
pub(super) fn content(rows: &dyn Source, account: AccountId, email: EmailId) -> ContentRow {
    row::load(rows, &table::content(account, email)).expect("a message's content outlives it")
}
