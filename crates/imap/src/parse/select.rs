//! SELECT, EXAMINE and CREATE with their parameters (RFC 4466, 7162, 6154).

use mailbox::command::SpecialUse;

use super::cursor::{Cursor, Fault, Given, Parsed};
use crate::number_set::NumberSet;

/// SELECT and EXAMINE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Select {
    /// Or why no mailbox can have that name: the mailbox selected before is closed all the same.
    pub(crate) given: Parsed<Given>,
    pub(crate) read_only: bool,
    pub(crate) condstore: bool,
    pub(crate) qresync: Option<Resync>,
}

/// What a client that comes back knows (RFC 7162 3.2.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resync {
    pub(crate) uid_validity: u32,
    pub(crate) modseq: u64,
    /// All below UIDNEXT if absent.
    pub(crate) known: Option<NumberSet>,
}

/// CREATE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Create {
    pub(crate) given: Given,
    pub(crate) special_use: Option<SpecialUse>,
}

pub(super) fn parse(cursor: &mut Cursor<'_>, read_only: bool) -> Parsed<Select> {
    let given = match cursor.given_mailbox() {
        Err(Fault::Bad(why)) => return Err(Fault::Bad(why)),
        given => given,
    };
    let mut select = Select { given, read_only, condstore: false, qresync: None };
    if !cursor.goes_on() {
        return Ok(select);
    }
    cursor.list(|cursor| match cursor.word("parameter expected")?.as_str() {
        "CONDSTORE" => {
            select.condstore = true;
            Ok(())
        }
        "QRESYNC" if !cursor.is_qresync_enabled() => Err(Fault::Bad("ENABLE QRESYNC first")),
        "QRESYNC" => {
            cursor.space()?;
            select.qresync = Some(resync(cursor)?);
            Ok(())
        }
        _ => Err(Fault::Bad("unknown parameter")),
    })?;
    Ok(select)
}

fn resync(cursor: &mut Cursor<'_>) -> Parsed<Resync> {
    cursor.expect(b'(', "'(' expected")?;
    cursor.spaces();
    let uid_validity = cursor.nz_number()?;
    cursor.space()?;
    let mut resync = Resync { uid_validity, modseq: cursor.number64()?, known: None };
    if cursor.space().is_ok() {
        if !matches!(cursor.peek(), Some(b'(' | b')')) {
            resync.known = Some(cursor.number_set()?);
            cursor.spaces();
        }
        // RFC 7162 3.2.5.2: the pairs of numbers and UIDs only spare work for servers that forgot
        // what was expunged.
        if cursor.peek() == Some(b'(') {
            cursor.list(Cursor::number_set)?;
            cursor.spaces();
        }
    }
    cursor.expect(b')', "')' expected")?;
    Ok(resync)
}

pub(super) fn parse_create(cursor: &mut Cursor<'_>) -> Parsed<Create> {
    let mut create = Create { given: cursor.new_mailbox()?, special_use: None };
    if !cursor.goes_on() {
        return Ok(create);
    }
    cursor.expect(b'(', "'(' expected")?;
    cursor.spaces();
    if !cursor.eat_word("USE") {
        return Err(Fault::Bad("unknown parameter"));
    }
    cursor.space()?;
    let uses = cursor.list(special_use)?;
    cursor.spaces();
    cursor.expect(b')', "')' expected")?;
    if uses.len() > 1 {
        return Err(Fault::No("USEATTR", "a mailbox has one special use at most"));
    }
    create.special_use = uses.first().copied();
    Ok(create)
}

fn special_use(cursor: &mut Cursor<'_>) -> Parsed<SpecialUse> {
    cursor.expect(b'\\', "'\\' expected")?;
    match cursor.word("special use expected")?.as_str() {
        "ALL" => Ok(SpecialUse::All),
        "ARCHIVE" => Ok(SpecialUse::Archive),
        "DRAFTS" => Ok(SpecialUse::Drafts),
        "FLAGGED" => Ok(SpecialUse::Flagged),
        "JUNK" => Ok(SpecialUse::Junk),
        "SENT" => Ok(SpecialUse::Sent),
        "TRASH" => Ok(SpecialUse::Trash),
        _ => Err(Fault::No("USEATTR", "no such special use here")),
    }
}
