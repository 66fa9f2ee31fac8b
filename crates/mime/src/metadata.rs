//! What a message row keeps of a message's content.

use minicbor::{Decode, Encode};

use crate::envelope::Envelope;
use crate::limits::HEADER_BYTES_MAX;
use crate::part::{Part, PartKind};
use crate::sort::SortKeys;

/// A range of octets, counted from the start of the message.
#[derive(Encode, Decode, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// First octet.
    #[n(0)]
    pub start: u64,
    /// First octet after the range.
    #[n(1)]
    pub end: u64,
}

impl Range {
    /// Number of octets.
    pub fn len(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// True if there is no octet in it.
    pub fn is_empty(&self) -> bool {
        self.end <= self.start
    }
}

/// All that is stored about a message's content.
#[derive(Encode, Decode, Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// The ENVELOPE.
    #[n(0)]
    pub envelope: Envelope,
    /// The tree of parts; its root spans the message.
    #[n(1)]
    pub structure: Part,
    /// Keys for SORT, THREAD and the SENT* searches.
    #[n(2)]
    pub sort: SortKeys,
    /// RFC822.SIZE.
    #[n(3)]
    pub size: u64,
    /// True if a part is meant to be saved rather than read.
    #[n(4)]
    pub has_attachment: bool,
    /// RFC 8970: the start of the first text part, in plain words; `None` if there is no text.
    #[n(5)]
    pub preview: Option<String>,
    /// Set in an [`Metadata::excerpt`]: so many octets were put in front of the message after the
    /// whole metadata was made, which is kept elsewhere.
    #[n(6)]
    pub excerpt: Option<u64>,
}

impl Metadata {
    /// The metadata of the same message with trace fields (Return-Path, Delivered-To, Received)
    /// in front of it, equal to a scan of both together.
    ///
    /// `prefix` consists of whole header lines and the message begins with a header field.
    pub fn with_prefix(&self, prefix: &[u8]) -> Metadata {
        self.shifted(prefix.len() as u64)
    }

    /// As [`Metadata::with_prefix`], for a prefix of so many octets.
    pub fn shifted(&self, shift: u64) -> Metadata {
        let mut shifted = self.clone();
        shifted.excerpt = self.excerpt.map(|before| before + shift);
        shifted.size += shift;
        shift_part(&mut shifted.structure, shift);
        shifted.structure.header.start = 0;
        if header_bytes(&shifted.structure) > HEADER_BYTES_MAX {
            shifted.make_opaque();
        }
        shifted
    }

    /// A small part of it, for metadata that is kept elsewhere: sort keys, size and preview as they
    /// are, the envelope cut short, and no structure.
    pub fn excerpt(&self) -> Metadata {
        let mut excerpt = self.clone();
        excerpt.cut();
        excerpt.has_attachment = self.has_attachment;
        excerpt.preview.clone_from(&self.preview);
        excerpt.excerpt = Some(0);
        excerpt
    }

    /// Forgets the structure and all but the beginning of each field of the envelope.
    pub fn cut(&mut self) {
        self.make_opaque();
        self.envelope.cut();
    }

    /// Forgets the structure: the whole body becomes one part of text.
    pub fn make_opaque(&mut self) {
        self.structure.make_opaque();
        self.has_attachment = false;
        self.preview = None;
    }
}

fn shift_part(part: &mut Part, shift: u64) {
    for range in [&mut part.header, &mut part.body] {
        range.start += shift;
        range.end += shift;
    }
    match &mut part.kind {
        PartKind::Leaf => {}
        PartKind::Multipart(children) => {
            children.iter_mut().for_each(|child| shift_part(child, shift));
        }
        PartKind::Message { part, .. } => shift_part(part, shift),
    }
}

/// Octets of all header blocks in the tree.
fn header_bytes(part: &Part) -> u64 {
    let inner = match &part.kind {
        PartKind::Leaf => 0,
        PartKind::Multipart(children) => children.iter().map(header_bytes).sum(),
        PartKind::Message { part, .. } => header_bytes(part),
    };
    part.header.len() + inner
}
