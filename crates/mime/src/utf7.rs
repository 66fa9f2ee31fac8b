//! UTF-7 (RFC 2152) decoded as a stream. Old mail has it; nobody is to write it any more.

/// Where the text is: outside base64, or inside, with bits that are no whole unit of UTF-16 yet.
#[derive(Debug, Default)]
pub(crate) struct Utf7 {
    shifted: Option<Shifted>,
}

#[derive(Debug, Default)]
struct Shifted {
    bits: u32,
    n_bits: u8,
    /// Nothing was read behind the `+` yet.
    is_empty: bool,
    /// The first of two units.
    high: Option<u16>,
}

impl Utf7 {
    pub(crate) fn feed(&mut self, bytes: &[u8], text: &mut String) {
        for &byte in bytes {
            match &mut self.shifted {
                Some(shifted) => match value(byte) {
                    Some(value) => shifted.push(value, text),
                    None => self.unshift(byte, text),
                },
                None if byte == b'+' => {
                    self.shifted = Some(Shifted { is_empty: true, ..Shifted::default() });
                }
                None => push_plain(byte, text),
            }
        }
    }

    pub(crate) fn finish(self, text: &mut String) {
        if let Some(shifted) = self.shifted {
            text.push_str(if shifted.is_empty { "+" } else { "" });
            shifted.end(text);
        }
    }

    /// What is no base64 ends it; a minus that does so is no text, and `+-` is a plus.
    fn unshift(&mut self, byte: u8, text: &mut String) {
        let shifted = self.shifted.take().unwrap_or_default();
        match (shifted.is_empty, byte) {
            (true, b'-') => text.push('+'),
            (false, b'-') => shifted.end(text),
            (is_empty, _) => {
                text.push_str(if is_empty { "+" } else { "" });
                shifted.end(text);
                push_plain(byte, text);
            }
        }
    }
}

impl Shifted {
    fn push(&mut self, value: u8, text: &mut String) {
        self.is_empty = false;
        self.bits = self.bits << 6 | u32::from(value);
        self.n_bits += 6;
        if self.n_bits >= 16 {
            self.n_bits -= 16;
            let unit = (self.bits >> self.n_bits) as u16;
            self.bits &= (1 << self.n_bits) - 1;
            self.push_unit(unit, text);
        }
    }

    fn push_unit(&mut self, unit: u16, text: &mut String) {
        if let Some(high) = self.high.take() {
            match char::decode_utf16([high, unit]).next() {
                Some(Ok(c)) => return text.push(c),
                _ => text.push(char::REPLACEMENT_CHARACTER),
            }
        }
        match unit {
            0xd800..=0xdbff => self.high = Some(unit),
            _ => text.push(char::from_u32(u32::from(unit)).unwrap_or(char::REPLACEMENT_CHARACTER)),
        }
    }

    fn end(self, text: &mut String) {
        if self.high.is_some() {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
}

fn value(byte: u8) -> Option<u8> {
    Some(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    })
}

/// Octets beyond US-ASCII are wrong here; they are shown as most likely meant.
fn push_plain(byte: u8, text: &mut String) {
    text.push(char::from(byte));
}
