//! LIST with its extensions, and LSUB (RFC 9051 6.3.9, RFC 5258, 5819, 6154).

use super::cursor::{Cursor, Fault, Parsed};
use super::status::{self, StatusItem};
use crate::limits::{PATTERN_BYTES_MAX, PATTERNS_MAX};

/// LIST.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct List {
    pub(crate) reference: String,
    pub(crate) patterns: Vec<String>,
    /// Only subscribed names.
    pub(crate) select_subscribed: bool,
    /// Only mailboxes with a special use.
    pub(crate) select_special_use: bool,
    /// Also names above those selected.
    pub(crate) recursive_match: bool,
    pub(crate) return_subscribed: bool,
    pub(crate) return_status: Vec<StatusItem>,
    /// Whether any of this is more than RFC 3501 has.
    pub(crate) is_extended: bool,
}

/// LSUB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lsub {
    pub(crate) reference: String,
    pub(crate) pattern: String,
}

const TOO_MUCH: Fault = Fault::No("LIMIT", "too many or too long patterns");

pub(super) fn parse(cursor: &mut Cursor<'_>) -> Parsed<List> {
    let mut list = List::default();
    if cursor.peek() == Some(b'(') {
        list.is_extended = true;
        cursor.list(|cursor| selection(cursor, &mut list))?;
        cursor.space()?;
        if list.recursive_match && !list.select_subscribed {
            return Err(Fault::Bad("RECURSIVEMATCH needs SUBSCRIBED"));
        }
    }
    list.reference = cursor.pattern()?;
    cursor.space()?;
    if cursor.peek() == Some(b'(') {
        list.is_extended = true;
        let mut n_patterns = 0;
        list.patterns = cursor.list(|cursor| {
            n_patterns += 1;
            if n_patterns > PATTERNS_MAX { Err(TOO_MUCH) } else { cursor.pattern() }
        })?;
    } else {
        list.patterns.push(cursor.pattern()?);
    }
    check(&list.reference, &list.patterns)?;
    if cursor.eat(b' ') {
        list.is_extended = true;
        if !cursor.eat_word("RETURN") {
            return Err(Fault::Bad("RETURN expected"));
        }
        cursor.space()?;
        cursor.list(|cursor| returned(cursor, &mut list))?;
    }
    Ok(list)
}

fn selection(cursor: &mut Cursor<'_>, list: &mut List) -> Parsed<()> {
    match cursor.word("selection option expected")?.as_str() {
        "SUBSCRIBED" => list.select_subscribed = true,
        // There are no mailboxes elsewhere.
        "REMOTE" => {}
        "RECURSIVEMATCH" => list.recursive_match = true,
        "SPECIAL-USE" => list.select_special_use = true,
        _ => return Err(Fault::Bad("unknown selection option")),
    }
    Ok(())
}

fn returned(cursor: &mut Cursor<'_>, list: &mut List) -> Parsed<()> {
    match cursor.word("return option expected")?.as_str() {
        "SUBSCRIBED" => list.return_subscribed = true,
        // Both are always told.
        "CHILDREN" | "SPECIAL-USE" => {}
        "STATUS" => {
            cursor.space()?;
            list.return_status = status::items(cursor)?;
        }
        _ => return Err(Fault::Bad("unknown return option")),
    }
    Ok(())
}

pub(super) fn parse_lsub(cursor: &mut Cursor<'_>) -> Parsed<Lsub> {
    let reference = cursor.pattern()?;
    cursor.space()?;
    let pattern = cursor.pattern()?;
    check(&reference, std::slice::from_ref(&pattern))?;
    Ok(Lsub { reference, pattern })
}

fn check(reference: &str, patterns: &[String]) -> Parsed<()> {
    let n_bytes = reference.len() + patterns.iter().map(String::len).sum::<usize>();
    if n_bytes > PATTERN_BYTES_MAX { Err(TOO_MUCH) } else { Ok(()) }
}
