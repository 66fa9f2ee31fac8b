//! The IMAP session engine: bytes in, bytes and questions out.
//!
//! Enter at [`Session`], which implements [`mailbox::dialogue::Engine`]; only a frontend's
//! connection loop drives it. `input` gathers commands, `parse` gives them types, `command` has
//! one file for each verb, `view` is what the client believes the mailbox holds and `news` keeps
//! it true, `respond` writes, `refuse` turns what the store says no to into IMAP's words. Between all
//! that and the client may lie `deflate`.
//!
//! Promises: no input panics; what a client can make us hold is bounded by [`limits`]; a message
//! passes in slices and is never held whole; the client is told of an expunge only where RFC 9051
//! 7.5.1 allows it.

mod command;
mod context;
mod date;
mod deflate;
mod input;
pub mod limits;
mod news;
mod number_set;
mod output;
mod parse;
mod refuse;
mod respond;
mod selected;
mod session;
mod utf7;
mod view;
mod work;

pub use context::Config;
pub use session::Session;
