//! SORT: messages already found, in another order (RFC 5256 3, RFC 5957).

use mime::SortKeys;
use minicbor::Decode;

use crate::answer::Answer;
use crate::ids::Uid;
use crate::message::Messages;
use crate::outcome::Refusal;
use crate::query::prefetch::Prefetch;
use crate::query::{Sort, SortBy, SortField, vanished};
use crate::row;
use crate::rows::Source;
use crate::state::State;

/// Limit: UIDs in one page, about 1 MiB of it.
pub const SORTED_MAX: usize = 200_000;

/// Limit: octets of what SORT and THREAD hold of messages for one query, which is of all at once. A million
/// ordinary ones fit: they take 250 MB with six keys of twenty octets, and as threads 400 MB with subjects of
/// forty octets and ten references each.
pub(super) const GATHERED_BYTES_MAX: usize = 400 * 1024 * 1024;

/// Comparisons from one pause to the next: well below a millisecond.
pub(super) const COMPARED_AT_ONCE: usize = 4096;

/// How many of them are left.
pub(super) struct Room(pub(super) usize);

impl Room {
    /// Refused where not so many are left.
    pub(super) fn take(&mut self, n_bytes: usize) -> Result<(), Refusal> {
        let left = self.0.checked_sub(n_bytes);
        self.0 = left.ok_or_else(|| Refusal::Limit("messages put in order at once".into()))?;
        Ok(())
    }
}

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
    Text(Box<str>),
}

impl Value {
    fn of_text(text: &str) -> Self {
        Self::Text(mime::collation_key(text).into_boxed_str())
    }

    fn n_bytes(&self) -> usize {
        let n_text = match self {
            Self::Number(_) => 0,
            Self::Text(text) => text.len(),
        };
        size_of::<Self>() + n_text
    }
}

/// A message and its value of each criterion.
type Keyed = (Vec<Value>, Uid);

/// The messages to sort.
struct Gathered {
    messages: Vec<Keyed>,
    room: Room,
}

impl Gathered {
    fn push(&mut self, values: Vec<Value>, uid: Uid) -> Result<(), Refusal> {
        let n_bytes: usize = values.iter().map(Value::n_bytes).sum();
        self.room.take(size_of::<Keyed>() + n_bytes)?;
        self.messages.push((values, uid));
        Ok(())
    }
}

pub(super) fn answer(rows: &dyn Source, query: &Sort) -> Result<Answer, Refusal> {
    let row = super::mailbox(rows, query.of)?;
    let messages = Messages::of(rows, query.of, &row);
    // Why here too: each message has a value of each criterion.
    let order = super::deciding(&query.order);
    let needs_metadata = order.iter().any(|by| is_in_metadata(by.field));
    let mut prefetch = Prefetch::new(rows, query.of.account);
    let mut gathered = Gathered { messages: Vec::new(), room: Room(GATHERED_BYTES_MAX) };
    let mut gather = |uid: Uid, state: &State| {
        let keys = needs_metadata.then(|| sort_keys(&mut prefetch, state));
        let keys = keys.unwrap_or_default();
        let values = order.iter().map(|by| value(by.field, state, &keys));
        gathered.push(values.collect(), uid)
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
    let mut sorted = gathered.messages;
    sort(&mut sorted, &order, &|| rows.pause());
    let from = query.from as usize;
    let page: Vec<Uid> = sorted.iter().skip(from).take(SORTED_MAX).map(|(_, uid)| *uid).collect();
    let end = from + page.len();
    let next = (end < sorted.len()).then_some(end as u32);
    let as_of = next.map(|_| query.as_of.unwrap_or(row.highest_modseq));
    Ok(Answer::Sorted(page, next, as_of))
}

/// Why pauses: a million messages take seconds.
fn sort(messages: &mut [Keyed], order: &[SortBy], pause: &dyn Fn()) {
    let mut n_compared: usize = 0;
    messages.sort_by(|a, b| {
        n_compared += 1;
        if n_compared.is_multiple_of(COMPARED_AT_ONCE) {
            pause();
        }
        compare(order, a, b)
    });
}

/// Equal messages stay in their order in the mailbox (RFC 5256 3).
fn compare(order: &[SortBy], a: &Keyed, b: &Keyed) -> std::cmp::Ordering {
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
    let text = Value::of_text;
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn who_sorts_pauses() {
        const N_MESSAGES: u32 = 10_000;
        let message = |n: u32| {
            let values = vec![Value::Number(i64::from(n.reverse_bits()))];
            (values, Uid::new(n + 1).expect("a UID"))
        };
        let mut messages: Vec<Keyed> = (0..N_MESSAGES).map(message).collect();
        let order = [SortBy { field: SortField::Arrival, reverse: false }];
        let n_pauses = Cell::new(0);
        sort(&mut messages, &order, &|| n_pauses.set(n_pauses.get() + 1));
        assert!(messages.is_sorted_by(|a, b| a.0 <= b.0));
        // In any order of so many are at least five comparisons for each.
        assert!(n_pauses.get() >= 5 * N_MESSAGES as usize / COMPARED_AT_ONCE, "{n_pauses:?}");
    }

    #[test]
    fn a_million_ordinary_messages_are_sorted_and_long_keys_are_refused() {
        // Of a thousandth of each.
        let gather = |n_messages: usize, n_bytes: usize| {
            let room = Room(GATHERED_BYTES_MAX / 1000);
            let mut gathered = Gathered { messages: Vec::new(), room };
            let text = "x".repeat(n_bytes);
            let values = || (0..6).map(|_| Value::of_text(&text)).collect();
            (0..n_messages).try_for_each(|_| gathered.push(values(), Uid::FIRST))
        };
        assert_eq!(gather(1000, 20), Ok(()));
        assert!(matches!(gather(1000, 128), Err(Refusal::Limit(_))));
        assert!(matches!(gather(10_000, 20), Err(Refusal::Limit(_))));
    }
}
