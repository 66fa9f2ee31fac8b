//! What comes after BDAT (RFC 3030): so many octets, which are the message as they are.
//!
//! Promises: what follows a chunk is read as a command only behind all of its octets, and no octet
//! means anything inside of it. A message is CRLF lines here too, since BINARYMIME is not offered: a
//! line end may be cut in two by chunks, an LF that stands alone is told, and the line end that the last
//! line lacks can be asked for.

use memchr::memchr_iter;

/// Reads a message chunk by chunk.
#[derive(Debug, Default)]
pub(crate) struct ChunkReader {
    /// Octets of the present chunk that are still to come.
    left: u64,
    is_last: bool,
    is_after_cr: bool,
    /// After something else than CRLF.
    is_inside_line: bool,
    has_bare_lf: bool,
}

impl ChunkReader {
    /// The next chunk begins; all of the one before was read.
    pub(crate) fn begin(&mut self, n_bytes: u64, is_last: bool) {
        self.left = n_bytes;
        self.is_last = is_last;
    }

    /// Whether nothing comes after this chunk.
    pub(crate) fn is_last(&self) -> bool {
        self.is_last
    }

    /// Reads on from `input`, appends at most `room` octets to `out`, and gives the number of octets
    /// used.
    pub(crate) fn read(&mut self, input: &[u8], out: &mut Vec<u8>, room: usize) -> usize {
        let left = usize::try_from(self.left).unwrap_or(usize::MAX);
        let octets = &input[..input.len().min(room).min(left)];
        self.is_inside_line = match octets {
            [] => self.is_inside_line,
            [b'\n'] => !self.is_after_cr,
            _ => !octets.ends_with(b"\r\n"),
        };
        self.look_at(octets);
        out.extend_from_slice(octets);
        self.left -= octets.len() as u64;
        octets.len()
    }

    /// Whether the chunk was read to its end.
    pub(crate) fn is_at_end(&self) -> bool {
        self.left == 0
    }

    /// Whether an LF stood alone.
    pub(crate) fn has_bare_lf(&self) -> bool {
        self.has_bare_lf
    }

    /// Ends a line that the message ends without, so that it is the same as after DATA.
    pub(crate) fn end_line(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.is_inside_line) {
            out.extend_from_slice(b"\r\n");
        }
    }

    fn look_at(&mut self, octets: &[u8]) {
        let Some(last) = octets.last() else { return };
        let is_bare = |at: usize| match at.checked_sub(1) {
            Some(before) => octets[before] != b'\r',
            None => !self.is_after_cr,
        };
        self.has_bare_lf |= memchr_iter(b'\n', octets).any(is_bare);
        self.is_after_cr = *last == b'\r';
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(message: &[u8], chunk: usize, cut: usize) -> (Vec<u8>, bool) {
        let mut reader = ChunkReader::default();
        let mut out = Vec::new();
        let mut left = message;
        loop {
            let (octets, behind) = left.split_at(left.len().min(chunk));
            left = behind;
            reader.begin(octets.len() as u64, left.is_empty());
            let wire = [octets, b"NOOP\r\n"].concat();
            let mut used = 0;
            while !reader.is_at_end() {
                used += reader.read(&wire[used..wire.len().min(used + cut)], &mut out, 5);
            }
            assert_eq!(used, octets.len(), "no octet behind the chunk is used");
            if reader.is_last() {
                let has_bare_lf = reader.has_bare_lf();
                let n_read = out.len();
                reader.end_line(&mut out);
                let is_ended = n_read == 0 || message.ends_with(b"\r\n");
                assert_eq!(&out[n_read..], if is_ended { b"" } else { b"\r\n".as_slice() });
                reader.end_line(&mut out);
                out.truncate(n_read);
                return (out, has_bare_lf);
            }
        }
    }

    #[test]
    fn octets_are_the_message_whatever_the_chunks_and_cuts() {
        let cases: [(&[u8], bool); 10] = [
            (b"", false),
            (b"a", false),
            (b"a\r\n.\r\n..b\r\n", false),
            (b"nul \0 8bit \xff\r\n", false),
            (b"a\nb\r\n", true),
            (b"\n", true),
            (b"a\r\n\nb", true),
            (b"a\rb", false),
            (b"a\r\r\n", false),
            (b"a\r", false),
        ];
        for (message, bare) in cases {
            for chunk in 1..=message.len().max(1) {
                for cut in 1..=message.len() + 1 {
                    let got = read(message, chunk, cut);
                    assert_eq!(got, (message.to_vec(), bare), "chunks of {chunk}, cut {cut}");
                }
            }
        }
    }
}
