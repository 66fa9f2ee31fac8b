//! From bytes to typed commands. A gathered command (its line and all literals of it in one piece)
//! is read by [`command`]; what comes out cannot be wrong in itself, so nobody checks it again.
//!
//! Promises: nothing here panics or recurses deeper than [`crate::limits::DEPTH_MAX`].

pub(crate) mod append;
mod cursor;
mod fetch;
mod list;
#[cfg(test)]
mod oracle;
mod search;
mod select;
mod sort;
mod status;
mod store;

use mailbox::MailboxName;

pub(crate) use append::{AppendHead, MessageHead, append_head, append_next};
pub(crate) use cursor::{Cursor, Fault, Given, Parsed, literal_mark};
pub(crate) use fetch::{Fetch, Item, Part, Section, Text};
pub(crate) use list::{List, Lsub};
pub(crate) use search::{Key, Returned, Search};
pub(crate) use select::{Create, Resync, Select};
pub(crate) use sort::{Sort, Thread};
pub(crate) use status::{Status, StatusItem};
pub(crate) use store::Store;

use crate::context::Enabled;
use crate::number_set::NumberSet;

/// A command as the client gave it, but for APPEND (see [`append_head`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Capability,
    Noop,
    Logout,
    Id,
    StartTls,
    Authenticate { mechanism: String, initial: Option<Vec<u8>> },
    Login { name: String, password: Vec<u8> },
    Enable(Vec<String>),
    Namespace,
    Select(Select),
    Create(Create),
    Delete(Given),
    Rename { from: Given, to: Given },
    Subscribe { name: MailboxName, on: bool },
    List(List),
    Lsub(Lsub),
    Status(Status),
    GetQuota(String),
    GetQuotaRoot(MailboxName),
    SetQuota,
    Idle,
    Compress,
    Check,
    Close,
    Unselect,
    Expunge(Option<NumberSet>),
    Search(Search),
    Sort(Sort),
    Thread(Thread),
    Fetch(Fetch),
    Store(Store),
    Copy { uid: bool, set: NumberSet, to: MailboxName },
    Move { uid: bool, set: NumberSet, to: MailboxName },
}

/// The tag at the start of a line, if it has one.
pub(crate) fn tag(line: &[u8]) -> Option<&str> {
    let end = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
    let tag = &line[..end];
    let legal = |byte: &u8| cursor::is_astring_char(*byte) && *byte != b'+';
    (!tag.is_empty() && tag.iter().all(legal)).then(|| std::str::from_utf8(tag).ok())?
}

/// Reads what follows the tag and its space.
pub(crate) fn command(text: &[u8], enabled: &Enabled, separator: char) -> Parsed<Command> {
    let mut cursor = Cursor::new(text, enabled, separator);
    let verb = cursor.word("command expected")?;
    let command = match verb.as_str() {
        "UID" => {
            cursor.space()?;
            let verb = cursor.word("command expected after UID")?;
            uid_command(&mut cursor, &verb)?
        }
        verb => plain_command(&mut cursor, verb)?,
    };
    cursor.end()?;
    Ok(command)
}

fn uid_command(cursor: &mut Cursor<'_>, verb: &str) -> Parsed<Command> {
    let known = ["FETCH", "STORE", "SEARCH", "SORT", "THREAD", "EXPUNGE", "COPY", "MOVE"];
    if !known.contains(&verb) {
        return Err(Fault::Bad("unknown UID command"));
    }
    cursor.space()?;
    match verb {
        "FETCH" => Ok(Command::Fetch(fetch::parse(cursor, true)?)),
        "STORE" => Ok(Command::Store(store::parse(cursor, true)?)),
        "SEARCH" => Ok(Command::Search(search::parse(cursor, true)?)),
        "SORT" => Ok(Command::Sort(sort::parse(cursor, true)?)),
        "THREAD" => Ok(Command::Thread(sort::parse_thread(cursor, true)?)),
        "EXPUNGE" => Ok(Command::Expunge(Some(cursor.number_set()?))),
        "COPY" => copy(cursor, true),
        _ => move_(cursor, true),
    }
}

/// Commands without arguments.
fn bare_command(verb: &str) -> Option<Command> {
    Some(match verb {
        "CAPABILITY" => Command::Capability,
        "NOOP" => Command::Noop,
        "LOGOUT" => Command::Logout,
        "STARTTLS" => Command::StartTls,
        "NAMESPACE" => Command::Namespace,
        "IDLE" => Command::Idle,
        "CHECK" => Command::Check,
        "CLOSE" => Command::Close,
        "UNSELECT" => Command::Unselect,
        "EXPUNGE" => Command::Expunge(None),
        _ => return None,
    })
}

/// Commands with arguments.
const WITH_ARGUMENTS: &str = "ID AUTHENTICATE LOGIN ENABLE SELECT EXAMINE CREATE DELETE RENAME \
    SUBSCRIBE UNSUBSCRIBE LIST LSUB STATUS GETQUOTA GETQUOTAROOT SETQUOTA COMPRESS SEARCH SORT \
    THREAD FETCH STORE COPY MOVE";

fn plain_command(cursor: &mut Cursor<'_>, verb: &str) -> Parsed<Command> {
    if let Some(bare) = bare_command(verb) {
        return Ok(bare);
    }
    if !WITH_ARGUMENTS.split_ascii_whitespace().any(|known| known == verb) {
        return Err(Fault::Bad("unknown command"));
    }
    // Why: SnappyMail says no more than ID.
    if verb == "ID" && cursor.is_at_end() {
        return Ok(Command::Id);
    }
    cursor.space()?;
    match verb {
        "ID" => id(cursor),
        "AUTHENTICATE" => authenticate(cursor),
        "LOGIN" => login(cursor),
        "ENABLE" => enable(cursor),
        "SELECT" => Ok(Command::Select(select::parse(cursor, false)?)),
        "EXAMINE" => Ok(Command::Select(select::parse(cursor, true)?)),
        "CREATE" => Ok(Command::Create(select::parse_create(cursor)?)),
        "DELETE" => Ok(Command::Delete(cursor.given_mailbox()?)),
        "RENAME" => {
            let from = cursor.given_mailbox()?;
            cursor.space()?;
            Ok(Command::Rename { from, to: cursor.new_mailbox()? })
        }
        "SUBSCRIBE" => Ok(Command::Subscribe { name: cursor.mailbox()?, on: true }),
        "UNSUBSCRIBE" => Ok(Command::Subscribe { name: cursor.mailbox()?, on: false }),
        "LIST" => Ok(Command::List(list::parse(cursor)?)),
        "LSUB" => Ok(Command::Lsub(list::parse_lsub(cursor)?)),
        "STATUS" => Ok(Command::Status(status::parse(cursor)?)),
        "GETQUOTA" => Ok(Command::GetQuota(cursor.text()?)),
        "GETQUOTAROOT" => Ok(Command::GetQuotaRoot(cursor.mailbox()?)),
        "SETQUOTA" => {
            cursor.rest();
            Ok(Command::SetQuota)
        }
        "COMPRESS" => match cursor.word("mechanism expected")?.as_str() {
            "DEFLATE" => Ok(Command::Compress),
            _ => Err(Fault::Bad("unknown mechanism")),
        },
        "SEARCH" => Ok(Command::Search(search::parse(cursor, false)?)),
        "SORT" => Ok(Command::Sort(sort::parse(cursor, false)?)),
        "THREAD" => Ok(Command::Thread(sort::parse_thread(cursor, false)?)),
        "FETCH" => Ok(Command::Fetch(fetch::parse(cursor, false)?)),
        "STORE" => Ok(Command::Store(store::parse(cursor, false)?)),
        "COPY" => copy(cursor, false),
        _ => move_(cursor, false),
    }
}

fn copy(cursor: &mut Cursor<'_>, uid: bool) -> Parsed<Command> {
    let set = cursor.number_set()?;
    cursor.space()?;
    Ok(Command::Copy { uid, set, to: cursor.mailbox()? })
}

fn move_(cursor: &mut Cursor<'_>, uid: bool) -> Parsed<Command> {
    let set = cursor.number_set()?;
    cursor.space()?;
    Ok(Command::Move { uid, set, to: cursor.mailbox()? })
}

/// RFC 2971: read for its form only.
fn id(cursor: &mut Cursor<'_>) -> Parsed<Command> {
    if !cursor.eat(b'(') {
        return match cursor.nstring()? {
            None => Ok(Command::Id),
            Some(_) => Err(Fault::Bad("ID takes a list or NIL")),
        };
    }
    // Why here and below: some clients (aioimaplib) leave a space at either end of the list.
    cursor.spaces();
    while !cursor.eat(b')') {
        cursor.string()?;
        cursor.space()?;
        cursor.nstring()?;
        cursor.spaces();
        if cursor.is_at_end() {
            return Err(Fault::Bad("')' expected"));
        }
    }
    Ok(Command::Id)
}

fn authenticate(cursor: &mut Cursor<'_>) -> Parsed<Command> {
    let mechanism = cursor.word("mechanism expected")?;
    let initial = if cursor.goes_on() { Some(cursor.rest().to_vec()) } else { None };
    Ok(Command::Authenticate { mechanism, initial })
}

fn login(cursor: &mut Cursor<'_>) -> Parsed<Command> {
    let name = cursor.credential()?.into_owned();
    cursor.space()?;
    let password = cursor.credential()?.into_owned();
    let name = String::from_utf8(name).map_err(|_| Fault::Bad("the name is not UTF-8"))?;
    Ok(Command::Login { name, password })
}

fn enable(cursor: &mut Cursor<'_>) -> Parsed<Command> {
    let mut names = vec![cursor.word("capability expected")?];
    while cursor.goes_on() {
        names.push(cursor.word("capability expected")?);
    }
    Ok(Command::Enable(names))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_only_be_a_name_or_a_password_is_one() {
        let read = |text: &str| command(text.as_bytes(), &Enabled::default(), '/');
        for password in ["50%", "*", "a\\b", "(x)", "p{5}x", "~{", "a\"b", "}]"] {
            let login = Command::Login { name: "DOM\\ann".into(), password: password.into() };
            assert_eq!(read(&format!("LOGIN DOM\\ann {password}")), Ok(login), "{password}");
        }
        for wrong in ["LOGIN a", "LOGIN a b c", "LOGIN a \"b", "LOGIN a {b", "LOGIN a \"b\"c"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
