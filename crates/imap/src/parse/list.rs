//! LIST with its extensions, and LSUB (RFC 9051 6.3.9, RFC 5258, 5819, 6154).

use super::cursor::{Cursor, Fault, Parsed};
use super::status::{self, StatusItem};
use crate::limits::{PATTERN_BYTES_MAX, PATTERNS_MAX};

/// LIST.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct List {
    pub(crate) reference: String,
    /// Those that were accepted.
    pub(crate) patterns: Vec<String>,
    /// Only subscribed names.
    pub(crate) select_subscribed: bool,
    /// Only mailboxes with a special use.
    pub(crate) select_special_use: bool,
    /// Also names above those selected. Invariant: one of the two before is said as well.
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
    /// The pattern, if it was accepted.
    pub(crate) patterns: Vec<String>,
}

pub(super) fn parse(cursor: &mut Cursor<'_>) -> Parsed<List> {
    let mut list = List::default();
    if cursor.peek() == Some(b'(') {
        list.is_extended = true;
        cursor.list(|cursor| selection(cursor, &mut list))?;
        cursor.space()?;
        // RFC 5258 3.1: it makes no sense alone, or with REMOTE only.
        if list.recursive_match && !list.select_subscribed && !list.select_special_use {
            return Err(Fault::Bad("RECURSIVEMATCH needs SUBSCRIBED or SPECIAL-USE"));
        }
    }
    let reference = cursor.pattern()?;
    cursor.space()?;
    let mut patterns = Vec::new();
    if cursor.peek() == Some(b'(') {
        list.is_extended = true;
        cursor.list(|cursor| {
            let pattern = cursor.pattern()?;
            patterns.extend(pattern.filter(|_| patterns.len() < PATTERNS_MAX));
            Ok(())
        })?;
    } else {
        patterns.extend(cursor.pattern()?);
    }
    (list.reference, list.patterns) = accepted(reference, patterns);
    if cursor.goes_on() {
        list.is_extended = true;
        if !cursor.eat_word("RETURN") {
            return Err(Fault::Bad("RETURN expected"));
        }
        cursor.space()?;
        cursor.list(|cursor| returned(cursor, &mut list))?;
    }
    if list.is_extended {
        // RFC 9051 6.3.9: an empty one has no meaning of its own here.
        list.patterns.retain(|pattern| !pattern.is_empty());
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
    let (reference, patterns) = accepted(reference, cursor.pattern()?.into_iter().collect());
    Ok(Lsub { reference, patterns })
}

/// RFC 9051 6.3.9: a pattern that is not accepted, for whatever reason, is ignored; so is each below a
/// reference that is not.
fn accepted(reference: Option<String>, mut patterns: Vec<String>) -> (String, Vec<String>) {
    let Some(reference) = reference else {
        // An empty one asks for the separator alone.
        patterns.retain(String::is_empty);
        return (String::new(), patterns);
    };
    let mut n_left = PATTERN_BYTES_MAX.checked_sub(reference.len());
    patterns.retain(|pattern| {
        n_left = n_left.and_then(|n_left| n_left.checked_sub(pattern.len()));
        n_left.is_some()
    });
    (reference, patterns)
}
