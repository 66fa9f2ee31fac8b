//! BINARY (RFC 3516): octets of a part with its transfer encoding undone. Since the size is told
//! before the octets, the part is read twice; it is never held whole.

use bytes::Bytes;
use mailbox::MessageRecord;
use mime::{PartKind, Range, TransferDecoder};

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
    /// Octets decoded in this pass.
    n_decoded: u64,
    /// In the second pass: which decoded octets are wanted.
    wanted: Option<Range>,
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
        let encoding = match (&part.kind, path.is_empty()) {
            (PartKind::Leaf, false) => part.encoding.clone().unwrap_or_default(),
            _ => String::new(),
        };
        match TransferDecoder::new(&encoding) {
            Some(decoder) => Decodable::Part(Self {
                range,
                at: range.start,
                encoding,
                decoder,
                n_decoded: 0,
                wanted: None,
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

    fn count(&mut self, decoded: Vec<u8>) -> Bytes {
        let before = self.n_decoded;
        self.n_decoded += decoded.len() as u64;
        let Some(wanted) = self.wanted else { return Bytes::new() };
        let clamp = |at: u64| at.saturating_sub(before).min(decoded.len() as u64) as usize;
        let (from, to) = (clamp(wanted.start), clamp(wanted.end));
        Bytes::from(decoded).slice(from..to)
    }

    /// After the first pass: octets of the whole decoded part.
    pub(super) fn size(&self) -> u64 {
        self.n_decoded
    }

    /// Whether the octets are to be sent now.
    pub(super) fn is_second_pass(&self) -> bool {
        self.wanted.is_some()
    }

    /// After the first pass: begins the second and gives how many octets it will send.
    pub(super) fn rewind(&mut self, partial: Option<(u64, u64)>) -> u64 {
        let wanted = cut(Range { start: 0, end: self.n_decoded }, partial);
        self.wanted = Some(wanted);
        self.at = self.range.start;
        self.n_decoded = 0;
        self.decoder = TransferDecoder::new(&self.encoding).expect("it was known before");
        wanted.len()
    }
}
