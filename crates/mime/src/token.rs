//! Structured MIME fields: `value; name=value; name="value"` with comments anywhere.

use crate::part::{ContentType, Disposition, Parameter};

/// Counts what a message may still keep of addresses, parameters and the like.
#[derive(Debug)]
pub(crate) struct Budget {
    left: usize,
}

impl Budget {
    pub(crate) fn new(left: usize) -> Budget {
        Budget { left }
    }

    /// True if one more item may be kept.
    pub(crate) fn take(&mut self) -> bool {
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }

    /// All but a quarter of it, which is there for what comes afterwards.
    pub(crate) fn most(&mut self) -> Budget {
        let kept = self.left / 4;
        Budget { left: std::mem::replace(&mut self.left, kept) - kept }
    }

    /// What was not needed of it.
    pub(crate) fn give_back(&mut self, rest: Budget) {
        self.left += rest.left;
    }
}

/// A Content-Type; `None` if it is none, then RFC 2045 5.2 says text/plain.
pub(crate) fn content_type(value: &[u8], budget: &mut Budget) -> Option<ContentType> {
    let mut cursor = Cursor::new(value);
    let kind = cursor.token()?;
    cursor.skip_space();
    if !cursor.eat(b'/') {
        return None;
    }
    let subtype = cursor.token()?;
    Some(ContentType { kind, subtype, parameters: cursor.parameters(budget) })
}

/// A Content-Disposition; an unreadable kind counts as attachment (RFC 2183 2.8).
pub(crate) fn disposition(value: &[u8], budget: &mut Budget) -> Option<Disposition> {
    let mut cursor = Cursor::new(value);
    if value.trim_ascii().is_empty() {
        return None;
    }
    let kind = cursor.token().unwrap_or_else(|| "attachment".into());
    Some(Disposition { kind, parameters: cursor.parameters(budget) })
}

/// A Content-Transfer-Encoding.
pub(crate) fn encoding(value: &[u8]) -> Option<String> {
    Cursor::new(value).token()
}

/// The tags of a Content-Language.
pub(crate) fn languages(value: &[u8], budget: &mut Budget) -> Vec<String> {
    let mut cursor = Cursor::new(value);
    let mut tags = Vec::new();
    while !cursor.at_end() {
        match cursor.token() {
            Some(tag) if budget.take() => tags.push(tag),
            Some(_) => break,
            None => cursor.bump(),
        }
    }
    tags
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { bytes, at: 0 }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn at_end(&self) -> bool {
        self.at >= self.bytes.len()
    }

    fn bump(&mut self) {
        self.at += 1;
    }

    fn eat(&mut self, byte: u8) -> bool {
        let is_there = self.peek() == Some(byte);
        self.at += usize::from(is_there);
        is_there
    }

    /// White space, line ends of folds and comments.
    fn skip_space(&mut self) {
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => self.bump(),
                b'(' => self.at = end_of_comment(self.bytes, self.at),
                _ => break,
            }
        }
    }

    /// A token in lower case; `None` where there is none. 8-bit octets end it.
    fn token(&mut self) -> Option<String> {
        self.skip_space();
        let start = self.at;
        while self.peek().is_some_and(is_token) {
            self.bump();
        }
        let token = std::str::from_utf8(&self.bytes[start..self.at]).ok()?;
        (!token.is_empty()).then(|| token.to_ascii_lowercase())
    }

    /// All parameters up to the end of the field.
    fn parameters(&mut self, budget: &mut Budget) -> Vec<Parameter> {
        let mut parameters = Vec::new();
        loop {
            self.skip_space();
            while !self.at_end() && !self.eat(b';') {
                self.bump();
                self.skip_space();
            }
            if self.at_end() {
                return parameters;
            }
            let Some(name) = self.token() else { continue };
            self.skip_space();
            if !self.eat(b'=') {
                continue;
            }
            let value = self.value();
            if !budget.take() {
                return parameters;
            }
            parameters.push(Parameter { name, value });
        }
    }

    /// A quoted string without its quotes, or all up to the next semicolon: senders write names
    /// with spaces and no quotes.
    fn value(&mut self) -> Vec<u8> {
        self.skip_space();
        if self.eat(b'"') {
            let (value, end) = quoted(self.bytes, self.at);
            self.at = end;
            return value;
        }
        let start = self.at;
        while let Some(byte) = self.peek() {
            let is_comment = byte == b'(' && self.bytes[start..self.at].ends_with(b" ");
            if byte == b';' || is_comment {
                break;
            }
            self.bump();
        }
        let value = self.bytes[start..self.at].trim_ascii();
        value.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect()
    }
}

/// RFC 2045 5.1 token, but US-ASCII only.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&byte)
}

/// The content of a quoted string that starts at `at`, behind its quote, and where it ends. Line
/// ends of folds are taken out.
pub(crate) fn quoted(bytes: &[u8], mut at: usize) -> (Vec<u8>, usize) {
    let mut content = Vec::new();
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'"' => break,
            b'\r' | b'\n' => {}
            b'\\' if bytes.get(at).is_some_and(|next| !matches!(next, b'\r' | b'\n')) => {
                content.push(bytes[at]);
                at += 1;
            }
            _ => content.push(byte),
        }
    }
    (content, at)
}

/// The offset behind the comment that opens at `at`; comments nest.
pub(crate) fn end_of_comment(bytes: &[u8], mut at: usize) -> usize {
    let mut depth = 0_usize;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'(' => depth += 1,
            b')' => depth -= 1,
            b'\\' => at += 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    at.min(bytes.len())
}
