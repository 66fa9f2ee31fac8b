//! Crate `lmtp`.
