//! What SEARCH reads of one message, as little as the key needs: metadata, then its header, then
//! its text parts, chunk by chunk.

use mime::{CharsetDecoder, Metadata, Part, PartKind, Range, TransferDecoder};

use super::super::messages;
use crate::Bodies;
use crate::chunk::{ChunkRef, unstow};
use crate::ids::AccountId;
use crate::rows::Source;
use crate::state::State;

/// Header fields the metadata holds.
pub(super) fn is_in_metadata(name: &str) -> bool {
    ["subject", "from", "to", "cc", "bcc", "message-id"]
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known))
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
pub(super) struct Candidate<'s> {
    rows: &'s dyn Source,
    bodies: &'s dyn Bodies,
    account: AccountId,
    state: &'s State,
    metadata: Option<Box<Metadata>>,
    chunks: Option<Vec<ChunkRef>>,
    header: Option<Vec<u8>>,
    n_bytes_read: u64,
}

impl<'s> Candidate<'s> {
    pub(super) fn new(
        (rows, bodies): (&'s dyn Source, &'s dyn Bodies),
        account: AccountId,
        state: &'s State,
    ) -> Self {
        let (metadata, chunks, header) = (None, None, None);
        Self { rows, bodies, account, state, metadata, chunks, header, n_bytes_read: 0 }
    }

    pub(super) fn has_read_metadata(&self) -> bool {
        self.metadata.is_some()
    }

    pub(super) fn n_bytes_read(&self) -> u64 {
        self.n_bytes_read
    }

    /// The whole metadata, or the excerpt if no good copy of the whole is at hand.
    pub(super) fn metadata(&mut self) -> &Metadata {
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
        if is_in_metadata(name) {
            return in_envelope(self.metadata(), name).is_some_and(|text| needle.is_in(&text));
        }
        let header = self.header();
        mime::header_fields(header).any(|field| {
            field.name.eq_ignore_ascii_case(name.as_bytes())
                && needle.is_in(&mime::decode_header(&mime::unfold(field.value)))
        })
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

/// What the envelope shows of a header field, as text; `None` if there is no such field.
fn in_envelope(metadata: &Metadata, name: &str) -> Option<String> {
    let envelope = &metadata.envelope;
    let text = |value: &Option<Vec<u8>>| value.as_ref().map(|value| mime::decode_header(value));
    let list = |addresses: &[mime::Address]| {
        let text: Vec<String> = addresses.iter().map(address_text).collect();
        (!addresses.is_empty()).then(|| text.join(", "))
    };
    match name.to_ascii_lowercase().as_str() {
        "subject" => text(&envelope.subject),
        "message-id" => text(&envelope.message_id),
        "from" => list(&envelope.from),
        "to" => list(&envelope.to),
        "cc" => list(&envelope.cc),
        "bcc" => list(&envelope.bcc),
        _ => None,
    }
}

fn address_text(address: &mime::Address) -> String {
    let part = |part: &Option<Vec<u8>>| {
        part.as_ref().map(|part| mime::decode_header(part)).unwrap_or_default()
    };
    let (name, mailbox, host) = (part(&address.name), part(&address.mailbox), part(&address.host));
    format!("{name} <{mailbox}@{host}>")
}
