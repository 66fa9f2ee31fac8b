//! The door: messages of the wire become typed values here, and nowhere else.

pub(crate) mod admin;
pub(crate) mod fault;
pub(crate) mod mail;
pub(crate) mod meta;

/// A message that says nothing meaningful.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed message: {0}")]
pub struct Malformed(pub(crate) &'static str);

impl From<Malformed> for tonic::Status {
    fn from(error: Malformed) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

/// An id of exactly `N` octets.
pub(crate) fn id<const N: usize>(bytes: &[u8], what: &'static str) -> Result<[u8; N], Malformed> {
    bytes.try_into().map_err(|_| Malformed(what))
}

/// A name that may be absent, as an empty text says.
pub(crate) fn name(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}
