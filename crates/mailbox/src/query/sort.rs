//! SORT: messages already found, in another order (RFC 5256 3, RFC 5957).

use mime::SortKeys;
use minicbor::Decode;

use crate::answer::Answer;
use crate::ids::Uid;
use crate::message::Messages;
use crate::outcome::Refusal;
use crate::query::prefetch::Prefetch;
use crate::query::{Sort, SortBy, SortField};
use crate::row;
use crate::rows::Source;
use crate::state::State;

/// Limit: UIDs in one page, about 1 MiB of it.
pub const SORTED_MAX: usize = 200_000;

/// The sort keys of a message's metadata; the rest of it is passed over unread.
#[derive(Decode)]
struct OnlySort {
    #[n(2)]
    sort: SortKeys,
}

/// What one criterion compares.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    Number(i64),
    Text(String),
}

pub(super) fn answer(rows: &dyn Source, query: &Sort) -> Result<Answer, Refusal> {
    let row = super::mailbox(rows, query.of)?;
    let messages = Messages::of(rows, query.of, &row);
    // Why here too: each message has a value of each criterion.
    let order = super::deciding(&query.order);
    let needs_metadata = order.iter().any(|by| is_in_metadata(by.field));
    let mut prefetch = Prefetch::new(rows, query.of.account);
    let mut sorted: Vec<(Vec<Value>, Uid)> = Vec::new();
    for range in query.uids.ranges() {
        messages.visit(rows, *range, &mut |uid, raw| {
            let state = raw.read();
            let keys = needs_metadata.then(|| sort_keys(&mut prefetch, &state));
            let keys = keys.unwrap_or_default();
            let values = order.iter().map(|by| value(by.field, &state, &keys));
            sorted.push((values.collect(), uid));
            true
        });
    }
    sorted.sort_by(|a, b| compare(&order, a, b));
    let from = query.from as usize;
    let page: Vec<Uid> = sorted.iter().skip(from).take(SORTED_MAX).map(|(_, uid)| *uid).collect();
    let end = from + page.len();
    let next = (end < sorted.len()).then_some(end as u32);
    Ok(Answer::Sorted(page, next))
}

/// Equal messages stay in their order in the mailbox (RFC 5256 3).
fn compare(order: &[SortBy], a: &(Vec<Value>, Uid), b: &(Vec<Value>, Uid)) -> std::cmp::Ordering {
    let mut by_value =
        order.iter().zip(a.0.iter().zip(&b.0)).map(|(by, (a, b))| match by.reverse {
            false => a.cmp(b),
            true => b.cmp(a),
        });
    by_value.find(|order| order.is_ne()).unwrap_or_else(|| a.1.cmp(&b.1))
}

fn is_in_metadata(field: SortField) -> bool {
    !matches!(field, SortField::Arrival | SortField::Date | SortField::Size)
}

/// The sort keys of a message that is there.
pub(super) fn sort_keys(prefetch: &mut Prefetch<'_>, state: &State) -> SortKeys {
    prefetch.read(state.email, |row| row::read::<OnlySort>(row).sort)
}

/// RFC 5256 2.2: without a usable Date field the internal date counts.
pub(super) fn sent_unix_s(state: &State) -> i64 {
    state.sent.unwrap_or(state.internal_date).unix_s
}

fn value(field: SortField, state: &State, keys: &SortKeys) -> Value {
    let text = |text: &str| Value::Text(mime::collation_key(text));
    match field {
        SortField::Arrival => Value::Number(state.internal_date.unix_s),
        SortField::Size => Value::Number(state.size.cast_signed()),
        SortField::Date => Value::Number(sent_unix_s(state)),
        SortField::Cc => text(&keys.cc_addr),
        SortField::From => text(&keys.from_addr),
        SortField::To => text(&keys.to_addr),
        SortField::Subject => text(&keys.subject_base),
        SortField::DisplayFrom => text(&keys.display_from),
        SortField::DisplayTo => text(&keys.display_to),
    }
}
