//! Crate `drill`.
