//! What is to be sent: small writes are gathered, large slices pass through uncopied.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;

use bytes::Bytes;

use crate::limits::SEND_BYTES;

/// Slices at least this long are not copied.
const WHOLE_BYTES: usize = 8 * 1024;

/// A response of more than this is taken for a long one.
const SHORT_BYTES: usize = 2 * 1024;

/// Octets on their way to the client.
#[derive(Debug, Default)]
pub(crate) struct Output {
    ready: VecDeque<Bytes>,
    tail: Vec<u8>,
}

impl Output {
    /// Whether enough has gathered to be sent while a command goes on.
    pub(crate) fn is_full(&self) -> bool {
        !self.ready.is_empty() || self.tail.len() >= SEND_BYTES
    }

    /// What to send next.
    pub(crate) fn pop(&mut self) -> Option<Bytes> {
        if self.ready.is_empty() && !self.tail.is_empty() {
            return Some(std::mem::take(&mut self.tail).into());
        }
        self.ready.pop_front()
    }

    /// Forgets what was not sent.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Adds octets.
    pub(crate) fn raw(&mut self, octets: &[u8]) {
        if self.tail.len() + octets.len() > self.tail.capacity() {
            self.grow(octets.len());
        }
        self.tail.extend_from_slice(octets);
    }

    /// Why: a long response is sent in pieces of one size; growing to it step by step would copy each
    /// piece several times.
    fn grow(&mut self, n_more: usize) {
        let is_long = self.tail.len() >= SHORT_BYTES;
        self.tail.reserve(if is_long { n_more.max(SEND_BYTES) } else { n_more });
    }

    /// How much gathered since something was passed through or taken.
    pub(crate) fn tail_len(&self) -> usize {
        self.tail.len()
    }

    /// Adds once more what was added there.
    pub(crate) fn again(&mut self, range: Range<usize>) {
        if self.tail.len() + range.len() > self.tail.capacity() {
            self.grow(range.len());
        }
        self.tail.extend_from_within(range);
    }

    /// Adds text.
    pub(crate) fn text(&mut self, text: &str) {
        self.raw(text.as_bytes());
    }

    /// Adds octets that are shared.
    pub(crate) fn shared(&mut self, octets: Bytes) {
        if octets.len() < WHOLE_BYTES {
            return self.raw(&octets);
        }
        if !self.tail.is_empty() {
            self.ready.push_back(std::mem::take(&mut self.tail).into());
        }
        self.ready.push_back(octets);
    }

    /// A quoted string, or a literal where quotes cannot hold it.
    pub(crate) fn string(&mut self, octets: &[u8]) {
        let is_special = |byte: &u8| matches!(byte, b'"' | b'\\');
        let (mut is_quotable, mut has_special) = (octets.len() <= 1000, false);
        // Why no early end: so the compiler looks at many octets at once.
        for byte in octets {
            is_quotable &= matches!(byte, b' '..=b'~');
            has_special |= is_special(byte);
        }
        if !is_quotable {
            self.literal_mark(octets.len() as u64);
            return self.raw(octets);
        }
        self.raw(b"\"");
        let mut rest = octets;
        while has_special && let Some(at) = rest.iter().position(is_special) {
            self.raw(&rest[..at]);
            self.raw(&[b'\\', rest[at]]);
            rest = &rest[at + 1..];
        }
        self.raw(rest);
        self.raw(b"\"");
    }

    /// A string or NIL.
    pub(crate) fn nstring(&mut self, octets: Option<&[u8]>) {
        match octets {
            Some(octets) => self.string(octets),
            None => self.raw(b"NIL"),
        }
    }

    /// What announces a literal.
    pub(crate) fn literal_mark(&mut self, len: u64) {
        self.text(&format!("{{{len}}}\r\n"));
    }
}

impl fmt::Write for Output {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.text(text);
        Ok(())
    }
}
