//! How values become bytes: CBOR with numbered fields (`minicbor`), so that a later version can
//! add a field and an earlier one skips it. Encoding is deterministic.

use minicbor::data::Type;
use minicbor::{Decode, Decoder, Encode};

/// Limit: arrays inside each other where what is read may hold itself. Keys of a search have up to three for each
/// of at most 50 levels and a few at their ends; a decoder that calls itself so often needs some 100 KiB of stack.
const DEPTH_MAX: usize = 256;

/// The bytes were not of this type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot decode: {0}")]
pub struct DecodeError(pub String);

/// Encodes a value; encoding into memory cannot fail.
pub fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    minicbor::encode(value, &mut out).expect("writing to a Vec does not fail");
    out
}

/// Decodes what may hold itself.
///
/// Why: whoever asks may send 16 MiB of it, and a stack that ends is the end of the process.
pub(crate) fn decode_shallow<'b, C, T: Decode<'b, C>>(
    decoder: &mut Decoder<'b>,
    context: &mut C,
) -> Result<T, minicbor::decode::Error> {
    check_depth(decoder.clone())?;
    decoder.decode_with(context)
}

/// Whether no more than [`DEPTH_MAX`] arrays of the next value are inside each other.
fn check_depth(mut decoder: Decoder<'_>) -> Result<(), minicbor::decode::Error> {
    // How many values are still to come in each that is open; `None` where that ends by itself.
    let mut open = vec![Some(1)];
    while let Some(left) = open.last_mut() {
        match left {
            Some(0) => {
                open.pop();
                continue;
            }
            Some(n_left) => *n_left -= 1,
            None => {}
        }
        let ends_by_itself = left.is_none();
        match decoder.datatype()? {
            Type::Array | Type::ArrayIndef => open.push(decoder.array()?),
            Type::Map | Type::MapIndef => {
                let n_pairs = decoder.map()?;
                open.push(n_pairs.map(|n_pairs| n_pairs.saturating_mul(2)));
            }
            Type::Tag => {
                decoder.tag()?;
                open.push(Some(1));
            }
            // Why only there: what a decoder passes over where another stops would hide the rest.
            Type::Break if ends_by_itself => {
                decoder.set_position(decoder.position() + 1);
                open.pop();
            }
            Type::Break => return Err(minicbor::decode::Error::message("a break for nothing")),
            _ => decoder.skip()?,
        }
        if open.len() > DEPTH_MAX {
            return Err(minicbor::decode::Error::message("too many arrays inside each other"));
        }
    }
    Ok(())
}

/// Decodes a value from exactly these bytes.
pub fn decode<'b, T: Decode<'b, ()>>(bytes: &'b [u8]) -> Result<T, DecodeError> {
    let mut decoder = Decoder::new(bytes);
    let value = decoder.decode().map_err(|error| DecodeError(error.to_string()))?;
    if decoder.position() == bytes.len() {
        Ok(value)
    } else {
        Err(DecodeError("bytes left over".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::OfMailbox;
    use crate::ids::{AccountId, MailboxId};
    use crate::query::{Query, Search, SearchKey};
    use crate::uid_set::UidSet;

    /// A search whose key is ALL within so many NOTs.
    fn nested(n_levels: usize) -> Vec<u8> {
        let of = OfMailbox { account: AccountId([1; 16]), mailbox: MailboxId(1) };
        let search = |key| encode(&Query::Search(Search { of, among: UidSet::all(), key }));
        let (plain, within) =
            (search(SearchKey::All), search(SearchKey::Not(Box::new(SearchKey::All))));
        // What the two do not share is the NOT around the key, which both end with.
        let key = encode(&SearchKey::All);
        let head = plain.len() - key.len();
        let not = &within[head..within.len() - key.len()];
        [&plain[..head], &not.repeat(n_levels), &key].concat()
    }

    #[test]
    fn what_is_nested_too_deep_is_not_decoded() {
        for n_levels in [0, 1, 50, 100] {
            let query: Query = decode(&nested(n_levels)).expect("as deep as clients go");
            assert_eq!(encode(&query), nested(n_levels));
        }
        for n_levels in [200, 5_000_000] {
            assert!(decode::<Query>(&nested(n_levels)).is_err(), "{n_levels}");
        }
    }

    #[test]
    fn depth_is_that_of_the_deepest_value() {
        // An array that ends by itself, a map, a tag, a string in pieces.
        let odd = b"\x9f\xa1\x01\x82\x02\xc1\x03\x5f\x41a\xff\xf6\xff";
        assert!(check_depth(Decoder::new(odd)).is_ok());
        let wide = [&b"\x9f"[..], &b"\x81\x01".repeat(1_000), b"\xff"].concat();
        assert!(check_depth(Decoder::new(&wide)).is_ok());
        for open in [b'\x9f', b'\x81', b'\xc1', b'\xbf'] {
            assert!(check_depth(Decoder::new(&vec![open; 1_000_000])).is_err());
        }
        assert!(check_depth(Decoder::new(&odd[..5])).is_err());
        assert!(check_depth(Decoder::new(b"\x82\xff\x01")).is_err());
    }
}
