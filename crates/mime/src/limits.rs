//! Every limit of this crate, with where its number comes from.

/// Open parts inside each other, message in message counted too. Real mail stays below 20; 100
/// keeps every recursion over the tree far from the end of a 2 MiB stack.
pub const DEPTH_MAX: usize = 100;

/// Parts of one message. A digest of a busy mailing list has hundreds.
pub const PARTS_MAX: usize = 10_000;

/// Octets of all header blocks of one message together.
pub const HEADER_BYTES_MAX: u64 = 10 * 1024 * 1024;

/// Octets of one header field that are looked at; 256 KiB hold about 8,000 addresses. What is
/// beyond stays in the message but not in its metadata.
pub const FIELD_BYTES_MAX: usize = 256 * 1024;

/// Addresses, parameters and languages kept for one message: they cost up to 50 times the octets
/// they are made from, so that 10 MiB of `a,a,a,` would become 500 MB. It is three for each of
/// `PARTS_MAX` parts.
pub const ITEMS_MAX: usize = 30_000;

/// Octets of a multipart boundary that can match. RFC 2046 5.1.1 says 70; some senders exceed it.
pub const BOUNDARY_BYTES_MAX: usize = 256;

/// Octets of a line that may still be a delimiter: boundary, dashes and trailing white space.
pub const DELIMITER_LINE_BYTES_MAX: usize = 1024;

/// Message-Ids of References kept for THREAD: the root and the nearest ancestors.
pub const REFERENCES_MAX: usize = 100;

/// Octets of one message-id kept; RFC 5322 2.1.1 limits a line to 998.
pub const MESSAGE_ID_BYTES_MAX: usize = 998;

/// Octets of a sort key that are kept: two subjects that agree this far are one.
pub const SORT_KEY_BYTES_MAX: usize = 1024;

/// Characters of a text that are sorted by: more than a list of messages shows. SORT holds the keys of all
/// messages, and folded and taken apart a character may have several times the octets it is written with.
pub const COLLATION_CHARS_MAX: usize = 128;

/// Characters of a preview. RFC 8970 3.1 recommends 200 and forbids more than 256.
pub const PREVIEW_CHARS_MAX: usize = 200;

/// Encoded octets of a text part that are read for the preview, and not kept: HTML mail opens with styles,
/// those of newsletters and word processors with up to some 100 KiB.
pub const PREVIEW_SOURCE_BYTES_MAX: usize = 256 * 1024;

/// Addresses of each list that an envelope keeps when it is cut short: what a list of messages shows
/// on one line.
pub const CUT_ADDRESSES_MAX: usize = 4;

/// Octets of each value that an envelope keeps when it is cut short; 25 KiB for all of it.
pub const CUT_FIELD_BYTES_MAX: usize = 256;
