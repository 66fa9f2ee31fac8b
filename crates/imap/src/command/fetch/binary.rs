//! BINARY (RFC 3516): octets of a part with its transfer encoding undone. Since the size is told
//! before the octets, the part is read twice; it is never held whole.

use bytes::Bytes;
use mailbox::MessageRecord;
use mime::{ContentType, PartKind, Range, TransferDecoder};

use super::section::cut;
use crate::parse::Section;

/// What can be done with a part.
pub(super) enum Decodable {
    /// There is no such part.
    Nothing,
    /// Nobody knows how to undo its encoding.
    Unknown,
    /// It can be read.
    Part(Decoding),
}

/// A part being decoded.
pub(super) struct Decoding {
    range: Range,
    /// Next octet of the message to be read.
    at: u64,
    encoding: String,
    decoder: TransferDecoder,
    /// Of text.
    line_ends: Option<LineEnds>,
    /// Octets decoded in this pass.
    n_decoded: u64,
    /// Which decoded octets are wanted; in the second pass they are there.
    wanted: Range,
    is_second_pass: bool,
    /// NUL is among the wanted octets.
    has_nul: bool,
}

/// RFC 3516 6: text is sent with CRLF, whatever ends its lines once it is decoded.
#[derive(Default)]
struct LineEnds {
    is_behind_cr: bool,
}

impl LineEnds {
    /// Octets that follow those before.
    fn with_crlf(&mut self, octets: &[u8]) -> Vec<u8> {
        let mut lines = Vec::with_capacity(octets.len());
        for &byte in octets {
            if byte == b'\n' && !self.is_behind_cr {
                lines.push(b'\r');
            }
            lines.push(byte);
            self.is_behind_cr = byte == b'\r';
        }
        lines
    }
}

/// Charsets with characters of two or four octets (IANA): no octet of their texts is a line end by itself.
const WIDE_CHARSETS: [&str; 6] = ["utf-16", "utf16", "utf-32", "utf32", "ucs", "unicode"];

fn is_text(of: &ContentType) -> bool {
    let charset = of.charset().unwrap_or_default().to_ascii_lowercase();
    of.kind == "text" && !WIDE_CHARSETS.iter().any(|name| charset.contains(name))
}

impl Decoding {
    /// The part of a message that a section names.
    pub(super) fn of(record: &MessageRecord, section: &Section) -> Decodable {
        let path = &section.part.path;
        let structure = record.metadata.as_ref().map(|metadata| &metadata.structure);
        let Some(root) = structure else { return Decodable::Nothing };
        let Some(part) = root.find(path) else { return Decodable::Nothing };
        let range = if path.is_empty() { Range { start: 0, end: record.size } } else { part.body };
        // RFC 2045 6.4: what holds parts has no encoding of its own.
        let leaf =
            Some(part).filter(|part| matches!(part.kind, PartKind::Leaf) && !path.is_empty());
        let encoding = leaf.and_then(|leaf| leaf.encoding.clone()).unwrap_or_default();
        let line_ends =
            leaf.filter(|leaf| is_text(&leaf.content_type)).map(|_| LineEnds::default());
        match TransferDecoder::new(&encoding) {
            Some(decoder) => Decodable::Part(Self {
                range,
                at: range.start,
                encoding,
                decoder,
                line_ends,
                n_decoded: 0,
                wanted: cut(Range { start: 0, end: u64::MAX }, section.partial),
                is_second_pass: false,
                has_nul: false,
            }),
            None => Decodable::Unknown,
        }
    }

    /// The octets of the message that are wanted next.
    pub(super) fn left(&self) -> (u64, u64) {
        (self.at, self.range.end)
    }

    /// Takes encoded octets; gives decoded ones that are to be sent.
    pub(super) fn feed(&mut self, octets: &[u8]) -> Bytes {
        self.at += octets.len() as u64;
        let mut decoded = Vec::new();
        self.decoder.feed(octets, &mut decoded);
        self.count(decoded)
    }

    /// All was read: what was still held.
    pub(super) fn finish(&mut self) -> Bytes {
        let mut decoded = Vec::new();
        self.decoder.clone().finish(&mut decoded);
        self.count(decoded)
    }

    fn count(&mut self, mut decoded: Vec<u8>) -> Bytes {
        if let Some(line_ends) = &mut self.line_ends {
            decoded = line_ends.with_crlf(&decoded);
        }
        let before = self.n_decoded;
        self.n_decoded += decoded.len() as u64;
        let clamp = |at: u64| at.saturating_sub(before).min(decoded.len() as u64) as usize;
        let (from, to) = (clamp(self.wanted.start), clamp(self.wanted.end));
        if self.is_second_pass {
            return Bytes::from(decoded).slice(from..to);
        }
        self.has_nul |= decoded[from..to].contains(&0);
        Bytes::new()
    }

    /// After the first pass: octets of the whole decoded part.
    pub(super) fn size(&self) -> u64 {
        self.n_decoded
    }

    /// Whether the octets are to be sent now.
    pub(super) fn is_second_pass(&self) -> bool {
        self.is_second_pass
    }

    /// After the first pass: whether NUL is among the octets that will be sent.
    pub(super) fn has_nul(&self) -> bool {
        self.has_nul
    }

    /// After the first pass: begins the second and gives how many octets it will send.
    pub(super) fn rewind(&mut self) -> u64 {
        self.is_second_pass = true;
        let end = self.n_decoded;
        self.wanted = Range { start: self.wanted.start.min(end), end: self.wanted.end.min(end) };
        self.at = self.range.start;
        self.n_decoded = 0;
        self.decoder = TransferDecoder::new(&self.encoding).expect("it was known before");
        self.line_ends = self.line_ends.take().map(|_| LineEnds::default());
        self.wanted.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_are_the_same_in_any_cuts() {
        let (text, wanted) = (b"a\nb\r\nc\r\r\n\n\rd\n", b"a\r\nb\r\nc\r\r\n\r\n\rd\r\n");
        for cut in 0..=text.len() {
            let mut line_ends = LineEnds::default();
            let mut lines = line_ends.with_crlf(&text[..cut]);
            lines.extend(line_ends.with_crlf(&text[cut..]));
            assert_eq!(lines, wanted, "cut at {cut}");
        }
    }
}
