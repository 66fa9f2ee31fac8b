//! Modified UTF-7 (RFC 3501 5.1.3), in which mailbox names travel until UTF-8 is enabled.

use base64::Engine as _;
use base64::alphabet::IMAP_MUTF7;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &IMAP_MUTF7,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

/// The text in modified UTF-7.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    let mut shifted: Vec<u8> = Vec::new();
    for character in text.chars() {
        if matches!(character, ' '..='~') {
            flush(&mut shifted, &mut encoded);
            encoded.push(character);
            if character == '&' {
                encoded.push('-');
            }
        } else {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                shifted.extend_from_slice(&unit.to_be_bytes());
            }
        }
    }
    flush(&mut shifted, &mut encoded);
    encoded
}

fn flush(shifted: &mut Vec<u8>, encoded: &mut String) {
    if !shifted.is_empty() {
        encoded.push('&');
        BASE64.encode_string(&*shifted, encoded);
        encoded.push('-');
        shifted.clear();
    }
}

/// The text; `None` if it is not modified UTF-7 in its one canonical form.
pub(crate) fn decode(encoded: &[u8]) -> Option<String> {
    let mut text = String::with_capacity(encoded.len());
    let mut rest = encoded;
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        match byte {
            b'&' => {
                let end = rest.iter().position(|byte| *byte == b'-')?;
                let (inner, behind) = (&rest[..end], &rest[end + 1..]);
                rest = behind;
                if inner.is_empty() {
                    text.push('&');
                } else {
                    text.push_str(&decode_shifted(inner)?);
                }
            }
            b' '..=b'~' => text.push(char::from(byte)),
            _ => return None,
        }
    }
    // Why: two spellings of one name would be two names to a client; only ours is taken.
    (encode(&text).as_bytes() == encoded).then_some(text)
}

fn decode_shifted(inner: &[u8]) -> Option<String> {
    let bytes = BASE64.decode(inner).ok()?;
    let units = bytes.chunks(2).map(|unit| Some(u16::from_be_bytes(unit.try_into().ok()?)));
    String::from_utf16(&units.collect::<Option<Vec<_>>>()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_examples_of_the_rfc() {
        assert_eq!(encode("~peter/mail/台北/日本語"), "~peter/mail/&U,BTFw-/&ZeVnLIqe-");
        assert_eq!(decode(b"&Jjo-!").as_deref(), Some("☺!"));
        assert_eq!(decode(b"&Jjo!"), None);
        assert_eq!(decode(b"&U,BTFw-&ZeVnLIqe-"), None, "superfluous shift");
        assert_eq!(decode(b"a&-b").as_deref(), Some("a&b"));
        assert_eq!(decode(b"&AGE-"), None, "a printable letter must not be shifted");
        assert_eq!(decode(b"caf\xc3\xa9"), None);
    }

    proptest! {
        #[test]
        fn every_text_comes_back(text in ".*") {
            prop_assert_eq!(decode(encode(&text).as_bytes()), Some(text));
        }

        #[test]
        fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = decode(&bytes);
        }
    }
}
