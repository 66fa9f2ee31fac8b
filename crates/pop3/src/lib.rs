//! Crate `pop3`.
