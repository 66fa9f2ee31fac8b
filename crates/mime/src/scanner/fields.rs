//! The interesting fields of one header block.

use crate::header::{field_name, without_line_end};
use crate::limits::FIELD_BYTES_MAX;

const PART_FIELDS: [&str; 8] = [
    "content-type",
    "content-transfer-encoding",
    "content-disposition",
    "content-id",
    "content-description",
    "content-md5",
    "content-language",
    "content-location",
];

const MESSAGE_FIELDS: [&str; 11] = [
    "date",
    "subject",
    "from",
    "sender",
    "reply-to",
    "to",
    "cc",
    "bcc",
    "in-reply-to",
    "message-id",
    "references",
];

/// RFC 5322 4.5.3: where one of these occurs twice, both lists of addresses are one.
const DESTINATION_FIELDS: [&str; 3] = ["to", "cc", "bcc"];

/// Gathers the fields of one header block, line by line. Of a field that occurs twice the first
/// counts, so that a field added behind cannot change what a filter has seen; but destinations add
/// up. NUL is taken out: IMAP could not send it.
#[derive(Debug)]
pub(crate) struct Fields {
    is_message: bool,
    values: Vec<(&'static str, Vec<u8>)>,
    /// The field that is still being gathered.
    open: Option<usize>,
}

impl Fields {
    /// The fields of a message.
    pub(super) fn of_message() -> Fields {
        Fields { is_message: true, values: Vec::new(), open: None }
    }

    /// The fields of a part inside a multipart.
    pub(super) fn of_part() -> Fields {
        Fields { is_message: false, values: Vec::new(), open: None }
    }

    /// Takes the next line.
    pub(super) fn line(&mut self, line: &[u8]) {
        if matches!(line, [b' ' | b'\t', ..]) {
            if let Some(open) = self.open {
                self.extend(open, line);
            }
            return;
        }
        self.open = None;
        let Some((name, colon)) = field_name(line) else { return };
        let Some(known) = self.known(name) else { return };
        let rest = &line[colon + 1..];
        match self.values.iter().position(|(there, _)| *there == known) {
            None => {
                self.values.push((known, without_nul(rest).collect()));
                self.open = Some(self.values.len() - 1);
            }
            Some(at) if DESTINATION_FIELDS.contains(&known) => {
                self.extend(at, b",");
                self.extend(at, rest);
                self.open = Some(at);
            }
            Some(_) => {}
        }
    }

    fn extend(&mut self, at: usize, line: &[u8]) {
        let value = &mut self.values[at].1;
        let room = FIELD_BYTES_MAX.saturating_sub(value.len());
        value.extend(without_nul(&line[..line.len().min(room)]));
    }

    /// The value as written, folds included.
    pub(crate) fn value(&self, name: &str) -> Option<&[u8]> {
        let (_, value) = self.values.iter().find(|(known, _)| *known == name)?;
        Some(without_line_end(value))
    }

    fn known(&self, name: &[u8]) -> Option<&'static str> {
        let message_fields: &[&str] = if self.is_message { &MESSAGE_FIELDS } else { &[] };
        PART_FIELDS
            .iter()
            .chain(message_fields)
            .find(|known| name.eq_ignore_ascii_case(known.as_bytes()))
            .copied()
    }
}

fn without_nul(bytes: &[u8]) -> impl Iterator<Item = u8> + '_ {
    bytes.iter().copied().filter(|byte| *byte != 0)
}
