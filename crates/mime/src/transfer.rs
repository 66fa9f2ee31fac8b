//! Content-Transfer-Encoding undone as a stream.

/// Undoes one transfer encoding; fed in any cuts it gives the same octets.
#[derive(Clone, Debug)]
pub struct TransferDecoder {
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    Identity,
    Base64 { bits: u32, n_chars: u8 },
    QuotedPrintable { held: Vec<u8> },
}

/// White space of a quoted-printable line that is held until one knows whether the line ends
/// behind it, and so is to be dropped. RFC 2045 6.7 limits a line to 76.
const HELD_SPACE_BYTES_MAX: usize = 1024;

/// Whether what has this encoding, in lower case, is as it was before.
pub(crate) fn is_identity(encoding: &str) -> bool {
    // The last four are as senders misspell them; nothing else can be meant.
    matches!(encoding, "" | "7bit" | "8bit" | "binary" | "7bits" | "7-bit" | "8bits" | "8-bit")
}

impl TransferDecoder {
    /// A decoder for a Content-Transfer-Encoding in any case; `None` if the encoding is unknown.
    pub fn new(encoding: &str) -> Option<TransferDecoder> {
        let state = match encoding.trim().to_ascii_lowercase().as_str() {
            encoding if is_identity(encoding) => State::Identity,
            "base64" => State::Base64 { bits: 0, n_chars: 0 },
            "quoted-printable" => State::QuotedPrintable { held: Vec::new() },
            _ => return None,
        };
        Some(TransferDecoder { state })
    }

    /// Decodes `bytes` and appends to `decoded` what is certain.
    pub fn feed(&mut self, bytes: &[u8], decoded: &mut Vec<u8>) {
        match &mut self.state {
            State::Identity => decoded.extend_from_slice(bytes),
            State::Base64 { bits, n_chars } => base64(bytes, bits, n_chars, decoded),
            State::QuotedPrintable { held } => {
                for &byte in bytes {
                    quoted_printable(byte, held, decoded);
                }
            }
        }
    }

    /// Appends what was still held.
    pub fn finish(mut self, decoded: &mut Vec<u8>) {
        match &mut self.state {
            State::Identity => {}
            State::Base64 { bits, n_chars } => flush_base64(bits, n_chars, decoded),
            State::QuotedPrintable { held } => {
                // A soft line break at the end gives nothing, nor does space before no line end.
                let is_dropped = held.first() != Some(&b'=') || matches!(&held[..], b"=" | b"=\r");
                if !is_dropped {
                    decoded.append(held);
                }
            }
        }
    }
}

const NOT_BASE64: u8 = 0xff;
const BASE64: [u8; 256] = base64_values();

const fn base64_values() -> [u8; 256] {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut values = [NOT_BASE64; 256];
    let mut at = 0;
    while at < alphabet.len() {
        values[alphabet[at] as usize] = at as u8;
        at += 1;
    }
    values
}

/// RFC 2045 6.8: what is not in the alphabet is passed over; padding ends a quantum.
fn base64(bytes: &[u8], bits: &mut u32, n_chars: &mut u8, decoded: &mut Vec<u8>) {
    for &byte in bytes {
        let value = BASE64[usize::from(byte)];
        if value != NOT_BASE64 {
            *bits = *bits << 6 | u32::from(value);
            *n_chars += 1;
            if *n_chars == 4 {
                decoded.extend_from_slice(&bits.to_be_bytes()[1..]);
                (*bits, *n_chars) = (0, 0);
            }
        } else if byte == b'=' {
            flush_base64(bits, n_chars, decoded);
        }
    }
}

fn flush_base64(bits: &mut u32, n_chars: &mut u8, decoded: &mut Vec<u8>) {
    let quantum = (*bits << (6 * (4 - u32::from(*n_chars)).min(4))).to_be_bytes();
    match *n_chars {
        2 => decoded.push(quantum[1]),
        3 => decoded.extend_from_slice(&quantum[1..3]),
        _ => {}
    }
    (*bits, *n_chars) = (0, 0);
}

/// `held` is empty, or white space (and a CR behind it), or an unfinished `=` sequence.
fn quoted_printable(byte: u8, held: &mut Vec<u8>, decoded: &mut Vec<u8>) {
    if held.first() == Some(&b'=') {
        match (&held[1..], byte) {
            ([.., b'\r'] | [] | [b' ' | b'\t', ..], b'\n') => held.clear(),
            ([] | [b' ' | b'\t', ..], b' ' | b'\t' | b'\r')
                if held.len() < HELD_SPACE_BYTES_MAX =>
            {
                held.push(byte);
            }
            ([], _) if byte.is_ascii_hexdigit() => held.push(byte),
            ([high], _) if high.is_ascii_hexdigit() && byte.is_ascii_hexdigit() => {
                decoded.push(hex(*high) << 4 | hex(byte));
                held.clear();
            }
            // No sequence after all: shown as it is.
            _ => {
                decoded.append(held);
                quoted_printable(byte, held, decoded);
            }
        }
        return;
    }
    match byte {
        b'\n' => {
            let ends_in_cr = held.last() == Some(&b'\r');
            held.clear();
            decoded.extend_from_slice(if ends_in_cr { b"\r\n" } else { b"\n" });
        }
        b' ' | b'\t' | b'\r' if held.len() < HELD_SPACE_BYTES_MAX => {
            if held.last() == Some(&b'\r') {
                decoded.append(held);
            }
            held.push(byte);
        }
        b'=' => {
            decoded.append(held);
            held.push(byte);
        }
        _ => {
            decoded.append(held);
            decoded.push(byte);
        }
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit.wrapping_sub(b'A') + 10,
    }
}
