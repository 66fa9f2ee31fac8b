//! STORE, and lists of flags (RFC 9051 6.4.6, RFC 7162 3.1.3).

use mailbox::flags::{KEYWORDS_MAX, Keyword};
use mailbox::{FlagChange, Flags, SystemFlags};

use super::cursor::{Cursor, Fault, Parsed};
use crate::number_set::NumberSet;

/// STORE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Store {
    pub(crate) uid: bool,
    pub(crate) set: NumberSet,
    pub(crate) change: FlagChange,
    pub(crate) silent: bool,
    pub(crate) unchanged_since: Option<u64>,
}

pub(super) fn parse(cursor: &mut Cursor<'_>, uid: bool) -> Parsed<Store> {
    let set = cursor.number_set()?;
    cursor.space()?;
    let mut unchanged_since = None;
    if cursor.peek() == Some(b'(') {
        cursor.list(|cursor| match cursor.word("modifier expected")?.as_str() {
            "UNCHANGEDSINCE" => {
                cursor.space()?;
                unchanged_since = Some(cursor.number64()?);
                Ok(())
            }
            _ => Err(Fault::Bad("unknown modifier")),
        })?;
        cursor.space()?;
    }
    let item = cursor.word("FLAGS expected")?;
    let (item, silent) = match item.strip_suffix(".SILENT") {
        Some(item) => (item, true),
        None => (item.as_str(), false),
    };
    let change: fn(Flags) -> FlagChange = match item {
        "FLAGS" => FlagChange::Replace,
        "+FLAGS" => FlagChange::Add,
        "-FLAGS" => FlagChange::Remove,
        _ => return Err(Fault::Bad("FLAGS expected")),
    };
    cursor.space()?;
    let mut flags = Flags::default();
    let flags = if cursor.peek() == Some(b'(') {
        cursor.list(|cursor| fitting(cursor, &mut flags))?;
        checked(flags)?
    } else {
        fitting(cursor, &mut flags)?;
        while cursor.goes_on() {
            fitting(cursor, &mut flags)?;
        }
        checked(flags)?
    };
    Ok(Store { uid, set, change: change(flags), silent, unchanged_since })
}

/// Flags of a message to be. Keywords that are too long or too many are left out: the message must not stay
/// outside for a label.
pub(super) fn flags_of_new(cursor: &mut Cursor<'_>) -> Parsed<Flags> {
    let mut flags = Flags::default();
    cursor.list(|cursor| flag(cursor, &mut flags).map(drop))?;
    while flags.keywords.len() > KEYWORDS_MAX {
        flags.keywords.pop_last();
    }
    Ok(flags)
}

fn fitting(cursor: &mut Cursor<'_>, flags: &mut Flags) -> Parsed<()> {
    match flag(cursor, flags)? {
        true => Ok(()),
        false => Err(Fault::No("LIMIT", "the keyword is too long")),
    }
}

fn checked(flags: Flags) -> Parsed<Flags> {
    if flags.keywords.len() > KEYWORDS_MAX {
        return Err(Fault::No("LIMIT", "too many keywords"));
    }
    Ok(flags)
}

/// False if a keyword is too long.
fn flag(cursor: &mut Cursor<'_>, flags: &mut Flags) -> Parsed<bool> {
    if !cursor.eat(b'\\') {
        let keyword = Keyword::new(cursor.atom("flag expected")?);
        let fits = keyword.is_some();
        flags.keywords.extend(keyword);
        return Ok(fits);
    }
    let flag = match cursor.word("flag expected")?.as_str() {
        "SEEN" => SystemFlags::SEEN,
        "ANSWERED" => SystemFlags::ANSWERED,
        "FLAGGED" => SystemFlags::FLAGGED,
        "DELETED" => SystemFlags::DELETED,
        "DRAFT" => SystemFlags::DRAFT,
        // RFC 3501 2.3.2: a client cannot alter it. Clients that send back what they fetched mean
        // no harm.
        "RECENT" => return Ok(true),
        _ => return Err(Fault::Bad("unknown system flag")),
    };
    flags.system = SystemFlags(flags.system.0 | flag.0);
    Ok(true)
}
