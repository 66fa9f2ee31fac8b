//! SELECT, EXAMINE and CREATE with their parameters (RFC 4466, 7162, 6154).

use mailbox::MailboxName;
use mailbox::command::SpecialUse;

use super::cursor::{Cursor, Fault, Parsed};

/// SELECT and EXAMINE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Select {
    pub(crate) name: MailboxName,
    pub(crate) read_only: bool,
    pub(crate) condstore: bool,
}

/// CREATE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Create {
    pub(crate) name: MailboxName,
    pub(crate) special_use: Option<SpecialUse>,
}

pub(super) fn parse(cursor: &mut Cursor<'_>, read_only: bool) -> Parsed<Select> {
    let mut select = Select { name: cursor.mailbox()?, read_only, condstore: false };
    if !cursor.eat(b' ') {
        return Ok(select);
    }
    cursor.list(|cursor| match cursor.word("parameter expected")?.as_str() {
        "CONDSTORE" => {
            select.condstore = true;
            Ok(())
        }
        _ => Err(Fault::Bad("unknown parameter")),
    })?;
    Ok(select)
}

pub(super) fn parse_create(cursor: &mut Cursor<'_>) -> Parsed<Create> {
    let mut create = Create { name: cursor.new_mailbox()?, special_use: None };
    if !cursor.eat(b' ') {
        return Ok(create);
    }
    cursor.expect(b'(', "'(' expected")?;
    if !cursor.eat_word("USE") {
        return Err(Fault::Bad("unknown parameter"));
    }
    cursor.space()?;
    let uses = cursor.list(special_use)?;
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
