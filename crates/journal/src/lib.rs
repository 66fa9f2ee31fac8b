//! Crate `journal`.
