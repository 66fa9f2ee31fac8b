//! The preview (RFC 8970), made of the first text part while it streams past.

use crate::charset::CharsetDecoder;
use crate::html::HtmlReader;
use crate::limits::{PREVIEW_CHARS_MAX, PREVIEW_SOURCE_BYTES_MAX};
use crate::transfer::TransferDecoder;

/// Octets read at once: mostly the first of them fill a preview.
const PIECE_BYTES: usize = 1024;

/// A text part that is read as far as its preview needs.
#[derive(Debug)]
pub(crate) struct PreviewSource {
    /// It counts where no other text is found.
    pub(crate) is_attachment: bool,
    transfer: TransferDecoder,
    charset: CharsetDecoder,
    html: Option<HtmlReader>,
    line: Line,
    /// Octets that may still be read.
    n_left: usize,
}

impl PreviewSource {
    /// For text, or HTML, of this encoding; `None` if that is not known.
    pub(crate) fn new(is_html: bool, encoding: &str, charset: &str) -> Option<PreviewSource> {
        Some(PreviewSource {
            is_attachment: false,
            transfer: TransferDecoder::new(encoding)?,
            charset: CharsetDecoder::new(charset),
            html: is_html.then(HtmlReader::default),
            line: Line::default(),
            n_left: PREVIEW_SOURCE_BYTES_MAX,
        })
    }

    /// Takes the next octets of the part.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        for piece in bytes[..bytes.len().min(self.n_left)].chunks(PIECE_BYTES) {
            if self.line.is_full() {
                return;
            }
            self.n_left -= piece.len();
            let (mut octets, mut text) = (Vec::new(), String::new());
            self.transfer.feed(piece, &mut octets);
            self.charset.feed(&octets, &mut text);
            match &mut self.html {
                Some(html) => {
                    let mut read = String::new();
                    html.feed(&text, &mut read);
                    self.line.push(&read);
                }
                None => self.line.push(&text),
            }
        }
    }

    /// The preview; `None` if there is nothing to read in it.
    pub(crate) fn finish(mut self) -> Option<String> {
        let (mut octets, mut text) = (Vec::new(), String::new());
        self.transfer.finish(&mut octets);
        self.charset.feed(&octets, &mut text);
        self.charset.finish(&mut text);
        if let Some(mut html) = self.html {
            let mut read = String::new();
            html.feed(&text, &mut read);
            html.finish(&mut read);
            text = read;
        }
        self.line.push(&text);
        let preview = self.line.text.trim_end();
        (!preview.is_empty()).then(|| preview.to_owned())
    }
}

/// RFC 8970 3.1: white space is one space, and none at either end.
#[derive(Debug, Default)]
struct Line {
    text: String,
    n_chars: usize,
    has_gap: bool,
}

impl Line {
    fn is_full(&self) -> bool {
        self.n_chars == PREVIEW_CHARS_MAX
    }

    fn push(&mut self, text: &str) {
        for c in text.chars() {
            if self.is_full() {
                return;
            }
            if c.is_whitespace() || c.is_control() {
                self.has_gap = true;
                continue;
            }
            if std::mem::take(&mut self.has_gap) && !self.text.is_empty() {
                self.push_char(' ');
            }
            self.push_char(c);
        }
    }

    fn push_char(&mut self, c: char) {
        if !self.is_full() {
            self.text.push(c);
            self.n_chars += 1;
        }
    }
}
