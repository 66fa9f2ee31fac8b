//! How values become bytes: CBOR with numbered fields (`minicbor`), so that a later version can
//! add a field and an earlier one skips it. Encoding is deterministic.

use minicbor::{Decode, Encode};

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

/// Decodes a value from exactly these bytes.
pub fn decode<'b, T: Decode<'b, ()>>(bytes: &'b [u8]) -> Result<T, DecodeError> {
    let mut decoder = minicbor::Decoder::new(bytes);
    let value = decoder.decode().map_err(|error| DecodeError(error.to_string()))?;
    if decoder.position() == bytes.len() {
        Ok(value)
    } else {
        Err(DecodeError("bytes left over".into()))
    }
}
