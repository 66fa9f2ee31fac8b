//! Crate `replica`.
