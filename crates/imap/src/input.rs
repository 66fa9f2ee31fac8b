//! Gathers what the client sends, in whatever cuts it comes, into commands.

use bytes::{Buf, Bytes, BytesMut};

use crate::parse::{Fault, literal_mark};

/// What was gathered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Gathered {
    /// Not enough yet.
    Nothing,
    /// A command or line, without its line end; take it with [`Input::take_command`].
    Line,
    /// The command so far ends in the mark of a literal: accept or skip it.
    Literal(Literal),
    /// The line is too long, or cannot be followed any more; what is left of it is being skipped.
    TooLong,
    /// A literal's size cannot be true, so the end of the command cannot be found.
    Lost,
    /// What was to be skipped is skipped.
    Skipped,
}

/// A literal on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Literal {
    pub(crate) len: u64,
    pub(crate) is_synchronising: bool,
    pub(crate) is_binary: bool,
    /// Length of the command up to the mark.
    pub(crate) start: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Up to the end of a line.
    Line,
    /// So many octets of a literal are missing.
    Literal(u64),
    /// So many octets are thrown away, then the rest of the line.
    Skip(u64),
}

/// Octets kept of a line that is skipped, to see whether it ends in a literal's mark.
const MARK_BYTES_MAX: usize = 32;

/// Octets received and not yet used.
#[derive(Debug)]
pub(crate) struct Input {
    pending: BytesMut,
    /// Octets of `pending` known to hold no line end.
    scanned: usize,
    command: Vec<u8>,
    /// Octets of `command` that are no literals.
    line_bytes: usize,
    state: State,
}

impl Input {
    pub(crate) fn new() -> Self {
        Self {
            pending: BytesMut::new(),
            scanned: 0,
            command: Vec::new(),
            line_bytes: 0,
            state: State::Line,
        }
    }

    /// Takes in what came.
    pub(crate) fn receive(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// Octets not yet looked at.
    pub(crate) fn n_pending(&self) -> usize {
        self.pending.len()
    }

    /// What was received behind the last command.
    pub(crate) fn take_pending(&mut self) -> BytesMut {
        self.scanned = 0;
        std::mem::take(&mut self.pending)
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        *self = Self::new();
    }

    /// The command so far.
    pub(crate) fn command(&self) -> &[u8] {
        &self.command
    }

    /// The gathered command; the next one begins.
    pub(crate) fn take_command(&mut self) -> Vec<u8> {
        self.line_bytes = 0;
        std::mem::take(&mut self.command)
    }

    /// Goes on gathering, until a command is complete or a decision is needed.
    pub(crate) fn gather(&mut self, line_bytes_max: usize) -> Gathered {
        loop {
            match self.state {
                State::Line => match self.gather_line(line_bytes_max) {
                    Some(gathered) => return gathered,
                    None => return Gathered::Nothing,
                },
                State::Literal(missing) => {
                    let n = missing.min(self.pending.len() as u64) as usize;
                    self.command.extend_from_slice(&self.pending[..n]);
                    self.pending.advance(n);
                    self.state = State::Literal(missing - n as u64);
                    if missing > n as u64 {
                        return Gathered::Nothing;
                    }
                    self.state = State::Line;
                    self.scanned = 0;
                }
                State::Skip(missing) => {
                    let n = missing.min(self.pending.len() as u64) as usize;
                    self.pending.advance(n);
                    self.state = State::Skip(missing - n as u64);
                    if missing > n as u64 {
                        return Gathered::Nothing;
                    }
                    match self.skip_line() {
                        Some(true) => {}
                        Some(false) => return Gathered::Skipped,
                        None => return Gathered::Nothing,
                    }
                }
            }
        }
    }

    fn line_end(&mut self) -> Option<usize> {
        let found = self.pending[self.scanned..].iter().position(|byte| *byte == b'\n');
        match found {
            Some(at) => Some(std::mem::take(&mut self.scanned) + at + 1),
            None => {
                self.scanned = self.pending.len();
                None
            }
        }
    }

    fn gather_line(&mut self, line_bytes_max: usize) -> Option<Gathered> {
        let end = self.line_end();
        let n_new = end.unwrap_or(self.pending.len());
        if self.line_bytes + n_new > line_bytes_max {
            if self.command.is_empty() {
                // The tag is all that is still of use.
                let head = self.pending.len().min(MARK_BYTES_MAX * 2);
                self.command.extend_from_slice(&self.pending[..head]);
            }
            self.scanned = 0;
            self.state = State::Skip(0);
            return Some(Gathered::TooLong);
        }
        let end = end?;
        let line = self.pending.split_to(end);
        self.line_bytes += line.len();
        let before = self.command.len();
        self.command.extend_from_slice(&line);
        let content = without_line_end(&line);
        match literal_mark(content) {
            Err(Fault::Bad(_) | Fault::No(..)) => Some(Gathered::Lost),
            Ok(None) => {
                self.command.truncate(before + content.len());
                Some(Gathered::Line)
            }
            Ok(Some(mark)) => Some(Gathered::Literal(Literal {
                len: mark.len,
                is_synchronising: mark.is_synchronising,
                is_binary: mark.is_binary,
                start: before + mark.start,
            })),
        }
    }

    /// Throws the rest of a line away. True if a non-synchronising literal and more line follow,
    /// false at its end, `None` if the end has not come.
    fn skip_line(&mut self) -> Option<bool> {
        let Some(end) = self.line_end() else {
            // A mark may be cut: keep what could be one.
            let surplus = self.pending.len().saturating_sub(MARK_BYTES_MAX);
            self.pending.advance(surplus);
            self.scanned = self.pending.len();
            return None;
        };
        let line = self.pending.split_to(end);
        self.state = State::Line;
        match literal_mark(without_line_end(&line)) {
            Ok(Some(mark)) if !mark.is_synchronising => {
                self.state = State::Skip(mark.len);
                Some(true)
            }
            _ => Some(false),
        }
    }

    /// The literal just announced becomes part of the command.
    pub(crate) fn accept(&mut self, literal: Literal) {
        self.state = State::Literal(literal.len);
    }

    /// So many octets and the rest of their line are thrown away; then comes
    /// [`Gathered::Skipped`].
    pub(crate) fn skip(&mut self, n_octets: u64) {
        self.command.clear();
        self.line_bytes = 0;
        self.scanned = 0;
        self.state = State::Skip(n_octets);
    }

    /// Up to `max` octets of a literal that passes through.
    pub(crate) fn octets(&mut self, max: usize) -> Bytes {
        let n = max.min(self.pending.len());
        self.scanned = 0;
        self.pending.split_to(n).freeze()
    }
}

fn without_line_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}
