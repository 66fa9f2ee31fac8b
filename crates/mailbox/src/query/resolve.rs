//! Resolve and Groups: who has an address.

use crate::address::Address;
use crate::answer::{Answer, GroupRecord};
use crate::row;
use crate::rows::Source;
use crate::table;

/// Limit: groups in one page, as many as accounts,
pub const GROUPS_PAGE_MAX: usize = 512;
/// and the bytes of their rows before it ends: each has up to a hundred members.
const BYTES_PAGE_MAX: usize = 512 << 10;

pub(super) fn answer(rows: &dyn Source, address: &Address) -> Answer {
    let place = row::load(rows, &table::address(address));
    let group = || row::load::<GroupRecord>(rows, &table::group(address));
    match place {
        None => group().map_or(Answer::Place(None), |group| Answer::Group(group.members)),
        place => Answer::Place(place),
    }
}

pub(super) fn list(rows: &dyn Source, after: Option<&Address>) -> Answer {
    let from = after.map_or_else(table::groups, |after| [table::group(after), vec![0]].concat());
    let (mut groups, mut n_bytes, mut has_more) = (Vec::new(), 0, false);
    rows.scan(&from, &table::end_of(&table::groups()), &mut |_, value| {
        has_more = groups.len() == GROUPS_PAGE_MAX || n_bytes >= BYTES_PAGE_MAX;
        if !has_more {
            n_bytes += value.len();
            groups.push(row::read(value));
        }
        !has_more
    });
    Answer::Groups(groups, has_more)
}
