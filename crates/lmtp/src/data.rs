//! What comes after DATA: octets in any cuts, out comes the message without its dots.
//!
//! Promises: the end is CRLF.CRLF and nothing that only looks like it (a bare LF would let one
//! message smuggle in another), and no octet behind the end is used. A CR inside a line is an octet
//! like any other.

use memchr::memchr2;

const LINE_END: &[u8] = b"\r\n";

/// Reads a message to its end.
#[derive(Debug, Default)]
pub(crate) struct DataReader {
    state: State,
    has_bare_lf: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// After CRLF.
    #[default]
    LineStart,
    /// Inside a line.
    Line,
    /// After CR.
    Cr,
    /// After CRLF and a dot, which is not part of the message.
    Dot,
    /// After CRLF, a dot and CR.
    DotCr,
    End,
}

impl DataReader {
    /// Reads on from `input`, appends the message's octets to `out`, at most `room` (and one line
    /// end) of them, and gives the number of octets used.
    pub(crate) fn read(&mut self, input: &[u8], out: &mut Vec<u8>, room: usize) -> usize {
        let mut used = 0;
        let limit = out.len() + room;
        while used < input.len() && out.len() < limit && self.state != State::End {
            match self.state {
                State::LineStart if !matches!(input[used], b'.' | b'\r' | b'\n') => {
                    self.state = State::Line;
                    continue;
                }
                State::Line => {
                    let rest = &input[used..];
                    let rest = &rest[..rest.len().min(limit - out.len())];
                    let run = memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
                    // Why together: nearly all lines end so.
                    let is_ended = rest[run..].starts_with(LINE_END);
                    let n = if is_ended { run + LINE_END.len() } else { run };
                    out.extend_from_slice(&rest[..n]);
                    used += n;
                    if is_ended {
                        self.state = State::LineStart;
                    }
                    if is_ended || n == rest.len() {
                        continue;
                    }
                }
                _ => {}
            }
            self.step(input[used], out);
            used += 1;
        }
        used
    }

    /// Whether the end was read.
    pub(crate) fn is_at_end(&self) -> bool {
        self.state == State::End
    }

    /// Whether an LF stood alone (RFC 5321 2.3.8 forbids that). It forbids a CR that stands alone too,
    /// but MTAs pass it on, and who refused it would make them send the mail back.
    pub(crate) fn has_bare_lf(&self) -> bool {
        self.has_bare_lf
    }

    fn step(&mut self, octet: u8, out: &mut Vec<u8>) {
        let is_after_cr = matches!(self.state, State::Cr | State::DotCr);
        self.state = match (self.state, octet) {
            (State::LineStart, b'.') => State::Dot,
            (State::Cr, b'\n') => {
                out.extend_from_slice(LINE_END);
                State::LineStart
            }
            (State::DotCr, b'\n') => State::End,
            (State::Dot, b'\r') => State::DotCr,
            (_, b'\r') => {
                out.extend(is_after_cr.then_some(b'\r'));
                State::Cr
            }
            (_, octet) => {
                out.extend(is_after_cr.then_some(b'\r'));
                self.has_bare_lf |= octet == b'\n';
                out.push(octet);
                State::Line
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &[u8], cut: usize) -> (Vec<u8>, usize, bool, bool) {
        let mut reader = DataReader::default();
        let mut out = Vec::new();
        let mut used = 0;
        for piece in input.chunks(cut) {
            let mut piece = piece;
            while !piece.is_empty() && !reader.is_at_end() {
                let n = reader.read(piece, &mut out, 5);
                used += n;
                piece = &piece[n..];
            }
        }
        (out, used, reader.is_at_end(), reader.has_bare_lf())
    }

    #[test]
    fn dots_are_taken_off_and_the_end_is_found_whatever_the_cuts() {
        let cases: [(&[u8], &[u8], bool); 12] = [
            (b".\r\n", b"", false),
            (b"a\r\n.\r\n", b"a\r\n", false),
            (b"a\r\n..\r\n.b\r\n...\r\n.\r\n", b"a\r\n.\r\nb\r\n..\r\n", false),
            (b"a\n.\n\r\n.\r\n", b"a\n.\n\r\n", true),
            (b"a\r\n.\n\r\n.\r\n", b"a\r\n\n\r\n", true),
            (b"a\n.\r\n\r\n.\r\n", b"a\n.\r\n\r\n", true),
            (b"a\r.\r\n.\r\n", b"a\r.\r\n", false),
            (b"\r\r\n.\r\n", b"\r\r\n", false),
            (b"a\r\r\rb\r\n.\r\n", b"a\r\r\rb\r\n", false),
            (b".\r\r\n.\rb\r\n.\r\n", b"\r\r\n\rb\r\n", false),
            (b"a\r.\r\r\n.\r\n", b"a\r.\r\r\n", false),
            (b"nul \0 8bit \xff\r\n.\r\n", b"nul \0 8bit \xff\r\n", false),
        ];
        for (input, want, bare) in cases {
            for cut in 1..=input.len() {
                let behind = [input, b"QUIT\r\n"].concat();
                let (out, used, is_at_end, has_bare) = read(&behind, cut);
                assert_eq!(out, want, "{:?} cut {cut}", String::from_utf8_lossy(input));
                assert_eq!((used, is_at_end, has_bare), (input.len(), true, bare));
            }
        }
    }
}
