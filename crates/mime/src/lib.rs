//! Crate `mime`.
