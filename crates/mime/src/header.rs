//! Header blocks taken apart into fields, without copying and without judging them.

use std::borrow::Cow;

use memchr::{memchr, memchr2};

/// One field of a header block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderField<'a> {
    /// The name as written, without the colon and white space before it.
    pub name: &'a [u8],
    /// The value as written: with the space after the colon and its folding, without the last
    /// line end.
    pub value: &'a [u8],
    /// The whole field with its last line end.
    pub raw: &'a [u8],
}

/// The fields of a header block in order. Lines that are no field are passed over.
#[derive(Clone, Debug)]
pub struct HeaderFields<'a> {
    rest: &'a [u8],
}

/// Takes a header block apart; it ends at the first empty line or with `block`.
pub fn header_fields(block: &[u8]) -> HeaderFields<'_> {
    HeaderFields { rest: block }
}

impl<'a> Iterator for HeaderFields<'a> {
    type Item = HeaderField<'a>;

    fn next(&mut self) -> Option<HeaderField<'a>> {
        loop {
            let block = self.rest;
            let line_end = end_of_line(block);
            if is_blank(&block[..line_end]) {
                self.rest = &[];
                return None;
            }
            let mut end = line_end;
            while matches!(block.get(end), Some(b' ' | b'\t')) {
                end += end_of_line(&block[end..]);
            }
            self.rest = &block[end..];
            if let Some((name, colon)) = field_name(&block[..line_end]) {
                let raw = &block[..end];
                return Some(HeaderField { name, value: without_line_end(&raw[colon + 1..]), raw });
            }
        }
    }
}

/// A field value on one line: every line end of a fold is taken out (RFC 5322 2.2.3), white space
/// at both ends too.
pub fn unfold(value: &[u8]) -> Cow<'_, [u8]> {
    let trimmed = value.trim_ascii();
    if memchr2(b'\r', b'\n', trimmed).is_none() {
        return Cow::Borrowed(trimmed);
    }
    Cow::Owned(trimmed.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect())
}

/// Offset after the first line feed, or the whole length.
pub(crate) fn end_of_line(bytes: &[u8]) -> usize {
    memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1)
}

/// True for the line that ends a header block, and for no line at all.
pub(crate) fn is_blank(line: &[u8]) -> bool {
    matches!(line, b"" | b"\n" | b"\r\n")
}

/// The name of a field and where its colon is; `None` if the line is no field.
pub(crate) fn field_name(line: &[u8]) -> Option<(&[u8], usize)> {
    let colon = memchr(b':', line)?;
    let name = line[..colon].trim_ascii_end();
    // RFC 5322 2.2: printable US-ASCII without colon. 8-bit names are let through, spaces are
    // not: "From someone Mon Jan  1 10:00:00" is an mbox separator.
    let is_name = !name.is_empty() && name.iter().all(|byte| *byte > b' ' && *byte != 0x7f);
    is_name.then_some((name, colon))
}

pub(crate) fn without_line_end(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.strip_suffix(b"\r").unwrap_or(bytes)
}
