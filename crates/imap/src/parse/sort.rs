//! SORT and THREAD (RFC 5256, RFC 5957).

use mailbox::query::{SortBy, SortField, ThreadBy, deciding};

use super::cursor::{Cursor, Fault, Parsed};
use super::search::{self, Key};

/// SORT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sort {
    pub(crate) uid: bool,
    /// Each field once.
    pub(crate) order: Vec<SortBy>,
    pub(crate) key: Key,
    /// Whether MODSEQ was among the keys.
    pub(crate) with_modseq: bool,
}

/// THREAD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Thread {
    pub(crate) uid: bool,
    pub(crate) by: ThreadBy,
    pub(crate) key: Key,
}

pub(super) fn parse(cursor: &mut Cursor<'_>, uid: bool) -> Parsed<Sort> {
    let order = deciding(&cursor.list(criterion)?);
    if order.is_empty() {
        return Err(Fault::Bad("sort criterion expected"));
    }
    cursor.space()?;
    search::charset(cursor)?;
    cursor.space()?;
    let (key, with_modseq) = search::keys(cursor)?;
    Ok(Sort { uid, order, key, with_modseq })
}

fn criterion(cursor: &mut Cursor<'_>) -> Parsed<SortBy> {
    let mut word = cursor.word("sort criterion expected")?;
    let reverse = word == "REVERSE";
    if reverse {
        cursor.space()?;
        word = cursor.word("sort criterion expected")?;
    }
    let field = match word.as_str() {
        "ARRIVAL" => SortField::Arrival,
        "CC" => SortField::Cc,
        "DATE" => SortField::Date,
        "DISPLAYFROM" => SortField::DisplayFrom,
        "DISPLAYTO" => SortField::DisplayTo,
        "FROM" => SortField::From,
        "SIZE" => SortField::Size,
        "SUBJECT" => SortField::Subject,
        "TO" => SortField::To,
        _ => return Err(Fault::Bad("unknown sort criterion")),
    };
    Ok(SortBy { field, reverse })
}

pub(super) fn parse_thread(cursor: &mut Cursor<'_>, uid: bool) -> Parsed<Thread> {
    let by = match cursor.word("threading algorithm expected")?.as_str() {
        "ORDEREDSUBJECT" => ThreadBy::OrderedSubject,
        "REFERENCES" => ThreadBy::References,
        _ => return Err(Fault::Bad("unknown threading algorithm")),
    };
    cursor.space()?;
    search::charset(cursor)?;
    cursor.space()?;
    let (key, _) = search::keys(cursor)?;
    Ok(Thread { uid, by, key })
}
