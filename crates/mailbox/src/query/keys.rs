//! Search keys as they are decoded: they hold each other, and whoever asks may send 16 MiB of them.

use minicbor::Decoder;
use minicbor::decode::Error;

use super::SearchKey;

/// Limit: keys inside each other; IMAP has at most 54. What encodes and plans them calls itself for each.
const DEPTH_MAX: usize = 64;

/// Decodes a key and all in it.
pub(super) fn decode<C>(decoder: &mut Decoder<'_>, context: &mut C) -> Result<SearchKey, Error> {
    key(decoder, context, 1)
}

/// Why not as other enums: a decoder of all kinds of keys that calls itself has a large frame for each level.
fn key<C>(decoder: &mut Decoder<'_>, context: &mut C, depth: usize) -> Result<SearchKey, Error> {
    if depth > DEPTH_MAX {
        return Err(Error::message("too many keys inside each other"));
    }
    let start = decoder.position();
    let (n_items, number) = (decoder.array()?, decoder.u32()?);
    if n_items != Some(2) || !(1..=3).contains(&number) {
        decoder.set_position(start);
        return alone(decoder, context);
    }
    let n_fields = decoder.array()?.ok_or_else(|| Error::message("how many fields?"))?;
    let mut next = |decoder: &mut Decoder<'_>| key(decoder, context, depth + 1);
    let (key, n_read) = match number {
        1 => {
            let n_keys = decoder.array()?.ok_or_else(|| Error::message("how many keys?"))?;
            let keys = (0..n_keys).map(|_| next(decoder)).collect::<Result<_, _>>()?;
            (SearchKey::And(keys), 1)
        }
        2 => (SearchKey::Or(Box::new(next(decoder)?), Box::new(next(decoder)?)), 2),
        _ => (SearchKey::Not(Box::new(next(decoder)?)), 1),
    };
    // What a later version says besides.
    (n_read..n_fields).try_for_each(|_| decoder.skip())?;
    Ok(key)
}

/// A key that holds no other one.
#[inline(never)]
fn alone<C>(decoder: &mut Decoder<'_>, context: &mut C) -> Result<SearchKey, Error> {
    decoder.decode_with(context)
}
