//! Which octets of a message a section names.

use mailbox::MessageRecord;
use mime::limits::HEADER_BYTES_MAX;
use mime::{Part, PartKind, Range};

use crate::parse::{self, Section, Text};

/// Where the octets of a section come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Octets {
    /// There is no such part.
    Nothing,
    /// This range of the message.
    Range(Range),
    /// Fields of the header block in this range. Limit: of a message's own header as much as all headers of
    /// parts may have.
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
        (Some(range), Text::HeaderFields(_) | Text::HeaderFieldsNot(_)) => {
            Octets::Fields(cut(range, Some((0, HEADER_BYTES_MAX))))
        }
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
