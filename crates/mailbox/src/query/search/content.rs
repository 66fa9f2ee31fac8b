//! What SEARCH reads of one message, as little as the key needs: metadata, then its header, then
//! its text parts, chunk by chunk. Each is read once, for all keys that look there.

use std::collections::BTreeMap;

use bytes::Bytes;
use memchr::memmem;
use mime::limits::HEADER_BYTES_MAX;
use mime::{CharsetDecoder, Metadata, Part, PartKind, Range, TransferDecoder};

use super::super::briefs::Briefs;
use super::super::messages;
use super::super::prefetch::Prefetch;
use super::texts::InEnvelope;
use crate::Bodies;
use crate::answer::Passed;
use crate::chunk::{ChunkRef, unstow};
use crate::codec;
use crate::ids::AccountId;
use crate::rows::Source;
use crate::state::State;

/// Text to look for, folded.
pub(super) struct Needle(memmem::Finder<'static>);

impl Needle {
    pub(super) fn new(text: &str) -> Self {
        Self(memmem::Finder::new(&mime::fold(text)).into_owned())
    }

    fn is_empty(&self) -> bool {
        self.0.needle().is_empty()
    }

    /// Whether it is in a text, which is folded where it is.
    fn is_in_scratch(&self, text: &mut String) -> bool {
        mime::fold_in_place(text);
        self.is_in_folded(text.as_bytes())
    }

    fn is_in_folded(&self, text: &[u8]) -> bool {
        self.0.find(text).is_some()
    }
}

/// What the keys of a search look for in messages.
#[derive(Default)]
pub(super) struct Sought {
    /// Names of header fields in lower case, each with its place among them.
    fields: BTreeMap<Vec<u8>, usize>,
    body: Vec<Needle>,
    message: Vec<Needle>,
}

impl Sought {
    /// A header field; its place.
    pub(super) fn field(&mut self, name: &str) -> usize {
        let n_fields = self.fields.len();
        *self.fields.entry(name.to_ascii_lowercase().into_bytes()).or_insert(n_fields)
    }

    /// A text of BODY; its place.
    pub(super) fn in_body(&mut self, text: &str) -> usize {
        self.body.push(Needle::new(text));
        self.body.len() - 1
    }

    /// A text of TEXT; its place.
    pub(super) fn in_message(&mut self, text: &str) -> usize {
        self.message.push(Needle::new(text));
        self.message.len() - 1
    }
}

/// Texts that are looked for in one reading, and which of them were found.
struct Hunt<'n> {
    needles: &'n [Needle],
    found: Vec<bool>,
}

impl<'n> Hunt<'n> {
    /// Nothing is in every message.
    fn new(needles: &'n [Needle]) -> Self {
        Self { needles, found: needles.iter().map(Needle::is_empty).collect() }
    }

    fn is_over(&self) -> bool {
        self.found.iter().all(|found| *found)
    }

    fn look_at(&mut self, text: &str) {
        self.look_at_folded(mime::fold(text).as_bytes());
    }

    fn look_at_folded(&mut self, text: &[u8]) {
        for (needle, found) in self.needles.iter().zip(&mut self.found) {
            *found = *found || needle.is_in_folded(text);
        }
    }

    /// Octets of the longest text.
    fn longest(&self) -> usize {
        self.needles.iter().map(|needle| needle.0.needle().len()).max().unwrap_or(0)
    }
}

/// Stands between the values of a field that is there more than once: no key has it in its text.
const BETWEEN_VALUES: char = '\0';

/// Where candidates are read, one after the other.
pub(super) struct Reader<'s> {
    rows: &'s dyn Source,
    bodies: &'s dyn Bodies,
    account: AccountId,
    briefs: Briefs<'s>,
    prefetch: Prefetch<'s>,
    /// What was read last, so that not each message needs memory of its own.
    text: String,
}

impl<'s> Reader<'s> {
    pub(super) fn new(rows: &'s dyn Source, bodies: &'s dyn Bodies, account: AccountId) -> Self {
        let briefs = Briefs::new(rows, account, super::BRIEFS);
        let prefetch = Prefetch::new(rows, account);
        Self { rows, bodies, account, briefs, prefetch, text: String::new() }
    }
}

/// Where a text is looked for below the header of a message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Where {
    /// In bodies, and in the headers of messages within, which are body too.
    Bodies,
    /// In the headers of parts as well (RFC 9051 6.4.4: TEXT includes MIME header fields).
    Everywhere,
}

/// One message under a search.
pub(super) struct Candidate<'c, 's> {
    reader: &'c mut Reader<'s>,
    sought: &'c Sought,
    state: &'c State,
    metadata: Option<Box<Metadata>>,
    has_read_metadata: bool,
    chunks: Option<Vec<ChunkRef>>,
    header: Option<Vec<u8>>,
    /// Of each field sought what it says, folded, if it is there.
    fields: Option<Vec<Option<String>>>,
    /// Which of the texts sought are in the body, and in the message.
    in_body: Option<Vec<bool>>,
    in_message: Option<Vec<bool>>,
    /// The chunk read last: the header of a part and its body mostly lie in one.
    chunk: Option<(ChunkRef, Bytes)>,
    n_bytes_read: u64,
}

impl<'c, 's> Candidate<'c, 's> {
    pub(super) fn new(reader: &'c mut Reader<'s>, sought: &'c Sought, state: &'c State) -> Self {
        Self {
            reader,
            sought,
            state,
            metadata: None,
            has_read_metadata: false,
            chunks: None,
            header: None,
            fields: None,
            in_body: None,
            in_message: None,
            chunk: None,
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
        let Reader { rows, bodies, account, .. } = *self.reader;
        let email = self.state.email;
        let n_bytes_read = &mut self.n_bytes_read;
        self.metadata.get_or_insert_with(|| {
            let metadata = messages::metadata(rows, account, email);
            if metadata.excerpt.is_none() {
                return metadata;
            }
            let content = messages::content(rows, account, email);
            let octets = content.split().1.iter().map(|chunk| bodies.chunk(chunk));
            let octets: Option<Vec<_>> = octets.collect();
            let octets = octets.unwrap_or_default().concat();
            *n_bytes_read += octets.len() as u64;
            unstow(&metadata, &octets).map_or(metadata, Box::new)
        })
    }

    /// HEADER, and SUBJECT, FROM, ... which are short for it.
    pub(super) fn header_contains(&mut self, name: &str, at: usize, needle: &Needle) -> bool {
        if let Some(field) = InEnvelope::of(name) {
            let is_in = self.is_in(field, needle).expect("rows are verified when read");
            // RFC 9051 6.4.4: nothing matches any field, also one that is empty or no list of addresses.
            if is_in || !needle.is_empty() {
                return is_in;
            }
        }
        self.field_contains(at, needle)
    }

    /// The same of the field as it is written.
    pub(super) fn field_contains(&mut self, at: usize, needle: &Needle) -> bool {
        let fields = match self.fields.take() {
            Some(fields) => fields,
            None => self.read_fields(),
        };
        let is_in = |text: &String| needle.is_empty() || needle.is_in_folded(text.as_bytes());
        let contains = fields[at].as_ref().is_some_and(is_in);
        self.fields = Some(fields);
        contains
    }

    fn read_fields(&mut self) -> Vec<Option<String>> {
        let sought = &self.sought.fields;
        let mut fields: Vec<Option<String>> = vec![None; sought.len()];
        let mut name = Vec::new();
        for field in mime::header_fields(self.header()) {
            name.clear();
            name.extend(field.name.iter().map(u8::to_ascii_lowercase));
            let Some(at) = sought.get(&name) else { continue };
            let text = fields[*at].get_or_insert_default();
            text.push_str(&mime::fold(&mime::decode_header(&mime::unfold(field.value))));
            text.push(BETWEEN_VALUES);
        }
        fields
    }

    /// Whether a field of the envelope contains the text; an excerpt's may be cut short.
    fn is_in(
        &mut self,
        field: InEnvelope,
        needle: &Needle,
    ) -> Result<bool, minicbor::decode::Error> {
        self.has_read_metadata = true;
        let Reader { briefs, prefetch, text, .. } = &mut *self.reader;
        if let Some(brief) = briefs.find(self.state.email) {
            return Ok(field.find(brief).is_some_and(|text| needle.is_in_folded(text)));
        }
        text.clear();
        let is_there = prefetch.read(self.state.email, |row| {
            (!Passed::may_be_excerpt(row)).then(|| field.read(row, text))
        });
        let is_there = match is_there {
            Some(is_there) => is_there?,
            None => {
                let whole = codec::encode(self.metadata());
                field.read(&whole, &mut self.reader.text)?
            }
        };
        Ok(is_there && needle.is_in_scratch(&mut self.reader.text))
    }

    /// BODY: the text parts, decoded; and the headers of messages within.
    pub(super) fn body_contains(&mut self, at: usize) -> bool {
        if self.in_body.is_none() {
            let mut hunt = Hunt::new(&self.sought.body);
            if !hunt.is_over() {
                let metadata = self.metadata().clone();
                self.look_in_part(&metadata.structure, &mut hunt, Where::Bodies);
            }
            self.in_body = Some(hunt.found);
        }
        self.in_body.as_ref().is_some_and(|found| found[at])
    }

    /// TEXT: the header, those of the parts, or the body.
    pub(super) fn text_contains(&mut self, at: usize) -> bool {
        if self.in_message.is_none() {
            let mut hunt = Hunt::new(&self.sought.message);
            if !hunt.is_over() {
                look_in_block(self.header(), &mut hunt);
            }
            if !hunt.is_over() {
                let metadata = self.metadata().clone();
                look_at_file_name(&metadata.structure, &mut hunt);
                self.look_in_part(&metadata.structure, &mut hunt, Where::Everywhere);
            }
            self.in_message = Some(hunt.found);
        }
        self.in_message.as_ref().is_some_and(|found| found[at])
    }

    fn look_in_part(&mut self, part: &Part, hunt: &mut Hunt<'_>, place: Where) {
        if hunt.is_over() {
            return;
        }
        match &part.kind {
            PartKind::Leaf if is_text(part) => self.look_in_leaf(part, hunt),
            PartKind::Leaf => {}
            PartKind::Multipart(children) => {
                for child in children {
                    if place == Where::Everywhere {
                        self.look_in_fields(child, hunt);
                    }
                    self.look_in_part(child, hunt, place);
                }
            }
            PartKind::Message { part, .. } => {
                self.look_in_fields(part, hunt);
                self.look_in_part(part, hunt, place);
            }
        }
    }

    /// The header of a part or of a message within.
    fn look_in_fields(&mut self, part: &Part, hunt: &mut Hunt<'_>) {
        if part.header.is_empty() || hunt.is_over() {
            return;
        }
        let header = self.octets(part.header);
        look_in_block(&header, hunt);
        look_at_file_name(part, hunt);
    }

    fn look_in_leaf(&mut self, part: &Part, hunt: &mut Hunt<'_>) {
        let encoding = part.encoding.as_deref().unwrap_or("7bit");
        // What nobody can decode is searched as it is: often it is plain text, wrongly labelled.
        let transfer = TransferDecoder::new(encoding).or_else(|| TransferDecoder::new("binary"));
        let charset = part.content_type.charset().unwrap_or_default();
        let mut finder = Finder {
            transfer,
            charset: Some(CharsetDecoder::new(&charset)),
            n_kept: hunt.longest(),
            hunt,
            window: String::new(),
        };
        self.visit(part.body, &mut |octets| {
            finder.feed(octets);
            !finder.hunt.is_over()
        });
        finder.finish();
    }

    /// Limit: of the message's own header as much as all headers of parts may have.
    fn header(&mut self) -> &[u8] {
        if self.header.is_none() {
            let Range { start, end } = self.metadata().structure.header;
            let end = end.min(start.saturating_add(HEADER_BYTES_MAX));
            self.header = Some(self.octets(Range { start, end }));
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
            let Reader { rows, account, .. } = *self.reader;
            let content = messages::content(rows, account, self.state.email);
            content.split().0.to_vec()
        });
        let mut at: u64 = 0;
        for chunk in &chunks {
            let (begin, end) = (at, at + u64::from(chunk.raw_len));
            at = end;
            if end <= range.start || begin >= range.end {
                continue;
            }
            let Some(bytes) = self.chunk(chunk) else {
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

    fn chunk(&mut self, wanted: &ChunkRef) -> Option<Bytes> {
        if let Some((chunk, bytes)) = &self.chunk
            && chunk == wanted
        {
            return Some(bytes.clone());
        }
        let bytes = self.reader.bodies.chunk(wanted)?;
        self.chunk = Some((*wanted, bytes.clone()));
        Some(bytes)
    }
}

/// Finds texts in octets that pass by, decoded.
struct Finder<'h, 'n> {
    transfer: Option<TransferDecoder>,
    charset: Option<CharsetDecoder>,
    hunt: &'h mut Hunt<'n>,
    /// Folded text that was not passed yet: enough for a match that goes on.
    window: String,
    n_kept: usize,
}

impl Finder<'_, '_> {
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
        self.hunt.look_at_folded(self.window.as_bytes());
        let mut passed = self.window.len().saturating_sub(self.n_kept);
        while !self.window.is_char_boundary(passed) {
            passed -= 1;
        }
        self.window.drain(..passed);
    }
}

/// Whether a part is text to read. Of the messages those are whose structure is not looked into, as the
/// parts of a report are (RFC 3464): they are lines of text too.
fn is_text(part: &Part) -> bool {
    matches!(part.content_type.kind.as_str(), "text" | "message")
}

/// Looks at the name of a file: RFC 2231 hides it from whoever reads the field.
fn look_at_file_name(part: &Part, hunt: &mut Hunt<'_>) {
    if let Some(name) = part.file_name() {
        hunt.look_at(&name);
    }
}

/// Looks at each decoded line of a header block.
fn look_in_block(block: &[u8], hunt: &mut Hunt<'_>) {
    let mut n_bytes = 0;
    for field in mime::header_fields(block) {
        if hunt.is_over() {
            return;
        }
        n_bytes += field.raw.len();
        let name = String::from_utf8_lossy(field.name);
        hunt.look_at(&format!("{name}: {}", mime::decode_header(&mime::unfold(field.value))));
    }
    // Lines that are no fields: BODY[HEADER] shows them, so TEXT finds them.
    if n_bytes < block.trim_ascii_end().len() {
        for line in block.split(|byte| *byte == b'\n') {
            hunt.look_at(&mime::decode_header(line));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::texts::make_brief;
    use super::*;

    /// The fields are found by their place, so they must be where they are looked for.
    #[test]
    fn the_envelope_is_read_as_it_is_written() {
        let raw = b"From: Ann <a@x.test>, c@x.test\r\nTo: b@x.test\r\nCc: d@x.test\r\n\
            Bcc: e@x.test\r\nSubject: =?utf-8?q?h=C3=A9?=\r\nMessage-Id: <1@x.test>\r\n\r\n";
        let row = codec::encode(&mime::scan(raw));
        let read = |row: &[u8], name: &str| {
            let mut text = String::new();
            let field = InEnvelope::of(name).expect("the envelope has it");
            let read = field.read(row, &mut text).unwrap().then_some(text);
            let mut brief = Vec::new();
            make_brief(row, &mut brief);
            let in_brief = field.find(&brief).map(|text| String::from_utf8_lossy(text));
            assert_eq!(in_brief.as_deref(), read.as_deref().map(mime::fold).as_deref());
            read
        };
        for (name, wanted) in [
            ("From", "Ann <a@x.test>,  <c@x.test>"),
            ("to", " <b@x.test>"),
            ("CC", " <d@x.test>"),
            ("bcc", " <e@x.test>"),
            ("subject", "hé"),
            ("message-id", "<1@x.test>"),
        ] {
            assert_eq!(read(&row, name).as_deref(), Some(wanted), "{name}");
        }
        let row = codec::encode(&mime::scan(b"\r\n"));
        for name in ["from", "to", "cc", "bcc", "subject", "message-id"] {
            assert_eq!(read(&row, name), None, "{name}");
        }
    }
}
