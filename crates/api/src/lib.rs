//! Crate `api`.
