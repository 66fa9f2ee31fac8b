//! Charsets decoded as a stream, and words folded for comparison.

use encoding_rs::{Decoder, DecoderResult, Encoding, ISO_2022_JP, REPLACEMENT, WINDOWS_1252};
use mail_parser::decoders::charsets::DecoderFnc;
use mail_parser::decoders::charsets::map::charset_decoder;
use memchr::{memchr, memchr3};
use unicode_normalization::UnicodeNormalization;

use crate::limits::COLLATION_CHARS_MAX;
use crate::utf7::Utf7;

/// Octets of text that ISO-2022-JP is decoded to at once: some lines of mail.
const JAPANESE_BYTES: usize = 1024;

/// Names in mail that browsers do not know, with a hyphen for each underscore, and what they name.
/// Invariant: whatever `mail_parser` has of several octets a character is here, or is known by its name.
const ALIASES: [(&str, &str); 23] = [
    ("cp932", "shift_jis"),
    ("cp936", "gbk"),
    ("ms936", "gbk"),
    ("windows-936", "gbk"),
    ("csgbk", "gbk"),
    ("gb-2312-80", "gbk"),
    ("csgb18030", "gb18030"),
    ("cp949", "euc-kr"),
    ("ms949", "euc-kr"),
    ("ks-c-5601-1987", "euc-kr"),
    ("ks-c-5601-1989", "euc-kr"),
    ("cp950", "big5"),
    ("ms950", "big5"),
    ("windows-950", "big5"),
    ("extended-unix-code-packed-format-for-japanese", "euc-jp"),
    ("iso-2022-jp-2", "iso-2022-jp"),
    ("iso-2022-jp-ms", "iso-2022-jp"),
    ("cp50220", "iso-2022-jp"),
    ("cp50221", "iso-2022-jp"),
    ("utf16", "utf-16"),
    ("csutf16", "utf-16"),
    ("csutf16be", "utf-16be"),
    ("csutf16le", "utf-16le"),
];

/// Octets of a name: `mail_parser` takes a longer one for the name it begins with. IANA allows 40.
const NAME_BYTES_MAX: usize = 40;

/// Turns octets of a charset into text; fed in any cuts it gives the same text.
#[derive(Debug)]
pub struct CharsetDecoder {
    state: State,
}

#[derive(Debug)]
enum State {
    Known(Box<Decoder>),
    /// Of one octet a character, and unknown to browsers.
    SingleByte(DecoderFnc),
    Utf7(Utf7),
    /// The charset is not known or US-ASCII: UTF-8 where it is valid, else windows-1252, octet by
    /// octet. Holds the octets of an unfinished UTF-8 sequence.
    Guess(Vec<u8>),
}

impl CharsetDecoder {
    /// A decoder for a MIME charset in any case. An unknown one is guessed.
    pub fn new(charset: &str) -> CharsetDecoder {
        CharsetDecoder { state: state_of(charset.trim()) }
    }

    /// True if the charset has a decoder of its own, or is US-ASCII.
    pub fn is_known(charset: &str) -> bool {
        let charset = charset.trim();
        is_ascii(charset) || !matches!(state_of(charset), State::Guess(_))
    }

    /// Decodes `bytes` and appends to `text` what is certain.
    pub fn feed(&mut self, bytes: &[u8], text: &mut String) {
        match &mut self.state {
            State::Known(decoder) => decode(decoder, bytes, text, false),
            State::SingleByte(decode) => text.push_str(&decode(bytes)),
            State::Utf7(decoder) => decoder.feed(bytes, text),
            State::Guess(held) => {
                let mut rest = bytes;
                if !held.is_empty() {
                    // At most three octets are held; the rest is not copied.
                    let n_joined = bytes.len().min(8);
                    let mut joined = std::mem::take(held);
                    joined.extend_from_slice(&bytes[..n_joined]);
                    guess(&joined, held, text);
                    // What is unfinished again lies in `bytes` whole, and is read with what follows.
                    let is_all = n_joined == bytes.len();
                    let n_again = if is_all { 0 } else { std::mem::take(held).len() };
                    rest = &bytes[n_joined - n_again..];
                }
                guess(rest, held, text);
            }
        }
    }

    /// Appends what was still held.
    pub fn finish(self, text: &mut String) {
        match self.state {
            State::Known(mut decoder) => decode(&mut decoder, &[], text, true),
            State::SingleByte(_) => {}
            State::Utf7(decoder) => decoder.finish(text),
            State::Guess(held) => push_windows_1252(&held, text),
        }
    }
}

/// Decodes all at once.
pub(crate) fn decode_all(charset: &str, bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    let mut decoder = CharsetDecoder::new(charset);
    decoder.feed(bytes, &mut text);
    decoder.finish(&mut text);
    text
}

/// Text to compare with: two texts are equal to a searching user if their folds are equal.
///
/// Letters with marks are composed, since file names of some systems are not. Upper case first, then
/// lower: so `ß` meets `SS`, final sigma meets sigma and the Kelvin sign meets `k`.
pub fn fold(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    if has_marks(text) { in_one_case(text.nfc()) } else { in_one_case(text.chars()) }
}

fn in_one_case(chars: impl Iterator<Item = char>) -> String {
    chars.flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

fn has_marks(text: &str) -> bool {
    // Most text has none of the octets that marks begin with, and is not looked at closely.
    let bytes = text.as_bytes();
    let may_have = memchr3(0xcc, 0xcd, 0xe1, bytes).or_else(|| memchr(0xe3, bytes));
    may_have.is_some() && text.contains(is_mark)
}

/// What composes with the character before it: marks of Latin, Greek and Cyrillic, of kana, and jamo.
fn is_mark(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36f}' | '\u{1161}'..='\u{11c2}' | '\u{3099}'..='\u{309a}')
}

/// Text to sort by: as RFC 4790 9.2 and RFC 5051 have it, so that what stands between the capitals and
/// the small letters of US-ASCII comes behind them, and letters with marks next to those without. Texts
/// that agree in their first `COLLATION_CHARS_MAX` characters have one key.
pub fn collation_key(text: &str) -> String {
    let end = text.char_indices().nth(COLLATION_CHARS_MAX);
    let text = end.map_or(text, |(end, _)| &text[..end]);
    if text.is_ascii() {
        return text.to_ascii_uppercase();
    }
    let mut key: String = fold(text).nfd().collect();
    key.make_ascii_uppercase();
    key
}

/// As [`fold`], of a text that is not wanted any more as it was.
pub fn fold_in_place(text: &mut String) {
    if text.is_ascii() {
        text.make_ascii_lowercase();
    } else {
        *text = fold(text);
    }
}

fn is_ascii(charset: &str) -> bool {
    is_one_of(charset, &["", "us-ascii", "ascii", "ansi_x3.4-1968"])
}

fn is_utf_7(charset: &str) -> bool {
    is_one_of(
        charset,
        &["utf-7", "utf7", "utf_7", "unicode-1-1-utf-7", "csutf7", "csunicode11utf7"],
    )
}

/// Of either order of octets.
fn is_utf_16(charset: &str) -> bool {
    is_one_of(charset, &["utf-16", "utf_16", "utf16", "csutf16"])
}

fn is_one_of(charset: &str, names: &[&str]) -> bool {
    names.iter().any(|name| charset.eq_ignore_ascii_case(name))
}

/// What decodes a charset whose name has no space around it.
fn state_of(charset: &str) -> State {
    if is_ascii(charset) {
        return State::Guess(Vec::new());
    }
    if is_utf_7(charset) {
        return State::Utf7(Utf7::default());
    }
    match encoding(charset) {
        // Why: the "replacement" encoding of browsers turns every octet into nothing.
        Some(encoding) if encoding == REPLACEMENT => State::Guess(Vec::new()),
        // RFC 2781 4.3: the byte order mark tells which of the two it is.
        Some(encoding) if is_utf_16(charset) => State::Known(Box::new(encoding.new_decoder())),
        Some(encoding) => State::Known(Box::new(encoding.new_decoder_with_bom_removal())),
        None => match charset_decoder(charset.as_bytes()) {
            Some(decode) if charset.len() <= NAME_BYTES_MAX => State::SingleByte(decode),
            _ => State::Guess(Vec::new()),
        },
    }
}

fn encoding(charset: &str) -> Option<&'static Encoding> {
    Encoding::for_label(charset.as_bytes()).or_else(|| {
        let name = charset.to_ascii_lowercase().replace('_', "-");
        let alias = ALIASES.iter().find(|(alias, _)| *alias == name);
        Encoding::for_label(alias.map_or(name.as_str(), |(_, label)| label).as_bytes())
    })
}

fn decode(decoder: &mut Decoder, mut bytes: &[u8], text: &mut String, is_last: bool) {
    if decoder.encoding() == ISO_2022_JP {
        return decode_japanese(decoder, bytes, text, is_last);
    }
    loop {
        // Invariant: decode_to_string never grows the string, so there must be room.
        text.reserve(decoder.max_utf8_buffer_length(bytes.len()).unwrap_or(bytes.len()).max(16));
        let (result, n_read, _) = decoder.decode_to_string(bytes, text, is_last);
        bytes = &bytes[n_read..];
        if result == encoding_rs::CoderResult::InputEmpty {
            return;
        }
    }
}

/// RFC 2047 3: every encoded word ends in US-ASCII, so where words are joined, and within lines of some
/// senders, one escape sequence follows another at once. Browsers call the first of them an error; in
/// mail it is none, and says nothing.
fn decode_japanese(decoder: &mut Decoder, mut bytes: &[u8], text: &mut String, is_last: bool) {
    let mut room = [0; JAPANESE_BYTES];
    loop {
        let (result, n_read, n_written) =
            decoder.decode_to_utf8_without_replacement(bytes, &mut room, is_last);
        bytes = &bytes[n_read..];
        text.push_str(&String::from_utf8_lossy(&room[..n_written]));
        match result {
            DecoderResult::InputEmpty => return,
            // Three octets wrong and three behind them: in this charset only the two sequences.
            DecoderResult::OutputFull | DecoderResult::Malformed(3, 3) => {}
            DecoderResult::Malformed(..) => text.push(char::REPLACEMENT_CHARACTER),
        }
    }
}

fn guess(bytes: &[u8], held: &mut Vec<u8>, text: &mut String) {
    let mut chunks = bytes.utf8_chunks().peekable();
    while let Some(chunk) = chunks.next() {
        text.push_str(chunk.valid());
        let is_unfinished = chunks.peek().is_none() && may_continue(chunk.invalid());
        if is_unfinished {
            held.extend_from_slice(chunk.invalid());
        } else {
            push_windows_1252(chunk.invalid(), text);
        }
    }
}

/// True if more octets could make `invalid` a valid UTF-8 sequence.
fn may_continue(invalid: &[u8]) -> bool {
    std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none())
}

fn push_windows_1252(bytes: &[u8], text: &mut String) {
    text.push_str(&WINDOWS_1252.decode_without_bom_handling(bytes).0);
}
