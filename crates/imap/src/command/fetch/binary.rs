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
    /// Which octets to be sent are wanted; in the second pass they are there.
    wanted: Range,
    is_second_pass: bool,
    /// Octets of this pass, as they were encoded.
    as_encoded: Count,
    /// Of text, as long as no line of it ends in CRLF.
    line_ends: Option<LineEnds>,
}

/// Octets that went by, of which some are wanted.
#[derive(Default)]
struct Count {
    n_octets: u64,
    /// NUL is among the wanted ones.
    has_nul: bool,
}

impl Count {
    /// Octets that follow those before; tells which of them are wanted.
    fn take(&mut self, octets: &[u8], wanted: Range) -> std::ops::Range<usize> {
        let before = self.n_octets;
        self.n_octets += octets.len() as u64;
        let clamp = |at: u64| at.saturating_sub(before).min(octets.len() as u64) as usize;
        let (from, to) = (clamp(wanted.start), clamp(wanted.end));
        self.has_nul |= octets[from..to].contains(&0);
        from..to
    }
}

/// RFC 3516 6: text whose lines end in LF once it is decoded is sent with CRLF. Where a line ends in CRLF, an
/// LF that stands alone is what the sender wrote, and all is sent as it was encoded.
#[derive(Default)]
struct LineEnds {
    is_behind_cr: bool,
    has_crlf: bool,
    /// Octets of this pass, with CRLF.
    counted: Count,
}

impl LineEnds {
    /// Octets that follow those before.
    fn with_crlf(&mut self, octets: &[u8]) -> Vec<u8> {
        let mut lines = Vec::with_capacity(octets.len());
        for &byte in octets {
            if byte == b'\n' {
                match self.is_behind_cr {
                    true => self.has_crlf = true,
                    false => lines.push(b'\r'),
                }
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
                wanted: cut(Range { start: 0, end: u64::MAX }, section.partial),
                is_second_pass: false,
                as_encoded: Count::default(),
                line_ends,
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
        let mut wanted = self.as_encoded.take(&decoded, self.wanted);
        if let Some(line_ends) = &mut self.line_ends {
            decoded = line_ends.with_crlf(&decoded);
            wanted = line_ends.counted.take(&decoded, self.wanted);
            if line_ends.has_crlf {
                self.line_ends = None;
            }
        }
        if self.is_second_pass {
            return Bytes::from(decoded).slice(wanted);
        }
        Bytes::new()
    }

    /// What was counted of the octets that are sent.
    fn sent(&self) -> &Count {
        self.line_ends.as_ref().map_or(&self.as_encoded, |line_ends| &line_ends.counted)
    }

    /// After the first pass: octets of the whole decoded part.
    pub(super) fn size(&self) -> u64 {
        self.sent().n_octets
    }

    /// Whether the octets are to be sent now.
    pub(super) fn is_second_pass(&self) -> bool {
        self.is_second_pass
    }

    /// After the first pass: whether NUL is among the octets that will be sent.
    pub(super) fn has_nul(&self) -> bool {
        self.sent().has_nul
    }

    /// After the first pass: begins the second and gives how many octets it will send.
    pub(super) fn rewind(&mut self) -> u64 {
        let end = self.size();
        self.is_second_pass = true;
        self.wanted = Range { start: self.wanted.start.min(end), end: self.wanted.end.min(end) };
        self.at = self.range.start;
        self.as_encoded = Count::default();
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
            assert!(line_ends.has_crlf, "cut at {cut}");
        }
    }
}
