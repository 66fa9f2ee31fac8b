//! Crate `mime`.

use minicbor::{Decode, Encode};

/// What is parsed of a message at the door.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Metadata {
    /// Raw octets.
    #[n(0)]
    pub size: u64,
}

impl Metadata {
    /// The same message with trace header fields in front.
    pub fn with_prefix(&self, prefix: &[u8]) -> Self {
        Self { size: self.size + prefix.len() as u64 }
    }
}
