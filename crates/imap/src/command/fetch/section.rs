//! Which octets of a message a section names.

use mailbox::MessageRecord;
use mime::{Part, PartKind, Range, header_fields};

use crate::parse::{self, Section, Text};

/// Where the octets of a section come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Octets {
    /// There is no such part.
    Nothing,
    /// This range of the message.
    Range(Range),
    /// Fields of the header block in this range.
    Fields(Range),
}

/// The octets a section names, its partial not yet applied to fields.
pub(super) fn octets(record: &MessageRecord, section: &Section) -> Octets {
    let whole = section.part.path.is_empty() && section.part.text == Text::Whole;
    let structure = record.metadata.as_ref().map(|metadata| &metadata.structure);
    let range = match structure {
        _ if whole => Some(Range { start: 0, end: record.size }),
        Some(root) => range(root, &section.part),
        None => None,
    };
    match (range, &section.part.text) {
        (None, _) => Octets::Nothing,
        (Some(range), Text::HeaderFields(_) | Text::HeaderFieldsNot(_)) => Octets::Fields(range),
        (Some(range), _) => Octets::Range(cut(range, section.partial)),
    }
}

fn range(root: &Part, wanted: &parse::Part) -> Option<Range> {
    let part = root.find(&wanted.path)?;
    let message = match (&wanted.path[..], &part.kind) {
        ([], _) => Some(root),
        (_, PartKind::Message { part, .. }) => Some(&**part),
        _ => None,
    };
    match wanted.text {
        Text::Whole => Some(part.body),
        Text::Mime => Some(part.header),
        Text::Content => message.map(|message| message.body),
        Text::Header | Text::HeaderFields(_) | Text::HeaderFieldsNot(_) => {
            message.map(|message| message.header)
        }
    }
}

/// The part of a range that a partial names.
pub(super) fn cut(range: Range, partial: Option<(u64, u64)>) -> Range {
    let Some((first, n_octets)) = partial else { return range };
    let start = range.start.saturating_add(first).min(range.end);
    Range { start, end: start.saturating_add(n_octets).min(range.end) }
}

/// The wanted fields of a header block, and the empty line (RFC 9051 6.4.5.1).
pub(super) fn fields(block: &[u8], section: &Section) -> Vec<u8> {
    let (names, wanted) = match &section.part.text {
        Text::HeaderFields(names) => (names, true),
        Text::HeaderFieldsNot(names) => (names, false),
        _ => return Vec::new(),
    };
    let mut found = Vec::new();
    for field in header_fields(block).filter(|field| names.contains(field.name) == wanted) {
        found.extend_from_slice(field.raw);
    }
    if !found.is_empty() && !found.ends_with(b"\n") {
        found.extend_from_slice(b"\r\n");
    }
    found.extend_from_slice(b"\r\n");
    let range = cut(Range { start: 0, end: found.len() as u64 }, section.partial);
    found.drain(range.end as usize..);
    found.drain(..range.start as usize);
    found
}
