//! Internet messages: their structure, found while they stream past, and their decoded words.
//!
//! Enter at [`Scanner`], which is fed a message in any cuts and ends in [`Metadata`]: what IMAP
//! calls ENVELOPE and BODYSTRUCTURE, with the octet range of every part, the sort and thread
//! keys and a preview. It holds one header block's interesting fields and never a body.
//! The rest are decoders for SEARCH, SORT and BINARY: [`decode_header`], [`TransferDecoder`],
//! [`CharsetDecoder`], [`fold`], [`header_fields`].
//!
//! Promises: nothing here panics on any input, everything is linear in its input, and what lies
//! beyond the limits of [`limits`] is shown as opaque text, never refused.

mod address;
mod charset;
mod continued;
mod date;
mod envelope;
mod header;
mod html;
pub mod limits;
mod metadata;
mod packed;
mod part;
mod preview;
mod scanner;
mod sort;
mod stored;
mod subject;
mod token;
mod transfer;
mod utf7;
mod word;

pub use charset::{CharsetDecoder, collation_key, fold, fold_in_place};
pub use continued::join_continuations;
pub use date::days_since_1970;
pub use envelope::{Address, Envelope};
pub use header::{HeaderField, HeaderFields, header_fields, unfold};
pub use metadata::{Metadata, Range};
pub use packed::{AddressRef, Addresses, EnvelopeRef, PackedEnvelope, PackedMetadata, Relations};
pub use part::{ContentType, Disposition, Parameter, Part, PartKind};
pub use scanner::{Scanner, scan};
pub use sort::SortKeys;
pub use subject::base_subject;
pub use transfer::TransferDecoder;
pub use word::{decode_header, push_header};
