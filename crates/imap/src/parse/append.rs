//! What APPEND and REPLACE say before and between messages (RFC 9051 6.3.12, RFC 3502, 8508).

use mailbox::Flags;
use mailbox::command::InternalDate;

use super::cursor::{Cursor, Fault, Given, Parsed};
use super::store::flags_of_new;
use crate::context::Enabled;
use crate::date;
use crate::number_set::NumberSet;

/// What stands in front of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MessageHead {
    pub(crate) flags: Flags,
    pub(crate) internal_date: Option<InternalDate>,
    /// The message stands in `UTF8 (...)`, as RFC 6855 had it.
    pub(crate) is_in_utf8: bool,
}

/// APPEND or REPLACE up to its first message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AppendHead {
    /// REPLACE: whether by UID, and which message.
    pub(crate) replaces: Option<(bool, NumberSet)>,
    pub(crate) mailbox: Given,
    pub(crate) message: MessageHead,
}

/// Reads a command up to the mark of a literal. `None` if it is no APPEND, or if the literal is
/// not yet its message.
pub(crate) fn append_head(
    text: &[u8],
    enabled: &Enabled,
    separator: char,
) -> Parsed<Option<AppendHead>> {
    let mut cursor = Cursor::new(text, enabled, separator);
    let uid = cursor.eat_text("UID ");
    if uid {
        cursor.spaces();
    }
    let replaces = match () {
        () if cursor.eat_text("REPLACE ") => {
            cursor.spaces();
            let number = cursor.seq_number()?;
            cursor.space()?;
            Some((uid, NumberSet::Ranges(vec![(number, number)])))
        }
        () if !uid && cursor.eat_text("APPEND ") => None,
        () => return Ok(None),
    };
    cursor.spaces();
    if cursor.is_at_end() {
        return Ok(None);
    }
    let mailbox = cursor.given_mailbox()?;
    cursor.space()?;
    Ok(Some(AppendHead { replaces, mailbox, message: message_head(&mut cursor)? }))
}

/// Reads what follows a message up to the mark of the next literal.
pub(crate) fn append_next(text: &[u8], enabled: &Enabled, is_in_utf8: bool) -> Parsed<MessageHead> {
    let mut cursor = Cursor::new(text, enabled, '/');
    if is_in_utf8 && !cursor.eat(b')') {
        return Err(Fault::Bad("a parenthesis expected behind the message"));
    }
    cursor.space()?;
    message_head(&mut cursor)
}

fn message_head(cursor: &mut Cursor<'_>) -> Parsed<MessageHead> {
    let mut head = MessageHead::default();
    if cursor.peek() == Some(b'(') {
        head.flags = flags_of_new(cursor)?;
        cursor.space()?;
    }
    if cursor.peek() == Some(b'"') {
        let text = cursor.string()?;
        let text = std::str::from_utf8(&text).ok();
        let date = text.and_then(date::parse_date_time);
        head.internal_date = Some(date.ok_or(Fault::Bad("not a date and time"))?);
        cursor.space()?;
    }
    // RFC 9755 has it no more, but clients that know RFC 6855 alone say it once they enabled UTF8=ACCEPT.
    head.is_in_utf8 = cursor.eat_text("UTF8 (");
    if head.is_in_utf8 && !cursor.is_utf8_enabled() {
        return Err(Fault::Bad("UTF8=ACCEPT is not enabled"));
    }
    if cursor.is_at_end() { Ok(head) } else { Err(Fault::Bad("a message expected")) }
}
