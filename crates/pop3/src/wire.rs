//! A message on its way out: every line end is CRLF, a dot that starts a line is doubled, and the
//! last line ends before the final dot (RFC 1939 3).

use memchr::memchr2;

/// Turns stored octets in any cuts into those of a multi-line response.
#[derive(Debug)]
pub(crate) struct Wire {
    is_line_start: bool,
    is_after_cr: bool,
    /// Octets of the present line are only line ends.
    is_blank: bool,
    limit: Limit,
}

/// How much of the message is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    Everything,
    /// The header, then so many lines.
    Header(u64),
    Lines(u64),
    /// Enough was seen.
    Reached,
}

impl Wire {
    /// RETR.
    pub(crate) fn whole() -> Self {
        Self { is_line_start: true, is_after_cr: false, is_blank: true, limit: Limit::Everything }
    }

    /// TOP: the header, the blank line and `n_lines` of the body.
    pub(crate) fn top(n_lines: u64) -> Self {
        Self { limit: Limit::Header(n_lines), ..Self::whole() }
    }

    /// Whether nothing more is wanted.
    pub(crate) fn is_over(&self) -> bool {
        self.limit == Limit::Reached
    }

    /// Takes the next octets of the message.
    pub(crate) fn push(&mut self, mut octets: &[u8], out: &mut Vec<u8>) {
        out.reserve(octets.len() + octets.len() / 64);
        while let Some(first) = octets.first()
            && !self.is_over()
        {
            if self.is_line_start && *first == b'.' {
                out.push(b'.');
            }
            let run = memchr2(b'\r', b'\n', octets).unwrap_or(octets.len());
            if run > 0 {
                out.extend_from_slice(&octets[..run]);
                self.is_line_start = false;
                self.is_after_cr = false;
                self.is_blank = false;
                octets = &octets[run..];
            }
            match octets.first() {
                Some(b'\n') => self.line_end(out),
                Some(_) => {
                    // A CR that stands alone is kept; it does not make a line blank or end it.
                    self.is_blank &= !self.is_after_cr;
                    out.push(b'\r');
                    self.is_after_cr = true;
                    self.is_line_start = false;
                }
                None => return,
            }
            octets = &octets[1..];
        }
    }

    /// The message is over: what is still to be sent.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        if !self.is_line_start {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b".\r\n");
    }

    fn line_end(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(if self.is_after_cr { b"\n" } else { b"\r\n" });
        self.limit = match self.limit {
            Limit::Header(n_lines) if self.is_blank => Limit::Lines(n_lines),
            Limit::Lines(n_lines) => Limit::Lines(n_lines - 1),
            limit => limit,
        };
        if self.limit == Limit::Lines(0) {
            self.limit = Limit::Reached;
        }
        self.is_line_start = true;
        self.is_after_cr = false;
        self.is_blank = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(mut wire: Wire, stored: &[u8], cut: usize) -> String {
        let mut out = Vec::new();
        stored.chunks(cut).for_each(|piece| wire.push(piece, &mut out));
        wire.finish(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn messages_leave_in_lines_with_their_dots_doubled_whatever_the_cuts() {
        let cases = [
            ("", ".\r\n"),
            ("a", "a\r\n.\r\n"),
            ("a\r\n", "a\r\n.\r\n"),
            ("a\nb\n", "a\r\nb\r\n.\r\n"),
            (".\r\n..\n.b", "..\r\n...\r\n..b\r\n.\r\n"),
            ("a\r.b\r\r\n", "a\r.b\r\r\n.\r\n"),
            ("a\r", "a\r\r\n.\r\n"),
        ];
        for (stored, want) in cases {
            for cut in 1..=stored.len().max(1) {
                assert_eq!(sent(Wire::whole(), stored.as_bytes(), cut), want, "{stored:?}");
            }
        }
    }

    #[test]
    fn top_gives_the_header_and_so_many_lines() {
        let stored = b"A: 1\r\nB: 2\r\n\r\n.one\r\ntwo\r\nthree";
        for cut in 1..=stored.len() {
            let top = |n_lines| sent(Wire::top(n_lines), stored, cut);
            assert_eq!(top(0), "A: 1\r\nB: 2\r\n\r\n.\r\n");
            assert_eq!(top(1), "A: 1\r\nB: 2\r\n\r\n..one\r\n.\r\n");
            assert_eq!(top(9), "A: 1\r\nB: 2\r\n\r\n..one\r\ntwo\r\nthree\r\n.\r\n");
        }
        assert_eq!(sent(Wire::top(5), b"A: 1\r\n", 1), "A: 1\r\n.\r\n");
    }
}
