//! One MIME part and the tree of parts.

use minicbor::{Decode, Encode};

use crate::envelope::Envelope;
use crate::metadata::Range;
use crate::word::decode_parameter;

/// One part of a message, or the message itself.
///
/// Header values are kept as they were written, unfolded, since IMAP hands them out so; types,
/// parameter names, encodings and disposition kinds are lower-cased. As in the ENVELOPE, no value
/// has CR, LF or NUL in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The header block with the blank line that ends it, if there is one.
    pub header: Range,
    /// The body. The line end before a delimiter line belongs to the delimiter.
    pub body: Range,
    /// Line feeds in the body: a last line without one is not counted, as other servers do.
    pub n_lines: u64,
    /// What is in it; never empty, the default is text/plain.
    pub content_type: ContentType,
    /// What it holds.
    pub kind: PartKind,
    /// Content-Id.
    pub id: Option<Vec<u8>>,
    /// Content-Description.
    pub description: Option<Vec<u8>>,
    /// Content-Transfer-Encoding; `None` means 7bit.
    pub encoding: Option<String>,
    /// Content-MD5.
    pub md5: Option<Vec<u8>>,
    /// Content-Disposition.
    pub disposition: Option<Disposition>,
    /// Content-Language.
    pub language: Vec<String>,
    /// Content-Location.
    pub location: Option<Vec<u8>>,
}

/// What a part holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartKind {
    /// Octets.
    Leaf,
    /// At least one part.
    Multipart(Vec<Part>),
    /// A message, not transfer-encoded.
    Message {
        /// The ENVELOPE of the message within.
        envelope: Box<Envelope>,
        /// The message within: its header and body.
        part: Box<Part>,
    },
}

/// A Content-Type.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
pub struct ContentType {
    /// The type, lower case: `text`.
    #[n(0)]
    pub kind: String,
    /// The subtype, lower case: `plain`.
    #[n(1)]
    pub subtype: String,
    /// The parameters as they were written (RFC 2231 pieces are not joined).
    #[n(2)]
    pub parameters: Vec<Parameter>,
}

/// A parameter of a Content-Type or Content-Disposition.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// The name, lower case.
    #[n(0)]
    pub name: String,
    /// The value without quotes.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub value: Vec<u8>,
}

/// A Content-Disposition.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
pub struct Disposition {
    /// The kind, lower case: `attachment`.
    #[n(0)]
    pub kind: String,
    /// Its parameters as they were written.
    #[n(1)]
    pub parameters: Vec<Parameter>,
}

impl ContentType {
    /// A type without parameters.
    pub(crate) fn new(kind: &str, subtype: &str) -> ContentType {
        ContentType { kind: kind.into(), subtype: subtype.into(), parameters: Vec::new() }
    }

    /// True for this type and subtype, both given in lower case.
    pub fn is(&self, kind: &str, subtype: &str) -> bool {
        self.kind == kind && self.subtype == subtype
    }

    /// The decoded value of a parameter (RFC 2231 pieces joined, RFC 2047 words tolerated).
    pub fn parameter(&self, name: &str) -> Option<String> {
        decode_parameter(&self.parameters, name)
    }

    /// The charset of a text part.
    pub fn charset(&self) -> Option<String> {
        self.parameter("charset")
    }
}

impl Disposition {
    /// The decoded value of a parameter.
    pub fn parameter(&self, name: &str) -> Option<String> {
        decode_parameter(&self.parameters, name)
    }
}

impl Part {
    /// The part with an IMAP part number; of a message's root, RFC 9051 6.4.5.1.
    ///
    /// The empty path is the root. `1` of a message that is no multipart is its body, so it gives
    /// the root again. Numbers below a [`PartKind::Message`] count the parts of that message.
    pub fn find(&self, path: &[u32]) -> Option<&Part> {
        find_in_message(self, path)
    }

    /// The decoded file name, if the part has one.
    pub fn file_name(&self) -> Option<String> {
        self.disposition
            .as_ref()
            .and_then(|disposition| disposition.parameter("filename"))
            .or_else(|| self.content_type.parameter("name"))
    }

    /// The first octet of header and the first after body.
    pub fn whole(&self) -> Range {
        Range { start: self.header.start, end: self.body.end }
    }

    /// Calls `visit` for this part and all below it, in order.
    pub fn walk<'a>(&'a self, visit: &mut impl FnMut(&'a Part)) {
        visit(self);
        match &self.kind {
            PartKind::Leaf => {}
            PartKind::Multipart(children) => {
                children.iter().for_each(|child| child.walk(visit));
            }
            PartKind::Message { part, .. } => part.walk(visit),
        }
    }

    /// Turns the part into one run of text, its ranges kept.
    pub(crate) fn make_opaque(&mut self) {
        let (header, body, n_lines) = (self.header, self.body, self.n_lines);
        *self = Part::opaque(header, body, n_lines);
    }

    /// A text part about which nothing but its place is known.
    pub(crate) fn opaque(header: Range, body: Range, n_lines: u64) -> Part {
        Part {
            header,
            body,
            n_lines,
            content_type: ContentType::new("text", "plain"),
            kind: PartKind::Leaf,
            id: None,
            description: None,
            encoding: None,
            md5: None,
            disposition: None,
            language: Vec::new(),
            location: None,
        }
    }
}

fn find_in_message<'a>(top: &'a Part, path: &[u32]) -> Option<&'a Part> {
    match (path, &top.kind) {
        ([], _) => Some(top),
        ([number, rest @ ..], PartKind::Multipart(children)) => {
            find_below(children.get(index_of(*number)?)?, rest)
        }
        ([1, rest @ ..], _) => find_below(top, rest),
        _ => None,
    }
}

fn find_below<'a>(part: &'a Part, path: &[u32]) -> Option<&'a Part> {
    match (path, &part.kind) {
        ([], _) => Some(part),
        (_, PartKind::Leaf) => None,
        (_, PartKind::Multipart(_)) => find_in_message(part, path),
        (_, PartKind::Message { part, .. }) => find_in_message(part, path),
    }
}

fn index_of(number: u32) -> Option<usize> {
    usize::try_from(number).ok()?.checked_sub(1)
}
