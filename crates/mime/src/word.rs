//! Words in headers: RFC 2047 encoded words, RFC 2231 parameters, raw 8-bit.

use memchr::{memchr, memmem};

use crate::charset::decode_all;
use crate::header::unfold;
use crate::part::Parameter;
use crate::transfer::TransferDecoder;

/// Octets of one encoded word that are looked at. RFC 2047 2 says 75; a bound keeps a header of
/// many openings without an end linear.
const WORD_BYTES_MAX: usize = 2048;

/// Pieces of one RFC 2231 parameter that are joined: 100 of a line each hold any file name.
const PIECES_MAX: usize = 100;

/// A header value as a person reads it: unfolded, tabs shown as spaces since many senders fold with
/// them, RFC 2047 words decoded, raw 8-bit octets taken as UTF-8 or else windows-1252.
pub fn decode_header(raw: &[u8]) -> String {
    let mut text = String::with_capacity(raw.len());
    push_header(&mut text, raw);
    text
}

/// As [`decode_header`], added to a text.
pub fn push_header(text: &mut String, raw: &[u8]) {
    let mut value = unfold(raw);
    if memchr(b'\t', &value).is_some() {
        value.to_mut().iter_mut().filter(|byte| **byte == b'\t').for_each(|byte| *byte = b' ');
    }
    match std::str::from_utf8(&value) {
        Ok(plain) if !plain.contains("=?") => text.push_str(plain),
        _ => push_words(text, &value),
    }
}

fn push_words(text: &mut String, mut rest: &[u8]) {
    // Why: senders cut multi-byte characters between words, so octets of neighbouring words of
    // one charset are joined before they are decoded.
    let mut joined: Option<(String, Vec<u8>)> = None;
    while !rest.is_empty() {
        let opening = memmem::find(rest, b"=?").unwrap_or(rest.len());
        let plain = &rest[..opening];
        let word = encoded_word(&rest[opening..]);
        let is_between_words = word.is_some()
            && joined.is_some()
            && plain.iter().all(|byte| matches!(byte, b' ' | b'\t'));
        if !is_between_words {
            flush(&mut joined, text);
            text.push_str(&decode_all("", plain));
        }
        rest = &rest[opening..];
        if let Some(word) = word {
            rest = &rest[word.n_bytes..];
            match &mut joined {
                Some((charset, octets)) if *charset == word.charset => octets.extend(word.octets),
                _ => {
                    flush(&mut joined, text);
                    joined = Some((word.charset, word.octets));
                }
            }
        } else if !rest.is_empty() {
            flush(&mut joined, text);
            text.push_str("=?");
            rest = &rest[2..];
        }
    }
    flush(&mut joined, text);
}

fn flush(joined: &mut Option<(String, Vec<u8>)>, text: &mut String) {
    if let Some((charset, octets)) = joined.take() {
        text.push_str(&decode_all(&charset, &octets));
    }
}

struct Word {
    charset: String,
    octets: Vec<u8>,
    n_bytes: usize,
}

/// `=?charset*language?encoding?text?=` at the start of `bytes`.
fn encoded_word(bytes: &[u8]) -> Option<Word> {
    let window = &bytes[..bytes.len().min(WORD_BYTES_MAX)];
    let inner = window.strip_prefix(b"=?")?;
    let mut pieces = inner.splitn(3, |byte| *byte == b'?');
    let (charset, encoding, tail) = (pieces.next()?, pieces.next()?, pieces.next()?);
    let is_name = |byte: &u8| byte.is_ascii_graphic();
    if charset.is_empty() || !charset.iter().all(is_name) {
        return None;
    }
    let n_text = memmem::find(tail, b"?=")?;
    let octets = match encoding {
        b"b" | b"B" => transfer_decode("base64", &tail[..n_text]),
        b"q" | b"Q" => decode_q(&tail[..n_text]),
        _ => return None,
    };
    let charset = charset.split(|byte| *byte == b'*').next()?;
    let charset = String::from_utf8_lossy(charset).to_ascii_lowercase();
    let n_bytes = 2 + (inner.len() - tail.len()) + n_text + 2;
    Some(Word { charset, octets, n_bytes })
}

/// RFC 2047 4.2.
fn decode_q(text: &[u8]) -> Vec<u8> {
    let spaced: Vec<u8> =
        text.iter().map(|byte| if *byte == b'_' { b' ' } else { *byte }).collect();
    // The trailing space of a word is no line's end: keep it.
    let kept = spaced.trim_ascii_end().len();
    let mut octets = transfer_decode("quoted-printable", &spaced[..kept]);
    octets.extend_from_slice(&spaced[kept..]);
    octets
}

pub(crate) fn transfer_decode(encoding: &str, bytes: &[u8]) -> Vec<u8> {
    let mut octets = Vec::with_capacity(bytes.len());
    if let Some(mut decoder) = TransferDecoder::new(encoding) {
        decoder.feed(bytes, &mut octets);
        decoder.finish(&mut octets);
    }
    octets
}

/// A parameter as a person reads it. RFC 2231: `name*0*`, `name*1`, `name*` are joined and
/// decoded; a plain `name` may hold RFC 2047 words, as many senders write it.
pub(crate) fn decode_parameter(parameters: &[Parameter], name: &str) -> Option<String> {
    let find = |wanted: &str| parameters.iter().find(|parameter| parameter.name == wanted);
    if let Some(parameter) = find(&format!("{name}*")) {
        let (charset, octets) = extended(&parameter.value);
        return Some(decode_all(&charset, &octets));
    }
    let mut charset = String::new();
    let mut octets = Vec::new();
    let mut n_pieces = 0;
    for number in 0..PIECES_MAX {
        if let Some(piece) = find(&format!("{name}*{number}*")) {
            if number == 0 {
                (charset, octets) = extended(&piece.value);
            } else {
                octets.extend(percent_decode(&piece.value));
            }
        } else if let Some(piece) = find(&format!("{name}*{number}")) {
            octets.extend_from_slice(&piece.value);
        } else {
            break;
        }
        n_pieces += 1;
    }
    if n_pieces > 0 {
        return Some(decode_all(&charset, &octets));
    }
    find(name).map(|parameter| decode_header(&parameter.value))
}

/// `charset'language'octets`, RFC 2231 4.
pub(crate) fn extended(value: &[u8]) -> (String, Vec<u8>) {
    let mut pieces = value.splitn(3, |byte| *byte == b'\'');
    match (pieces.next(), pieces.next(), pieces.next()) {
        (Some(charset), Some(_), Some(octets)) => {
            (String::from_utf8_lossy(charset).into_owned(), percent_decode(octets))
        }
        _ => (String::new(), percent_decode(value)),
    }
}

pub(crate) fn percent_decode(value: &[u8]) -> Vec<u8> {
    let mut octets = Vec::with_capacity(value.len());
    let mut rest = value;
    while let [byte, tail @ ..] = rest {
        let pair = tail.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        let decoded = pair
            .filter(|pair| *byte == b'%' && pair.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|pair| u8::from_str_radix(pair, 16).ok());
        octets.push(decoded.unwrap_or(*byte));
        rest = if decoded.is_some() { &tail[2..] } else { tail };
    }
    octets
}
