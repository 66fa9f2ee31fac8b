//! The parts that are open, and how they become the tree.

use crate::envelope::Envelope;
use crate::header::unfold;
use crate::limits::BOUNDARY_BYTES_MAX;
use crate::metadata::Range;
use crate::part::{ContentType, Part, PartKind};
use crate::preview::PreviewSource;
use crate::scanner::Fields;
use crate::token::{self, Budget};
use crate::transfer;

/// A part whose end was not seen yet.
#[derive(Debug)]
pub(super) struct Open {
    /// What is known; its ranges and kind are complete only when it is closed.
    part: Part,
    pub(super) role: Role,
    /// It is a message: the root, or what a message/rfc822 part holds.
    pub(super) is_message: bool,
    /// The envelope of a message inside a message.
    pub(super) envelope: Option<Envelope>,
    pub(super) body_start: u64,
    n_lines_before: u64,
    /// It stands in a multipart/digest, where the default type is message/rfc822.
    is_in_digest: bool,
}

/// What an open part holds.
#[derive(Debug)]
pub(super) enum Role {
    Leaf,
    Multipart { boundary: Vec<u8>, is_ended: bool, children: Vec<Part> },
    Message { inner: Option<Box<(Envelope, Part)>> },
}

/// A delimiter line and the multipart it belongs to.
pub(super) struct Delimiter {
    pub(super) level: usize,
    pub(super) is_last: bool,
}

/// Finds whose delimiter `line` is: of the multipart with the longest boundary that it begins with, since
/// one boundary may begin with another, and of the innermost of several with the same.
///
/// RFC 2046 5.1.1: dashes, boundary, for the last one dashes again; whatever else stands behind it.
pub(super) fn delimiter(open: &[Open], line: &[u8]) -> Option<Delimiter> {
    let line = line.strip_prefix(b"--")?;
    let candidates = open.iter().enumerate().filter_map(|(level, part)| match &part.role {
        Role::Multipart { boundary, is_ended, .. } if line.starts_with(boundary) => {
            Some((boundary.len(), !is_ended, level))
        }
        _ => None,
    });
    let (n_bytes, true, level) = candidates.max()? else { return None };
    Some(Delimiter { level, is_last: line[n_bytes..].starts_with(b"--") })
}

impl Open {
    /// The root message or one in a message/rfc822 part.
    pub(super) fn message(start: u64) -> Open {
        Open { is_message: true, ..Open::part(start, false) }
    }

    /// A part of a multipart.
    pub(super) fn part(start: u64, is_in_digest: bool) -> Open {
        let nowhere = Range { start, end: start };
        Open {
            part: Part::opaque(nowhere, nowhere, 0),
            role: Role::Leaf,
            is_message: false,
            envelope: None,
            body_start: start,
            n_lines_before: 0,
            is_in_digest,
        }
    }

    pub(super) fn starts_at(&self, position: u64) -> bool {
        self.part.header.start == position
    }

    pub(super) fn end_header(&mut self, position: u64, n_lines: u64) {
        self.part.header.end = position;
        self.body_start = position;
        self.n_lines_before = n_lines;
    }

    /// Reads the content fields and decides what the part holds.
    pub(super) fn read(&mut self, fields: &Fields, budget: &mut Budget) {
        let text = |name: &str| fields.value(name).map(|value| unfold(value).into_owned());
        let default = if self.is_in_digest { ("message", "rfc822") } else { ("text", "plain") };
        let part = &mut self.part;
        part.content_type = fields
            .value("content-type")
            .and_then(|value| token::content_type(value, budget))
            .unwrap_or_else(|| ContentType::new(default.0, default.1));
        part.id = text("content-id");
        part.description = text("content-description");
        part.md5 = text("content-md5");
        part.location = text("content-location");
        part.encoding = fields.value("content-transfer-encoding").and_then(token::encoding);
        part.disposition =
            fields.value("content-disposition").and_then(|value| token::disposition(value, budget));
        part.language = fields
            .value("content-language")
            .map(|value| token::languages(value, budget))
            .unwrap_or_default();
        self.role = role(part);
    }

    /// Takes a part that ends inside this one.
    pub(super) fn adopt(&mut self, inner: Open, end: u64, n_lines: u64) {
        match &mut self.role {
            Role::Leaf => {}
            Role::Multipart { children, .. } => children.push(inner.close(end, n_lines)),
            Role::Message { inner: place } => {
                let mut inner = inner;
                let envelope = inner.envelope.take().unwrap_or_default();
                *place = Some(Box::new((envelope, inner.close(end, n_lines))));
            }
        }
    }

    /// The finished part.
    pub(super) fn close(self, end: u64, n_lines: u64) -> Part {
        let mut part = self.part;
        part.body = Range { start: self.body_start, end };
        part.n_lines = n_lines - self.n_lines_before;
        match self.role {
            Role::Multipart { children, .. } if !children.is_empty() => {
                part.kind = PartKind::Multipart(children);
            }
            // RFC 9051 knows no multipart without parts.
            Role::Multipart { .. } => part.content_type = ContentType::new("text", "plain"),
            Role::Message { inner: Some(inner) } => {
                let (envelope, inner) = *inner;
                part.kind =
                    PartKind::Message { envelope: Box::new(envelope), part: Box::new(inner) };
            }
            Role::Message { inner: None } | Role::Leaf => {}
        }
        part
    }

    /// After the last delimiter of a multipart comes its epilogue.
    pub(super) fn end_parts(&mut self) {
        if let Role::Multipart { is_ended, .. } = &mut self.role {
            *is_ended = true;
        }
    }

    pub(super) fn awaits_delimiter(&self) -> bool {
        matches!(self.role, Role::Multipart { is_ended: false, .. })
    }

    pub(super) fn is_digest(&self) -> bool {
        self.part.content_type.is("multipart", "digest")
    }

    /// Something to gather the preview from, if this is text to read.
    pub(super) fn preview_source(&self) -> Option<PreviewSource> {
        let part = &self.part;
        let is_html = part.content_type.is("text", "html");
        let is_text = is_html || part.content_type.is("text", "plain");
        if !is_text || !matches!(self.role, Role::Leaf) {
            return None;
        }
        let encoding = part.encoding.as_deref().unwrap_or_default();
        let charset = part.content_type.charset().unwrap_or_default();
        let mut source = PreviewSource::new(is_html, encoding, &charset)?;
        source.is_attachment = is_attachment(part);
        Some(source)
    }
}

/// What a part with these fields holds. Types that promise parts where none can be found are
/// replaced, since IMAP shows them in another form than a leaf.
fn role(part: &mut Part) -> Role {
    let content_type = &part.content_type;
    if content_type.kind == "multipart" {
        let boundary = content_type
            .parameters
            .iter()
            .find(|parameter| parameter.name == "boundary")
            .map(|parameter| parameter.value.trim_ascii_end().to_vec())
            .or_else(|| content_type.parameter("boundary").map(String::into_bytes))
            .filter(|boundary| (1..=BOUNDARY_BYTES_MAX).contains(&boundary.len()));
        return match boundary {
            Some(boundary) => Role::Multipart { boundary, is_ended: false, children: Vec::new() },
            None => {
                part.content_type = ContentType::new("text", "plain");
                Role::Leaf
            }
        };
    }
    if content_type.is("message", "rfc822") || content_type.is("message", "global") {
        if transfer::is_identity(part.encoding.as_deref().unwrap_or_default()) {
            return Role::Message { inner: None };
        }
        // RFC 2045 6.4: what cannot be looked into is application/octet-stream.
        part.content_type.kind = "application".into();
        part.content_type.subtype = "octet-stream".into();
    }
    Role::Leaf
}

fn is_attachment(part: &Part) -> bool {
    part.disposition.as_ref().is_some_and(|disposition| disposition.kind == "attachment")
}

/// True if some part below `root` is meant to be saved: one that says so, a message, or one that
/// is no text and neither says inline nor belongs to a multipart/related or a signature.
pub(super) fn has_attachment(root: &Part) -> bool {
    let children: &[Part] = match &root.kind {
        PartKind::Multipart(children) => children,
        PartKind::Message { .. } => return true,
        PartKind::Leaf => return is_file(root, false),
    };
    let is_related = root.content_type.is("multipart", "related");
    children.iter().any(|child| match &child.kind {
        PartKind::Leaf => is_file(child, is_related),
        _ => has_attachment(child),
    })
}

fn is_file(part: &Part, is_related: bool) -> bool {
    if is_attachment(part) {
        return true;
    }
    let content_type = &part.content_type;
    let is_signature = content_type.kind == "application"
        && matches!(
            content_type.subtype.as_str(),
            "pgp-signature" | "pgp-encrypted" | "pkcs7-signature" | "x-pkcs7-signature"
        );
    let is_inline = part.disposition.is_some() || is_related;
    content_type.kind != "text" && !is_signature && !is_inline
}
