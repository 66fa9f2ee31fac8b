//! FETCH (RFC 9051 6.4.5, RFC 3501 6.4.5, RFC 7162 3.1.4, RFC 8474 5.3, RFC 8514).

use std::fmt::Write as _;

use super::cursor::{Cursor, Fault, Parsed};
use crate::limits::{FIELD_NAMES_MAX, SECTIONS_MAX};
use crate::number_set::NumberSet;

/// FETCH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fetch {
    pub(crate) uid: bool,
    pub(crate) set: NumberSet,
    /// Each once, but for sections.
    pub(crate) items: Vec<Item>,
    pub(crate) changed_since: Option<u64>,
    /// RFC 7162 3.2.6: what vanished since is told too.
    pub(crate) vanished: bool,
}

/// What FETCH can tell of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    Uid,
    Flags,
    InternalDate,
    Size,
    Envelope,
    /// BODY without a section; extended: BODYSTRUCTURE.
    Structure {
        extended: bool,
    },
    ModSeq,
    EmailId,
    ThreadId,
    SaveDate,
    Preview,
    Section(Section),
    /// RFC 3516: decoded octets.
    Binary(Section),
    /// RFC 3516: how many.
    BinarySize(Section),
}

impl Item {
    /// Whether it is octets of the message, or counts them.
    pub(crate) fn is_section(&self) -> bool {
        matches!(self, Self::Section(_) | Self::Binary(_) | Self::BinarySize(_))
    }
}

/// Octets of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Section {
    /// How the response names it: `BODY[1.MIME]<0>`.
    pub(crate) label: String,
    pub(crate) peek: bool,
    pub(crate) part: Part,
    /// First octet and number of octets.
    pub(crate) partial: Option<(u64, u64)>,
}

/// Which part of a message, and what of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) path: Vec<u32>,
    pub(crate) text: Text,
}

/// What of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Text {
    Whole,
    Header,
    HeaderFields(FieldNames),
    HeaderFieldsNot(FieldNames),
    /// `TEXT`
    Content,
    Mime,
}

/// Invariant: in lower case and in order, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FieldNames(Vec<Vec<u8>>);

impl FieldNames {
    /// Whether this name is among them, in any case.
    pub(crate) fn contains(&self, name: &[u8]) -> bool {
        let name = || name.iter().map(u8::to_ascii_lowercase);
        self.0.binary_search_by(|known| known.iter().copied().cmp(name())).is_ok()
    }
}

impl FromIterator<Vec<u8>> for FieldNames {
    fn from_iter<I: IntoIterator<Item = Vec<u8>>>(names: I) -> Self {
        let mut names: Vec<_> = names.into_iter().collect();
        names.iter_mut().for_each(|name| name.make_ascii_lowercase());
        names.sort_unstable();
        names.dedup();
        Self(names)
    }
}

pub(super) fn parse(cursor: &mut Cursor<'_>, uid: bool) -> Parsed<Fetch> {
    let set = cursor.number_set()?;
    cursor.space()?;
    let mut items = if cursor.peek() == Some(b'(') {
        items(cursor)?
    } else if let Some(items) = macro_items(cursor) {
        items
    } else {
        vec![item(cursor)?]
    };
    if items.is_empty() {
        return Err(Fault::Bad("fetch item expected"));
    }
    let (mut changed_since, mut vanished) = (None, false);
    if cursor.goes_on() {
        cursor.list(|cursor| match cursor.word("modifier expected")?.as_str() {
            "CHANGEDSINCE" => {
                cursor.space()?;
                changed_since = Some(cursor.number64()?);
                Ok(())
            }
            "VANISHED" => {
                vanished = true;
                Ok(())
            }
            _ => Err(Fault::Bad("unknown modifier")),
        })?;
    }
    if vanished && !(uid && changed_since.is_some() && cursor.is_qresync_enabled()) {
        return Err(Fault::Bad("VANISHED needs QRESYNC, UID FETCH and CHANGEDSINCE"));
    }
    // RFC 9051 6.4.9: UID in the reply even if not asked.
    if uid && !items.contains(&Item::Uid) {
        items.insert(0, Item::Uid);
    }
    // RFC 7162 3.1.4.1: so with CHANGEDSINCE and MODSEQ.
    if changed_since.is_some() && !items.contains(&Item::ModSeq) {
        items.push(Item::ModSeq);
    }
    Ok(Fetch { uid, set, items, changed_since, vanished })
}

fn macro_items(cursor: &mut Cursor<'_>) -> Option<Vec<Item>> {
    let fast = [Item::Flags, Item::InternalDate, Item::Size];
    let mut items = fast.to_vec();
    if cursor.eat_word("FAST") {
        return Some(items);
    }
    items.push(Item::Envelope);
    if cursor.eat_word("ALL") {
        return Some(items);
    }
    items.push(Item::Structure { extended: false });
    cursor.eat_word("FULL").then_some(items)
}

fn items(cursor: &mut Cursor<'_>) -> Parsed<Vec<Item>> {
    let (mut items, mut n_sections) = (Vec::new(), 0);
    cursor.list(|cursor| {
        let item = item(cursor)?;
        n_sections += usize::from(item.is_section());
        if n_sections > SECTIONS_MAX {
            return Err(Fault::No("LIMIT", "too many sections"));
        }
        if item.is_section() || !items.contains(&item) {
            items.push(item);
        }
        Ok(())
    })?;
    Ok(items)
}

fn item(cursor: &mut Cursor<'_>) -> Parsed<Item> {
    let name = cursor.letters();
    Ok(match name.as_str() {
        "UID" => Item::Uid,
        "FLAGS" => Item::Flags,
        "INTERNALDATE" => Item::InternalDate,
        "ENVELOPE" => Item::Envelope,
        "BODYSTRUCTURE" => Item::Structure { extended: true },
        "MODSEQ" => Item::ModSeq,
        "EMAILID" => Item::EmailId,
        "THREADID" => Item::ThreadId,
        "SAVEDATE" => Item::SaveDate,
        "PREVIEW" => {
            // RFC 8970 3.2: LAZY lets a server pass over what is costly; here nothing is.
            cursor.eat_behind_space("(LAZY)");
            Item::Preview
        }
        "BODY" if cursor.eat(b'[') => Item::Section(section(cursor, "BODY", false)?),
        "BODY" if cursor.eat(b'.') => {
            if cursor.letters() != "PEEK" {
                return Err(Fault::Bad("PEEK expected"));
            }
            cursor.expect(b'[', "'[' expected")?;
            Item::Section(section(cursor, "BODY", true)?)
        }
        "BODY" => Item::Structure { extended: false },
        "BINARY" => binary(cursor)?,
        "RFC822" if cursor.eat(b'.') => match cursor.letters().as_str() {
            "SIZE" => Item::Size,
            "HEADER" => whole("RFC822.HEADER", true, Text::Header),
            // RFC 1730 3.5 had the PEEK of both; scripts of its time still say it.
            "TEXT" => whole("RFC822.TEXT", cursor.eat_text(".PEEK"), Text::Content),
            "PEEK" => whole("RFC822", true, Text::Whole),
            _ => return Err(Fault::Bad("unknown fetch item")),
        },
        "RFC822" => whole("RFC822", false, Text::Whole),
        _ => return Err(Fault::Bad("unknown fetch item")),
    })
}

/// RFC 3516 4.2
fn binary(cursor: &mut Cursor<'_>) -> Parsed<Item> {
    let word = if cursor.eat(b'.') { cursor.letters() } else { String::new() };
    cursor.expect(b'[', "'[' expected")?;
    let (label, peek) = match word.as_str() {
        "" => ("BINARY", false),
        "PEEK" => ("BINARY", true),
        "SIZE" => ("BINARY.SIZE", true),
        _ => return Err(Fault::Bad("unknown fetch item")),
    };
    let section = section(cursor, label, peek)?;
    if section.part.text != Text::Whole || word == "SIZE" && section.partial.is_some() {
        return Err(Fault::Bad("a part number expected"));
    }
    Ok(if word == "SIZE" { Item::BinarySize(section) } else { Item::Binary(section) })
}

fn whole(label: &str, peek: bool, text: Text) -> Item {
    let part = Part { path: Vec::new(), text };
    Item::Section(Section { label: label.into(), peek, part, partial: None })
}

/// Behind `[`.
fn section(cursor: &mut Cursor<'_>, word: &str, peek: bool) -> Parsed<Section> {
    let mut label = format!("{word}[");
    let mut part = Part { path: Vec::new(), text: Text::Whole };
    while cursor.peek().is_some_and(|byte| byte.is_ascii_digit()) {
        let number = cursor.nz_number()?;
        let dot = if part.path.is_empty() { "" } else { "." };
        let _ = write!(label, "{dot}{number}");
        part.path.push(number);
        if !cursor.eat(b'.') {
            break;
        }
        if !cursor.peek().is_some_and(|byte| byte.is_ascii_alphanumeric()) {
            return Err(Fault::Bad("section expected"));
        }
    }
    if cursor.peek().is_some_and(|byte| byte.is_ascii_alphabetic()) {
        let text_label;
        (part.text, text_label) = section_text(cursor, !part.path.is_empty())?;
        if !part.path.is_empty() {
            label.push('.');
        }
        label.push_str(&text_label);
    }
    cursor.expect(b']', "']' expected")?;
    label.push(']');
    let mut partial = None;
    if cursor.eat(b'<') {
        let first = cursor.number64()?;
        // Why none: Horde reads up to the end so.
        let n_octets = if cursor.eat(b'.') { cursor.number64()? } else { u64::MAX };
        cursor.expect(b'>', "'>' expected")?;
        if n_octets == 0 {
            return Err(Fault::Bad("a number above 0 expected"));
        }
        let _ = write!(label, "<{first}>");
        partial = Some((first, n_octets));
    }
    Ok(Section { label, peek, part, partial })
}

/// What of a part, and how the response names it.
fn section_text(cursor: &mut Cursor<'_>, of_part: bool) -> Parsed<(Text, String)> {
    match cursor.letters().as_str() {
        "TEXT" => Ok((Text::Content, "TEXT".into())),
        "MIME" if of_part => Ok((Text::Mime, "MIME".into())),
        "HEADER" => {
            if !cursor.eat(b'.') {
                return Ok((Text::Header, "HEADER".into()));
            }
            if cursor.letters() != "FIELDS" {
                return Err(Fault::Bad("FIELDS expected"));
            }
            let not = cursor.eat(b'.');
            if not && cursor.letters() != "NOT" {
                return Err(Fault::Bad("NOT expected"));
            }
            cursor.space()?;
            let mut n_names = 0;
            let names = cursor.list(|cursor| {
                n_names += 1;
                match n_names > FIELD_NAMES_MAX {
                    true => Err(Fault::No("LIMIT", "too many field names")),
                    false => cursor.astring().map(std::borrow::Cow::into_owned),
                }
            })?;
            if names.is_empty() {
                return Err(Fault::Bad("field name expected"));
            }
            let labels: Vec<String> = names.iter().map(|name| field_label(name)).collect();
            let word = if not { "HEADER.FIELDS.NOT" } else { "HEADER.FIELDS" };
            let names = names.into_iter().collect();
            let text = if not { Text::HeaderFieldsNot(names) } else { Text::HeaderFields(names) };
            Ok((text, format!("{word} ({})", labels.join(" "))))
        }
        _ => Err(Fault::Bad("unknown section")),
    }
}

/// A field name as the response shows it; one that is no atom is quoted.
fn field_label(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name).to_ascii_uppercase();
    let is_atom = |byte: u8| byte.is_ascii_graphic() && !b"(){%*\"\\]".contains(&byte);
    if !name.is_empty() && name.bytes().all(is_atom) {
        return name;
    }
    let plain: String = name.chars().filter(|c| !c.is_control()).collect();
    format!("\"{}\"", plain.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_names_are_found_in_any_case() {
        let written = ["To", "FROM", "cc", "from", "X-a", "x_A", "", "Date"];
        let names: FieldNames = written.iter().map(|name| name.as_bytes().to_vec()).collect();
        for name in ["to", "From", "from", "CC", "x-A", "X_a", "", "DATE", "t", "fro", "x", "dat"] {
            let wanted = written.iter().any(|written| written.eq_ignore_ascii_case(name));
            assert_eq!(names.contains(name.as_bytes()), wanted, "{name}");
        }
    }
}
