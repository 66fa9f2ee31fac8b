//! Metadata on its way from a row to whoever asked.

use std::ops::Deref;
use std::sync::OnceLock;

use mime::Metadata;
use minicbor::encode::{Error as EncodeError, Write};
use minicbor::{Decode, Decoder, Encode, Encoder};

use crate::codec;

/// Metadata that is passed on as its row has it: taking it apart and putting it together again would
/// cost a listing more than all the rest. Use it like a [`Metadata`].
#[derive(Clone, Debug)]
pub struct Passed {
    /// Empty if it was read instead.
    row: Vec<u8>,
    read: OnceLock<Box<Metadata>>,
}

impl Passed {
    /// A row of metadata.
    pub(crate) fn row(row: Vec<u8>) -> Self {
        Self { row, read: OnceLock::new() }
    }

    /// Octets of the row.
    pub(crate) fn n_bytes(&self) -> usize {
        self.row.len()
    }

    /// Whether it is an excerpt.
    pub(crate) fn is_excerpt(&self) -> bool {
        Self::may_be_excerpt(&self.row) && self.excerpt.is_some()
    }

    /// Whether a row may be an excerpt. Fields at the end that are not set are not written, so that it
    /// tells by its length when it is none.
    pub(crate) fn may_be_excerpt(row: &[u8]) -> bool {
        let n_fields = Decoder::new(row).array().ok().flatten();
        n_fields.is_none_or(|n_fields| n_fields >= FIELDS_OF_EXCERPT)
    }
}

/// Fields of metadata up to [`Metadata::excerpt`].
const FIELDS_OF_EXCERPT: u64 = 7;

impl From<Metadata> for Passed {
    fn from(metadata: Metadata) -> Self {
        Self { row: Vec::new(), read: OnceLock::from(Box::new(metadata)) }
    }
}

impl Deref for Passed {
    type Target = Metadata;

    fn deref(&self) -> &Metadata {
        let read =
            || codec::decode(&self.row).expect("rows are written by this crate and verified");
        self.read.get_or_init(|| Box::new(read()))
    }
}

impl PartialEq for Passed {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Passed {}

impl<C> Encode<C> for Passed {
    fn encode<W: Write>(
        &self,
        encoder: &mut Encoder<W>,
        context: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        match &self.row[..] {
            [] => Metadata::encode(self, encoder, context),
            row => encoder.writer_mut().write_all(row).map_err(EncodeError::write),
        }
    }
}

impl<'b, C> Decode<'b, C> for Passed {
    fn decode(decoder: &mut Decoder<'b>, context: &mut C) -> Result<Self, minicbor::decode::Error> {
        let read = OnceLock::from(Box::new(Metadata::decode(decoder, context)?));
        Ok(Self { row: Vec::new(), read })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_passed_on_as_it_is() {
        let metadata = mime::scan(b"From: a@example.test\r\nSubject: s\r\n\r\nbody\r\n");
        let row = Passed::row(codec::encode(&metadata));
        assert_eq!(codec::encode(&row), codec::encode(&metadata));
        let read: Passed = codec::decode(&codec::encode(&row)).unwrap();
        assert_eq!(*read, metadata);
        assert_eq!(codec::encode(&read), codec::encode(&metadata));
        assert_eq!(row, read);
        assert!(!row.is_excerpt() && !read.is_excerpt());
        let excerpt = Passed::row(codec::encode(&metadata.excerpt()));
        assert!(excerpt.is_excerpt());
        assert!(Passed::from(metadata.excerpt()).is_excerpt());
    }
}
