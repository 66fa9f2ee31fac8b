//! How a tree of parts is stored: as a flat list, each part before those in it.
//!
//! Why: a decoder that calls itself for each level needs more stack than a thread has, and what
//! is read may be damaged. The list is rebuilt from its end, and one that is too deep is refused.

use minicbor::decode::Error as DecodeError;
use minicbor::encode::{Error as EncodeError, Write};
use minicbor::{Decode, Decoder, Encode, Encoder};

use crate::envelope::Envelope;
use crate::limits::DEPTH_MAX;
use crate::metadata::Range;
use crate::part::{ContentType, Disposition, Part, PartKind};

/// A part without the parts in it.
#[derive(Encode, Decode)]
struct StoredPart {
    #[n(0)]
    header: Range,
    #[n(1)]
    body: Range,
    #[n(2)]
    n_lines: u64,
    #[n(3)]
    content_type: ContentType,
    #[n(4)]
    holds: Holds,
    #[n(5)]
    encoding: Option<String>,
    #[n(6)]
    disposition: Option<Disposition>,
    #[cbor(n(7), with = "minicbor::bytes")]
    id: Option<Vec<u8>>,
    #[cbor(n(8), with = "minicbor::bytes")]
    description: Option<Vec<u8>>,
    #[cbor(n(9), with = "minicbor::bytes")]
    md5: Option<Vec<u8>>,
    #[n(10)]
    language: Option<Vec<String>>,
    #[cbor(n(11), with = "minicbor::bytes")]
    location: Option<Vec<u8>>,
}

/// How many of the parts that follow are in this one.
#[derive(Encode, Decode)]
enum Holds {
    #[n(0)]
    Nothing,
    #[n(1)]
    Parts(#[n(0)] u32),
    #[n(2)]
    Message(#[n(0)] Box<Envelope>),
}

impl<C> Encode<C> for Part {
    fn encode<W: Write>(
        &self,
        encoder: &mut Encoder<W>,
        context: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        let mut list = Vec::new();
        self.walk(&mut |part| list.push(part));
        encoder.array(list.len() as u64)?;
        list.into_iter().try_for_each(|part| StoredPart::from(part).encode(encoder, context))
    }
}

impl<'b, C> Decode<'b, C> for Part {
    fn decode(decoder: &mut Decoder<'b>, context: &mut C) -> Result<Self, DecodeError> {
        let list: Vec<StoredPart> = Decode::decode(decoder, context)?;
        rebuild(list).ok_or_else(|| DecodeError::message("no tree of parts"))
    }
}

fn rebuild(list: Vec<StoredPart>) -> Option<Part> {
    // From the end, so that the parts in a part stand ready, the first of them on top; each with
    // the number of levels it spans.
    let mut ready: Vec<(Part, usize)> = Vec::new();
    for stored in list.into_iter().rev() {
        let n_inside = match stored.holds {
            Holds::Nothing => 0,
            Holds::Parts(0) => return None,
            Holds::Parts(n_parts) => usize::try_from(n_parts).ok()?,
            Holds::Message(_) => 1,
        };
        let inside = ready.split_off(ready.len().checked_sub(n_inside)?);
        let n_levels = 1 + inside.iter().map(|(_, n_levels)| *n_levels).max().unwrap_or(0);
        if n_levels > DEPTH_MAX {
            return None;
        }
        let inside = inside.into_iter().rev().map(|(part, _)| part);
        ready.push((stored.holding(inside)?, n_levels));
    }
    let (root, _) = ready.pop()?;
    ready.is_empty().then_some(root)
}

impl StoredPart {
    fn holding(self, mut inside: impl Iterator<Item = Part>) -> Option<Part> {
        let kind = match self.holds {
            Holds::Nothing => PartKind::Leaf,
            Holds::Parts(_) => PartKind::Multipart(inside.collect()),
            Holds::Message(envelope) => {
                PartKind::Message { envelope, part: Box::new(inside.next()?) }
            }
        };
        Some(Part {
            header: self.header,
            body: self.body,
            n_lines: self.n_lines,
            content_type: self.content_type,
            kind,
            id: self.id,
            description: self.description,
            encoding: self.encoding,
            md5: self.md5,
            disposition: self.disposition,
            language: self.language.unwrap_or_default(),
            location: self.location,
        })
    }
}

impl From<&Part> for StoredPart {
    fn from(part: &Part) -> StoredPart {
        let holds = match &part.kind {
            PartKind::Leaf => Holds::Nothing,
            // Invariant: a message has at most PARTS_MAX parts.
            PartKind::Multipart(children) => Holds::Parts(children.len() as u32),
            PartKind::Message { envelope, .. } => Holds::Message(envelope.clone()),
        };
        StoredPart {
            header: part.header,
            body: part.body,
            n_lines: part.n_lines,
            content_type: part.content_type.clone(),
            holds,
            encoding: part.encoding.clone(),
            disposition: part.disposition.clone(),
            id: part.id.clone(),
            description: part.description.clone(),
            md5: part.md5.clone(),
            language: (!part.language.is_empty()).then(|| part.language.clone()),
            location: part.location.clone(),
        }
    }
}
