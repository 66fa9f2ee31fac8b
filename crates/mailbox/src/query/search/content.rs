//! What SEARCH reads of one message, as little as the key needs: metadata, then its header, then
//! its text parts, chunk by chunk.

use mime::{Address, CharsetDecoder, Metadata, Part, PartKind, Range, TransferDecoder};
use minicbor::Decoder;

use super::super::messages;
use super::super::prefetch::Prefetch;
use crate::Bodies;
use crate::chunk::{ChunkRef, unstow};
use crate::codec;
use crate::ids::AccountId;
use crate::rows::Source;
use crate::state::State;

/// A header field that the envelope holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InEnvelope {
    /// As it was written, in this field of the envelope.
    Text(usize),
    /// A list of addresses, likewise.
    List(usize),
}

impl InEnvelope {
    /// `None` for a header field that the envelope does not hold.
    pub(super) fn of(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "subject" => Self::Text(1),
            "from" => Self::List(2),
            "to" => Self::List(5),
            "cc" => Self::List(6),
            "bcc" => Self::List(7),
            "message-id" => Self::Text(9),
            _ => return None,
        })
    }

    /// The field of encoded metadata, as a person reads it; `None` if there is none. What lies in
    /// front of it is passed over, what lies behind it is not looked at.
    fn read(self, metadata: &[u8]) -> Result<Option<String>, minicbor::decode::Error> {
        let mut decoder = Decoder::new(metadata);
        // Metadata, and in it first the envelope.
        decoder.array()?;
        let n_fields = decoder.array()?.unwrap_or(0) as usize;
        let (Self::Text(at) | Self::List(at)) = self;
        if at >= n_fields {
            return Ok(None);
        }
        for _ in 0..at {
            decoder.skip()?;
        }
        Ok(match self {
            Self::Text(_) => {
                let value: Option<&minicbor::bytes::ByteSlice> = decoder.decode()?;
                value.map(|value| mime::decode_header(value))
            }
            Self::List(_) => {
                let addresses: Vec<Address> = decoder.decode()?;
                let text: Vec<String> = addresses.iter().map(address_text).collect();
                (!addresses.is_empty()).then(|| text.join(", "))
            }
        })
    }
}

/// Whether encoded metadata may be an excerpt: that is said in its last field.
fn is_excerpt(metadata: &[u8]) -> Result<bool, minicbor::decode::Error> {
    const N_FIELDS_OF_A_WHOLE: u64 = 6;
    Ok(Decoder::new(metadata).array()?.is_none_or(|n_fields| n_fields > N_FIELDS_OF_A_WHOLE))
}

/// Text to look for, folded.
pub(super) struct Needle(String);

impl Needle {
    pub(super) fn new(text: &str) -> Self {
        Self(mime::fold(text))
    }

    fn is_in(&self, text: &str) -> bool {
        self.0.is_empty() || mime::fold(text).contains(&self.0)
    }
}

/// One message under a search.
pub(super) struct Candidate<'c, 's> {
    rows: &'s dyn Source,
    bodies: &'s dyn Bodies,
    account: AccountId,
    prefetch: &'c mut Prefetch<'s>,
    state: &'c State,
    metadata: Option<Box<Metadata>>,
    has_read_metadata: bool,
    chunks: Option<Vec<ChunkRef>>,
    header: Option<Vec<u8>>,
    n_bytes_read: u64,
}

impl<'c, 's> Candidate<'c, 's> {
    pub(super) fn new(
        (rows, bodies): (&'s dyn Source, &'s dyn Bodies),
        account: AccountId,
        (prefetch, state): (&'c mut Prefetch<'s>, &'c State),
    ) -> Self {
        Self {
            rows,
            bodies,
            account,
            prefetch,
            state,
            metadata: None,
            has_read_metadata: false,
            chunks: None,
            header: None,
            n_bytes_read: 0,
        }
    }

    pub(super) fn has_read_metadata(&self) -> bool {
        self.has_read_metadata
    }

    pub(super) fn n_bytes_read(&self) -> u64 {
        self.n_bytes_read
    }

    /// The whole metadata, or the excerpt if no good copy of the whole is at hand.
    fn metadata(&mut self) -> &Metadata {
        self.has_read_metadata = true;
        let (rows, account, email) = (self.rows, self.account, self.state.email);
        let n_bytes_read = &mut self.n_bytes_read;
        self.metadata.get_or_insert_with(|| {
            let metadata = messages::metadata(rows, account, email);
            if metadata.excerpt.is_none() {
                return metadata;
            }
            let content = messages::content(rows, account, email);
            let octets = content.split().1.iter().map(|chunk| self.bodies.chunk(chunk));
            let octets: Option<Vec<_>> = octets.collect();
            let octets = octets.unwrap_or_default().concat();
            *n_bytes_read += octets.len() as u64;
            unstow(&metadata, &octets).map_or(metadata, Box::new)
        })
    }

    /// HEADER, and SUBJECT, FROM, ... which are short for it.
    pub(super) fn header_contains(&mut self, name: &str, needle: &Needle) -> bool {
        if let Some(field) = InEnvelope::of(name) {
            let text = self.in_envelope(field).expect("rows are verified when read");
            return text.is_some_and(|text| needle.is_in(&text));
        }
        let header = self.header();
        mime::header_fields(header).any(|field| {
            field.name.eq_ignore_ascii_case(name.as_bytes())
                && needle.is_in(&mime::decode_header(&mime::unfold(field.value)))
        })
    }

    /// A field of the envelope; an excerpt's may be cut short.
    fn in_envelope(
        &mut self,
        field: InEnvelope,
    ) -> Result<Option<String>, minicbor::decode::Error> {
        self.has_read_metadata = true;
        let text = self.prefetch.read(self.state.email, |row| match is_excerpt(row) {
            Ok(false) => Some(field.read(row)),
            _ => None,
        });
        text.unwrap_or_else(|| field.read(&codec::encode(self.metadata())))
    }

    /// BODY: the text parts, decoded; and the headers of messages within.
    pub(super) fn body_contains(&mut self, needle: &Needle) -> bool {
        if needle.0.is_empty() {
            return true;
        }
        let metadata = self.metadata().clone();
        self.part_contains(&metadata.structure, needle)
    }

    /// TEXT: header or body.
    pub(super) fn text_contains(&mut self, needle: &Needle) -> bool {
        needle.0.is_empty() || block_contains(self.header(), needle) || self.body_contains(needle)
    }

    fn part_contains(&mut self, part: &Part, needle: &Needle) -> bool {
        match &part.kind {
            PartKind::Leaf => part.content_type.kind == "text" && self.leaf_contains(part, needle),
            PartKind::Multipart(children) => {
                children.iter().any(|child| self.part_contains(child, needle))
            }
            PartKind::Message { part, .. } => {
                let header = self.octets(part.header);
                block_contains(&header, needle) || self.part_contains(part, needle)
            }
        }
    }

    fn leaf_contains(&mut self, part: &Part, needle: &Needle) -> bool {
        let encoding = part.encoding.as_deref().unwrap_or("7bit");
        let Some(transfer) = TransferDecoder::new(encoding) else {
            return false;
        };
        let charset = part.content_type.charset().unwrap_or_default();
        let mut finder = Finder {
            transfer: Some(transfer),
            charset: Some(CharsetDecoder::new(&charset)),
            needle,
            window: String::new(),
            is_found: false,
        };
        self.visit(part.body, &mut |octets| {
            finder.feed(octets);
            !finder.is_found
        });
        finder.finish();
        finder.is_found
    }

    fn header(&mut self) -> &[u8] {
        if self.header.is_none() {
            let range = self.metadata().structure.header;
            self.header = Some(self.octets(range));
        }
        self.header.as_deref().unwrap_or_default()
    }

    /// A range of the message, without what cannot be read.
    fn octets(&mut self, range: Range) -> Vec<u8> {
        let mut octets = Vec::new();
        self.visit(range, &mut |piece| {
            octets.extend_from_slice(piece);
            true
        });
        octets
    }

    /// Visits a range of the message piece by piece until `visit` gives false. A chunk of which no
    /// good copy is at hand is passed over: it matches nothing.
    fn visit(&mut self, range: Range, visit: &mut dyn FnMut(&[u8]) -> bool) {
        let chunks = self.chunks.take().unwrap_or_else(|| {
            let content = messages::content(self.rows, self.account, self.state.email);
            content.split().0.to_vec()
        });
        let mut at: u64 = 0;
        for chunk in &chunks {
            let (begin, end) = (at, at + u64::from(chunk.raw_len));
            at = end;
            if end <= range.start || begin >= range.end {
                continue;
            }
            let Some(bytes) = self.bodies.chunk(chunk) else {
                continue;
            };
            self.n_bytes_read += bytes.len() as u64;
            let from = (range.start.max(begin) - begin) as usize;
            let to = (range.end.min(end) - begin) as usize;
            let piece = bytes.get(from..to.min(bytes.len())).unwrap_or_default();
            if !visit(piece) {
                break;
            }
        }
        self.chunks = Some(chunks);
    }
}

/// Finds a text in octets that pass by, decoded.
struct Finder<'n> {
    transfer: Option<TransferDecoder>,
    charset: Option<CharsetDecoder>,
    needle: &'n Needle,
    /// Folded text that was not passed yet: enough for a match that goes on.
    window: String,
    is_found: bool,
}

impl Finder<'_> {
    fn feed(&mut self, octets: &[u8]) {
        let (Some(transfer), Some(charset)) = (&mut self.transfer, &mut self.charset) else {
            return;
        };
        let (mut decoded, mut text) = (Vec::new(), String::new());
        transfer.feed(octets, &mut decoded);
        charset.feed(&decoded, &mut text);
        self.look_at(&text);
    }

    fn finish(&mut self) {
        let (Some(transfer), Some(mut charset)) = (self.transfer.take(), self.charset.take())
        else {
            return;
        };
        let (mut decoded, mut text) = (Vec::new(), String::new());
        transfer.finish(&mut decoded);
        charset.feed(&decoded, &mut text);
        charset.finish(&mut text);
        self.look_at(&text);
    }

    fn look_at(&mut self, text: &str) {
        self.window.push_str(&mime::fold(text));
        self.is_found |= self.window.contains(&self.needle.0);
        let mut passed = self.window.len().saturating_sub(self.needle.0.len());
        while !self.window.is_char_boundary(passed) {
            passed -= 1;
        }
        self.window.drain(..passed);
    }
}

/// Whether any decoded line of a header block contains the text.
fn block_contains(block: &[u8], needle: &Needle) -> bool {
    mime::header_fields(block).any(|field| {
        let name = String::from_utf8_lossy(field.name);
        needle.is_in(&format!("{name}: {}", mime::decode_header(&mime::unfold(field.value))))
    })
}

fn address_text(address: &mime::Address) -> String {
    let part = |part: &Option<Vec<u8>>| {
        part.as_ref().map(|part| mime::decode_header(part)).unwrap_or_default()
    };
    let (name, mailbox, host) = (part(&address.name), part(&address.mailbox), part(&address.host));
    format!("{name} <{mailbox}@{host}>")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fields are found by their place, so they must be where they are looked for.
    #[test]
    fn the_envelope_is_read_as_it_is_written() {
        let raw = b"From: Ann <a@x.test>, c@x.test\r\nTo: b@x.test\r\nCc: d@x.test\r\n\
            Bcc: e@x.test\r\nSubject: =?utf-8?q?h=C3=A9?=\r\nMessage-Id: <1@x.test>\r\n\r\n";
        let row = codec::encode(&mime::scan(raw));
        assert!(!is_excerpt(&row).unwrap());
        assert!(is_excerpt(&codec::encode(&mime::scan(raw).excerpt())).unwrap());
        let read = |name: &str| InEnvelope::of(name).and_then(|field| field.read(&row).unwrap());
        for (name, wanted) in [
            ("From", "Ann <a@x.test>,  <c@x.test>"),
            ("to", " <b@x.test>"),
            ("CC", " <d@x.test>"),
            ("bcc", " <e@x.test>"),
            ("subject", "hé"),
            ("message-id", "<1@x.test>"),
        ] {
            assert_eq!(read(name).as_deref(), Some(wanted), "{name}");
        }
        let row = codec::encode(&mime::scan(b"\r\n"));
        for name in ["from", "to", "cc", "bcc", "subject", "message-id"] {
            assert_eq!(InEnvelope::of(name).unwrap().read(&row).unwrap(), None, "{name}");
        }
    }
}
