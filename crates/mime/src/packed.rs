//! An ENVELOPE and whole metadata as they are stored, read where they lie: a listing of thousands makes no
//! copies, and what a message's metadata say is encoded once, wherever they go.

use minicbor::decode::Error as DecodeError;
use minicbor::encode::{Error as EncodeError, Write};
use minicbor::{Decode, Decoder, Encode, Encoder};

use crate::envelope::Envelope;
use crate::metadata::Metadata;

/// An encoded [`Envelope`]; it passes through encoders and decoders as it is.
///
/// Invariant: it is a whole one; who made it looked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedEnvelope(Box<[u8]>);

impl PackedEnvelope {
    /// The envelope of encoded [`Metadata`](crate::Metadata).
    pub fn of_metadata(metadata: &[u8]) -> Result<Self, DecodeError> {
        let mut decoder = Decoder::new(metadata);
        // The envelope is the first of its fields.
        decoder.array()?;
        decoder.decode()
    }

    /// One again of what [`Self::octets`] gave.
    pub fn of_octets(octets: &[u8]) -> Self {
        Self(octets.into())
    }

    /// As it is stored.
    pub fn octets(&self) -> &[u8] {
        &self.0
    }

    /// What is in it.
    pub fn read(&self) -> EnvelopeRef<'_> {
        Decoder::new(&self.0).decode().expect("whoever made it has read it")
    }
}

impl From<&Envelope> for PackedEnvelope {
    fn from(envelope: &Envelope) -> Self {
        let octets = minicbor::to_vec(envelope).expect("writing to a Vec does not fail");
        Self(octets.into())
    }
}

impl<C> Encode<C> for PackedEnvelope {
    fn encode<W: Write>(
        &self,
        encoder: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        encoder.writer_mut().write_all(&self.0).map_err(EncodeError::write)
    }
}

impl<'b, C> Decode<'b, C> for PackedEnvelope {
    fn decode(decoder: &mut Decoder<'b>, context: &mut C) -> Result<Self, DecodeError> {
        let octets = passed(decoder, |decoder| EnvelopeRef::decode(decoder, context).map(drop))?;
        Ok(Self(octets.into()))
    }
}

/// An [`Envelope`] that refers to where it is stored.
#[derive(Decode, Clone, Copy, Debug)]
pub struct EnvelopeRef<'b> {
    /// Date.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub date: Option<&'b [u8]>,
    /// Subject.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub subject: Option<&'b [u8]>,
    /// From.
    #[b(2)]
    pub from: Addresses<'b>,
    /// Sender; From if there is none.
    #[b(3)]
    pub sender: Addresses<'b>,
    /// Reply-To; From if there is none.
    #[b(4)]
    pub reply_to: Addresses<'b>,
    /// To.
    #[b(5)]
    pub to: Addresses<'b>,
    /// Cc.
    #[b(6)]
    pub cc: Addresses<'b>,
    /// Bcc.
    #[b(7)]
    pub bcc: Addresses<'b>,
    /// In-Reply-To.
    #[cbor(n(8), with = "minicbor::bytes")]
    pub in_reply_to: Option<&'b [u8]>,
    /// Message-Id.
    #[cbor(n(9), with = "minicbor::bytes")]
    pub message_id: Option<&'b [u8]>,
}

/// An [`Address`](crate::Address) that refers to where it is stored.
#[derive(Decode, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddressRef<'b> {
    /// The personal name.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub name: Option<&'b [u8]>,
    /// The at-domain-list of a source route.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub adl: Option<&'b [u8]>,
    /// The local part, unquoted.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub mailbox: Option<&'b [u8]>,
    /// The domain.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub host: Option<&'b [u8]>,
}

/// A list of addresses where it is stored.
///
/// Invariant: as many addresses as it says; who made it looked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Addresses<'b> {
    n_left: u64,
    octets: &'b [u8],
}

impl Addresses<'_> {
    /// Whether there is none left.
    pub fn is_empty(&self) -> bool {
        self.n_left == 0
    }
}

impl<'b, C> Decode<'b, C> for Addresses<'b> {
    fn decode(decoder: &mut Decoder<'b>, context: &mut C) -> Result<Self, DecodeError> {
        let n_left = decoder.array()?.ok_or_else(|| DecodeError::message("a list without end"))?;
        let octets = passed(decoder, |decoder| {
            (0..n_left).try_for_each(|_| AddressRef::decode(decoder, context).map(drop))
        })?;
        Ok(Self { n_left, octets })
    }
}

impl<'b> Iterator for Addresses<'b> {
    type Item = AddressRef<'b>;

    fn next(&mut self) -> Option<AddressRef<'b>> {
        self.n_left = self.n_left.checked_sub(1)?;
        let mut decoder = Decoder::new(self.octets);
        let address = decoder.decode().expect("whoever made it has read it");
        self.octets = &self.octets[decoder.position()..];
        Some(address)
    }
}

/// Encoded [`Metadata`]; it passes through encoders and decoders as it is. Whoever lets it in from outside
/// asks [`Self::is_sound`] first: to decode it only finds where it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedMetadata(Box<[u8]>);

impl PackedMetadata {
    /// As it is stored.
    pub fn octets(&self) -> &[u8] {
        &self.0
    }

    /// What is in it.
    pub fn read(&self) -> Result<Metadata, DecodeError> {
        minicbor::decode(&self.0)
    }

    /// Whether it can be read.
    pub fn is_sound(&self) -> bool {
        self.read().is_ok()
    }
}

impl From<&Metadata> for PackedMetadata {
    fn from(metadata: &Metadata) -> Self {
        let octets = minicbor::to_vec(metadata).expect("writing to a Vec does not fail");
        Self(octets.into())
    }
}

impl<C> Encode<C> for PackedMetadata {
    fn encode<W: Write>(
        &self,
        encoder: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        encoder.writer_mut().write_all(&self.0).map_err(EncodeError::write)
    }
}

impl<'b, C> Decode<'b, C> for PackedMetadata {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, DecodeError> {
        passed(decoder, Decoder::skip).map(|octets| Self(octets.into()))
    }
}

/// What sets a message among others, of encoded [`Metadata`], without reading the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relations<'b> {
    /// See [`SortKeys`](crate::SortKeys).
    pub date_unix_s: Option<i64>,
    /// See [`SortKeys`](crate::SortKeys).
    pub date_zone_min: i32,
    /// See [`SortKeys`](crate::SortKeys).
    pub message_id: Option<&'b str>,
    /// See [`SortKeys`](crate::SortKeys).
    pub references: Vec<&'b str>,
}

impl<'b> Relations<'b> {
    /// Of encoded metadata.
    pub fn of_metadata(metadata: &'b [u8]) -> Result<Self, DecodeError> {
        let OfMetadata { sort } = minicbor::decode(metadata)?;
        let OfSortKeys { date_unix_s, date_zone_min, message_id, references } = sort;
        Ok(Self { date_unix_s, date_zone_min, message_id, references })
    }
}

/// Of [`Metadata`], under the same numbers; the derived decoder passes over the others.
#[derive(Decode)]
struct OfMetadata<'b> {
    #[b(2)]
    sort: OfSortKeys<'b>,
}

/// Of [`SortKeys`](crate::SortKeys), likewise.
#[derive(Decode)]
struct OfSortKeys<'b> {
    #[n(0)]
    date_unix_s: Option<i64>,
    #[n(1)]
    date_zone_min: i32,
    #[b(9)]
    message_id: Option<&'b str>,
    #[b(10)]
    references: Vec<&'b str>,
}

/// The octets that `pass` goes over.
fn passed<'b>(
    decoder: &mut Decoder<'b>,
    pass: impl FnOnce(&mut Decoder<'b>) -> Result<(), DecodeError>,
) -> Result<&'b [u8], DecodeError> {
    let begin = decoder.position();
    pass(decoder)?;
    let octets = decoder.input().get(begin..decoder.position());
    octets.ok_or_else(DecodeError::end_of_input)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Address, Metadata, scan};

    /// What a reader of the packed one makes of it.
    fn unpacked(packed: &EnvelopeRef<'_>) -> Envelope {
        let own = |octets: Option<&[u8]>| octets.map(<[u8]>::to_vec);
        let list = |list: Addresses<'_>| {
            list.map(|address| Address {
                name: own(address.name),
                adl: own(address.adl),
                mailbox: own(address.mailbox),
                host: own(address.host),
            })
            .collect()
        };
        Envelope {
            date: own(packed.date),
            subject: own(packed.subject),
            from: list(packed.from),
            sender: list(packed.sender),
            reply_to: list(packed.reply_to),
            to: list(packed.to),
            cc: list(packed.cc),
            bcc: list(packed.bcc),
            in_reply_to: own(packed.in_reply_to),
            message_id: own(packed.message_id),
        }
    }

    fn metadata() -> [Metadata; 3] {
        [
            &b"\r\n"[..],
            b"From: a@x.test\r\nMessage-Id: <1@x.test>\r\n\r\nbody\r\n",
            b"Date: Thu, 1 Jan 1970 00:00:00 +0000\r\nSubject: \xff\r\nFrom: Ann <@r:a@x.test>\r\n\
                To: crowd: b@x.test, \"B\" <c@x.test>;, lonely\r\nCc: d@x.test\r\n\
                Bcc: e@x.test\r\nReply-To: f@x.test\r\nIn-Reply-To: <0@x.test>\r\n\r\n",
        ]
        .map(scan)
    }

    #[test]
    fn a_packed_envelope_is_the_envelope() {
        for metadata in metadata() {
            let packed = PackedEnvelope::from(&metadata.envelope);
            assert_eq!(unpacked(&packed.read()), metadata.envelope);
            let row = minicbor::to_vec(&metadata).unwrap();
            assert_eq!(PackedEnvelope::of_metadata(&row).unwrap(), packed);
            let sent = minicbor::to_vec([&packed, &packed]).unwrap();
            let read: [PackedEnvelope; 2] = minicbor::decode(&sent).unwrap();
            assert_eq!(read, [packed.clone(), packed]);
        }
    }

    #[test]
    fn packed_metadata_are_the_metadata() {
        for metadata in metadata() {
            let packed = PackedMetadata::from(&metadata);
            assert!(packed.is_sound());
            assert_eq!(packed.read().unwrap(), metadata);
            let sent = minicbor::to_vec((&packed, 7)).unwrap();
            assert_eq!(sent, minicbor::to_vec((&metadata, 7)).unwrap());
            let read: (PackedMetadata, u8) = minicbor::decode(&sent).unwrap();
            assert_eq!(read, (packed.clone(), 7));
            let relations = Relations::of_metadata(packed.octets()).unwrap();
            let sort = &metadata.sort;
            assert_eq!(relations.date_unix_s, sort.date_unix_s);
            assert_eq!(relations.date_zone_min, sort.date_zone_min);
            assert_eq!(relations.message_id, sort.message_id.as_deref());
            assert_eq!(relations.references, sort.references);
        }
    }

    #[test]
    fn what_is_no_metadata_is_not_sound() {
        for metadata in metadata() {
            let whole = minicbor::to_vec(&metadata).unwrap();
            for n_octets in 0..whole.len() {
                let cut: Result<PackedMetadata, _> = minicbor::decode(&whole[..n_octets]);
                assert!(cut.is_err(), "{n_octets}");
            }
            let n_bad = (0..whole.len() * 8).filter(|bit| {
                let mut octets = whole.clone();
                octets[bit / 8] ^= 1 << (bit % 8);
                let read: Result<PackedMetadata, _> = minicbor::decode(&octets);
                read.is_ok_and(|packed| !packed.is_sound())
            });
            assert!(n_bad.count() > 0);
        }
    }

    /// So that reading cannot fail later, whatever came over a wire.
    #[test]
    fn what_is_no_envelope_is_refused() {
        for metadata in metadata() {
            let whole = minicbor::to_vec(&metadata.envelope).unwrap();
            for len in 0..whole.len() {
                assert!(minicbor::decode::<PackedEnvelope>(&whole[..len]).is_err(), "{len}");
            }
            for (at, bit) in (0..whole.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
                let mut octets = whole.clone();
                octets[at] ^= 1 << bit;
                if let Ok(packed) = minicbor::decode::<PackedEnvelope>(&octets) {
                    unpacked(&packed.read());
                }
            }
        }
    }
}
