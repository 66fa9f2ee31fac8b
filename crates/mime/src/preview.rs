//! The preview (RFC 8970), made from the first octets of the first text part.

use mail_parser::decoders::html::html_to_text;

use crate::charset::decode_all;
use crate::limits::{PREVIEW_CHARS_MAX, PREVIEW_SOURCE_BYTES_MAX};
use crate::word::transfer_decode;

/// The start of a text part, gathered while it streams past.
#[derive(Debug)]
pub(crate) struct PreviewSource {
    /// It counts where no other text is found.
    pub(crate) is_attachment: bool,
    pub(crate) is_html: bool,
    pub(crate) encoding: String,
    pub(crate) charset: String,
    pub(crate) raw: Vec<u8>,
}

impl PreviewSource {
    pub(crate) fn gather(&mut self, bytes: &[u8]) {
        let room = PREVIEW_SOURCE_BYTES_MAX - self.raw.len();
        self.raw.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// The preview; `None` if there is nothing to read in it.
    pub(crate) fn read(&self) -> Option<String> {
        let octets = transfer_decode(&self.encoding, &self.raw);
        let mut text = decode_all(&self.charset, &octets);
        if self.is_html {
            text = html_to_text(&text);
        }
        let mut preview = String::new();
        let mut n_chars = 0;
        for word in text.split(|c: char| c.is_whitespace() || c.is_control()) {
            if word.is_empty() {
                continue;
            }
            let gap = if preview.is_empty() { "" } else { " " };
            for c in gap.chars().chain(word.chars()) {
                if n_chars == PREVIEW_CHARS_MAX {
                    return Some(preview.trim_end().to_owned());
                }
                preview.push(c);
                n_chars += 1;
            }
        }
        (!preview.is_empty()).then_some(preview)
    }
}
