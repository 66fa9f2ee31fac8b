//! Crate `frontend`.
