//! SEARCH: a page at a time, cheap keys first, bodies last and bounded.

mod content;
mod texts;

use crate::Bodies;
use crate::answer::Answer;
use crate::brief::Kind;
use crate::ids::{ModSeq, Uid};
use crate::message::Messages;
use crate::outcome::Refusal;
use crate::query::briefs::Make;
use crate::query::{Compare, Search, SearchKey};
use crate::rows::Source;
use crate::state::State;
use crate::uid_set::UidSet;
use content::{Candidate, Needle, Reader, Sought};
use texts::InEnvelope;

/// Limit: messages one page looks at by their state alone.
const STATES_MAX: usize = 131_072;
/// Limit: messages of which one page reads metadata.
const METADATA_MAX: usize = 32_768;
/// Limit: octets of bodies one page reads, give or take a message.
const BODY_BYTES_MAX: u64 = 16 << 20;

const MS_PER_DAY: u64 = 86_400_000;
const S_PER_DAY: i64 = 86_400;

/// The briefs that searches read.
pub(super) const BRIEFS: (Kind, Make) = (Kind::Texts, texts::make_brief);

pub(super) fn answer(
    rows: &dyn Source,
    bodies: &dyn Bodies,
    query: &Search,
) -> Result<Answer, Refusal> {
    query.key.check()?;
    let row = super::mailbox(rows, query.of)?;
    let messages = Messages::of(rows, query.of, &row);
    let mut sought = Sought::default();
    let plan = Plan::of(&query.key, &mut sought);
    let mut reader = Reader::new(rows, bodies, query.of.account);
    let mut found = UidSet::new();
    let mut highest: Option<ModSeq> = None;
    let mut next = None;
    let (mut n_states, mut n_metadata, mut body_bytes) = (0, 0, 0);
    for range in query.among.ranges() {
        let went_on = messages.visit(rows, *range, &mut |uid, raw| {
            let is_full = n_states == STATES_MAX
                || n_metadata >= METADATA_MAX
                || body_bytes >= BODY_BYTES_MAX;
            if is_full {
                next = Some(uid);
                return false;
            }
            n_states += 1;
            let state = raw.read();
            let mut candidate = Candidate::new(&mut reader, &sought, &state);
            if plan.matches(uid, &state, &mut candidate) {
                found.push(uid);
                highest = highest.max(Some(state.modseq()));
            }
            n_metadata += usize::from(candidate.has_read_metadata());
            body_bytes += candidate.n_bytes_read();
            true
        });
        if !went_on {
            break;
        }
    }
    Ok(Answer::Found(found, highest, next))
}

/// A search key made ready: texts folded once, the cheapest of several keys first.
enum Plan<'k> {
    /// Of the state alone, or of nothing.
    State(&'k SearchKey),
    And(Vec<Plan<'k>>),
    Or(Box<(Plan<'k>, Plan<'k>)>),
    Not(Box<Plan<'k>>),
    /// A field, and which it is of those sought.
    Header(&'k str, usize, Needle),
    /// The same as it is written, whatever the envelope has of it.
    Field(usize, Needle),
    /// Which it is of the texts sought.
    Body(usize),
    Text(usize),
}

impl<'k> Plan<'k> {
    fn of(key: &'k SearchKey, sought: &mut Sought) -> Self {
        match key {
            SearchKey::And(keys) => {
                let mut plans: Vec<_> = keys.iter().map(|key| Plan::of(key, sought)).collect();
                plans.sort_by_key(Plan::cost);
                Plan::And(plans)
            }
            SearchKey::Or(a, b) => {
                let (a, b) = (Plan::of(a, sought), Plan::of(b, sought));
                Plan::Or(Box::new(if a.cost() <= b.cost() { (a, b) } else { (b, a) }))
            }
            SearchKey::Not(key) => Plan::Not(Box::new(Plan::of(key, sought))),
            SearchKey::Field(name, text) if !is_in_any_form(name, text) => {
                Plan::Field(sought.field(name), Needle::new(text))
            }
            SearchKey::Field(name, text) | SearchKey::Header(name, text) => {
                Plan::Header(name, sought.field(name), Needle::new(text))
            }
            SearchKey::Body(text) => Plan::Body(sought.in_body(text)),
            SearchKey::Text(text) => Plan::Text(sought.in_message(text)),
            _ => Plan::State(key),
        }
    }

    fn cost(&self) -> u8 {
        match self {
            Plan::State(_) => 0,
            Plan::Header(name, ..) => 2 + u8::from(InEnvelope::of(name).is_none()),
            Plan::Field(..) => 3,
            Plan::Body(_) => 4,
            Plan::Text(_) => 5,
            Plan::Not(plan) => plan.cost(),
            Plan::Or(plans) => plans.0.cost().max(plans.1.cost()),
            Plan::And(plans) => plans.iter().map(Plan::cost).max().unwrap_or(0),
        }
    }

    fn matches(&self, uid: Uid, state: &State, candidate: &mut Candidate<'_, '_>) -> bool {
        match self {
            Plan::State(key) => state_matches(key, uid, state),
            Plan::And(plans) => plans.iter().all(|plan| plan.matches(uid, state, candidate)),
            Plan::Or(plans) => {
                plans.0.matches(uid, state, candidate) || plans.1.matches(uid, state, candidate)
            }
            Plan::Not(plan) => !plan.matches(uid, state, candidate),
            Plan::Header(name, at, needle) => candidate.header_contains(name, *at, needle),
            Plan::Field(at, needle) => candidate.field_contains(*at, needle),
            Plan::Body(at) => candidate.body_contains(*at),
            Plan::Text(at) => candidate.text_contains(*at),
        }
    }
}

/// Whether a text is in a field if it is in what the envelope has of it: lists of addresses are written in
/// more than one way, but words and addresses are the same in each.
///
/// Why not read the field always: clients look for words that way, in all messages. What it costs: a word of
/// a comment beside an address that has a name is not found.
fn is_in_any_form(name: &str, text: &str) -> bool {
    let is_list = matches!(InEnvelope::of(name), Some(InEnvelope::List(_)));
    let is_syntax = |c: char| c.is_ascii_punctuation() && !"@.-_+='&/!".contains(c);
    !is_list || !text.contains(is_syntax) && !text.contains("  ")
}

fn state_matches(key: &SearchKey, uid: Uid, state: &State) -> bool {
    match key {
        SearchKey::Uid(uids) => uids.contains(uid),
        SearchKey::Flag(flags) => state.flags.system.contains(*flags),
        SearchKey::Keyword(keyword) => state.flags.keywords.contains(keyword),
        SearchKey::InternalDate(compare, day) => stands(*compare, internal_day(state), *day),
        // RFC 9051 6.4.4: the Date field alone counts. Only SORT and THREAD take another date for it.
        SearchKey::SentDate(compare, day) => {
            sent_day(state).is_some_and(|sent| stands(*compare, sent, *day))
        }
        SearchKey::Size(compare, size) => stands(*compare, state.size, *size),
        SearchKey::ModSeq(modseq) => state.modseq >= *modseq,
        SearchKey::EmailId(email) => state.email == *email,
        SearchKey::ThreadId(thread) => state.thread == *thread,
        SearchKey::Arrived(compare, unix_s) => {
            stands(*compare, state.internal_date.unix_s, *unix_s)
        }
        SearchKey::SaveDate(compare, day) => {
            stands(*compare, (state.save_date.0 / MS_PER_DAY).cast_signed(), *day)
        }
        // ALL, and keys that have a plan of their own.
        _ => true,
    }
}

fn stands<T: Ord>(compare: Compare, value: T, given: T) -> bool {
    match compare {
        Compare::Less => value < given,
        Compare::Equal => value == given,
        Compare::AtLeast => value >= given,
        Compare::Greater => value > given,
    }
}

fn internal_day(state: &State) -> i64 {
    day(state.internal_date.unix_s, i64::from(state.internal_date.zone_minutes))
}

/// `None` without a usable Date field.
fn sent_day(state: &State) -> Option<i64> {
    state.sent.map(|sent| day(sent.unix_s, i64::from(sent.zone_minutes)))
}

fn day(unix_s: i64, zone_minutes: i64) -> i64 {
    unix_s.saturating_add(zone_minutes * 60).div_euclid(S_PER_DAY)
}
