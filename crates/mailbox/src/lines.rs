//! Input that comes as lines: what the line-based engines keep of what the client sent and they
//! have not looked at yet.

/// Octets received and not yet used.
#[derive(Debug, Default)]
pub struct Lines {
    octets: Vec<u8>,
    /// Before it everything is used.
    start: usize,
    /// Before it there is no line feed.
    searched: usize,
    /// The rest of an over-long line is thrown away.
    is_skipping: bool,
}

/// A line was longer than it may be; all of it is thrown away, and the next line is whole again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TooLong {
    /// How it began, up to what a line may have.
    pub beginning: Vec<u8>,
}

/// Capacity above which an empty buffer is given back, so that an idle session costs nothing.
const KEEP_BYTES: usize = 1024;

impl Lines {
    /// Takes octets in any cuts.
    pub fn push(&mut self, octets: &[u8]) {
        if self.start > 0 {
            self.octets.drain(..self.start);
            self.searched -= self.start;
            self.start = 0;
        }
        self.octets.extend_from_slice(octets);
    }

    /// How many octets wait.
    pub fn len(&self) -> usize {
        self.octets.len() - self.start
    }

    /// Whether none wait.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The octets that wait, lines or not.
    pub fn octets(&self) -> &[u8] {
        &self.octets[self.start..]
    }

    /// The first `n` of the waiting octets are used.
    pub fn consume(&mut self, n: usize) {
        self.start += n;
        self.searched = self.searched.max(self.start);
        if self.start == self.octets.len() {
            self.clear();
        }
    }

    /// Forgets everything that waits.
    pub fn clear(&mut self) {
        if self.octets.capacity() > KEEP_BYTES {
            self.octets = Vec::new();
        } else {
            self.octets.clear();
        }
        self.start = 0;
        self.searched = 0;
    }

    /// The next line without its end (CRLF, or LF for people who type), if it is complete. A line of
    /// more than `max` octets is told of once.
    pub fn next_line(&mut self, max: usize) -> Option<Result<Vec<u8>, TooLong>> {
        loop {
            let found = self.octets[self.searched..].iter().position(|octet| *octet == b'\n');
            let Some(at) = found.map(|at| self.searched + at) else {
                self.searched = self.octets.len();
                // The last CR may belong to the line's end.
                let line = self.octets().strip_suffix(b"\r").unwrap_or(self.octets());
                if self.is_skipping {
                    self.clear();
                } else if line.len() > max {
                    let too_long = TooLong::of(line, max);
                    self.clear();
                    self.is_skipping = true;
                    return Some(Err(too_long));
                }
                return None;
            };
            let line = &self.octets[self.start..at];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let line = match line.len() > max {
                true => Err(TooLong::of(line, max)),
                false => Ok(line.to_vec()),
            };
            self.consume(at + 1 - self.start);
            if !std::mem::take(&mut self.is_skipping) {
                return Some(line);
            }
        }
    }
}

impl TooLong {
    fn of(line: &[u8], max: usize) -> Self {
        Self { beginning: line[..max].to_vec() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_whatever_the_cuts() {
        for cut in 1..12 {
            let mut lines = Lines::default();
            let mut seen = Vec::new();
            for piece in b"one\r\n\r\ntwo\nfour\r\nfar too long\r\nx\r\nrest".chunks(cut) {
                lines.push(piece);
                while let Some(line) = lines.next_line(4) {
                    seen.push(line.map(|line| String::from_utf8(line).unwrap()));
                }
            }
            let too_long = Err(TooLong { beginning: b"far ".to_vec() });
            let want = [Ok("one"), Ok(""), Ok("two"), Ok("four"), too_long, Ok("x")];
            assert_eq!(seen, want.map(|line| line.map(str::to_owned)), "cut {cut}");
            assert_eq!(lines.octets(), b"rest");
        }
    }
}
