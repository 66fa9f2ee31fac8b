//! Crate `imap`.
