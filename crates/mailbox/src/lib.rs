//! Crate `mailbox`.
