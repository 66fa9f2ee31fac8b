//! The scanner: one pass over a message in any cuts, structure out.
//!
//! Two modes. In a header every line is looked at, and interesting fields are kept until the
//! block ends. In a body only line starts with `--` are looked at, found by a vectorised search;
//! everything else is counted and forgotten. A line that may be a delimiter and is not complete
//! yet is held back; nothing else is.
//!
//! A message that goes beyond the limits turns opaque: from there on only line ends are counted.

mod fields;
mod tree;

use memchr::{memchr, memchr_iter, memmem};

use crate::envelope::Envelope;
use crate::header::is_blank;
use crate::limits::{
    DELIMITER_LINE_BYTES_MAX, DEPTH_MAX, FIELD_BYTES_MAX, HEADER_BYTES_MAX, ITEMS_MAX, PARTS_MAX,
};
use crate::metadata::{Metadata, Range};
use crate::part::Part;
use crate::preview::PreviewSource;
use crate::sort::SortKeys;
use crate::token::Budget;
pub(crate) use fields::Fields;
use tree::{Delimiter, Open, Role};

/// Finds the structure of a message that streams past.
///
/// Feed it the raw message in any cuts, then [`finish`](Scanner::finish). It holds the fields of
/// one header block and never a body. It never fails: what is no message is shown as text.
#[derive(Debug)]
pub struct Scanner {
    mode: Mode,
    /// Offset of the first octet not yet consumed; held octets are not.
    position: u64,
    /// Line feeds before `position`.
    n_lines: u64,
    /// The last two octets before `position` of a body or a delimiter line. Where a header ends,
    /// the second is a line feed or nothing, so it never passes for the first of a new body's.
    tail: [u8; 2],
    /// The start of a line that cannot be judged yet, at most `FIELD_BYTES_MAX`.
    held: Vec<u8>,
    /// Octets of the held line that were not kept, and the last of them.
    n_dropped: u64,
    last_dropped: u8,
    /// In a body: the next octet starts a line.
    at_line_start: bool,
    /// The parts that are open, outermost first; never empty.
    open: Vec<Open>,
    fields: Fields,
    n_parts: usize,
    n_header_bytes: u64,
    seams: Seams,
    budget: Budget,
    /// Envelope and keys of the message itself, once its header has ended.
    head: Option<(Envelope, SortKeys)>,
    preview_source: Option<PreviewSource>,
    preview: Option<String>,
    /// The preview is of an attachment: of the next text that is none rather.
    is_preview_spare: bool,
}

/// Where parts begin, as far as the scanner came. 0: nowhere yet.
#[derive(Clone, Copy, Debug, Default)]
struct Seams {
    /// Behind the message's own header.
    header_end: u64,
    /// Bodies of leaf parts begin here: the first and the last one so far.
    first_body: u64,
    last_body: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Header,
    Body,
    Opaque,
}

/// Scans a message that is in memory.
pub fn scan(raw: &[u8]) -> Metadata {
    let mut scanner = Scanner::new();
    scanner.feed(raw);
    scanner.finish()
}

impl Default for Scanner {
    fn default() -> Self {
        Scanner::new()
    }
}

impl Scanner {
    /// A scanner before the first octet.
    pub fn new() -> Scanner {
        Scanner {
            mode: Mode::Header,
            position: 0,
            n_lines: 0,
            tail: [0; 2],
            held: Vec::new(),
            n_dropped: 0,
            last_dropped: 0,
            at_line_start: true,
            open: vec![Open::message(0)],
            fields: Fields::of_message(),
            n_parts: 1,
            n_header_bytes: 0,
            seams: Seams::default(),
            budget: Budget::new(ITEMS_MAX),
            head: None,
            preview_source: None,
            preview: None,
            is_preview_spare: true,
        }
    }

    /// Takes the next octets of the message.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let n_taken = match self.mode {
                Mode::Header => self.feed_header(bytes),
                Mode::Body if self.at_line_start => self.feed_line_start(bytes),
                Mode::Body => self.feed_body(bytes),
                Mode::Opaque => {
                    self.consume(bytes);
                    bytes.len()
                }
            };
            bytes = &bytes[n_taken..];
        }
    }

    /// Where the message is best cut, of what was fed so far: behind its header, and where the body
    /// begins of the last part that has one. Ascending; 0 where there is nothing to cut.
    ///
    /// The header of the first part stays with the message's: it is short, and asked for with it.
    pub fn seams(&self) -> [u64; 2] {
        let Seams { header_end, first_body, last_body } = self.seams;
        [if first_body < last_body { header_end } else { 0 }, last_body]
    }

    /// Ends the message.
    pub fn finish(mut self) -> Metadata {
        let line = std::mem::take(&mut self.held);
        if self.mode == Mode::Header {
            if !line.is_empty() {
                self.header_line(&line);
            }
        } else if !line.is_empty() && !self.delimiter_line(&line) {
            self.consume(&line);
        }
        self.drop_void_part();
        self.end_headers();
        let is_opaque = self.mode == Mode::Opaque;
        while self.open.len() > 1 {
            self.close_innermost(self.position, self.n_lines);
        }
        self.end_preview();
        let structure = match self.open.pop() {
            Some(root) => root.close(self.position, self.n_lines),
            None => Part::opaque(Range::default(), Range::default(), 0),
        };
        let (envelope, sort) = self.head.take().unwrap_or_default();
        let mut metadata = Metadata {
            envelope,
            has_attachment: tree::has_attachment(&structure),
            structure,
            sort,
            size: self.position,
            preview: self.preview.take(),
            excerpt: None,
        };
        if is_opaque {
            metadata.make_opaque();
        }
        metadata
    }

    /// Takes back the part that a delimiter opened right at the end of the message: the last
    /// delimiter lacked its dashes.
    fn drop_void_part(&mut self) {
        let Some(innermost) = self.open.last() else { return };
        let is_void = self.mode == Mode::Header && innermost.starts_at(self.position);
        if is_void && !innermost.is_message {
            self.open.pop();
            self.mode = Mode::Body;
        }
    }

    /// In a header: gathers one line and judges it.
    fn feed_header(&mut self, bytes: &[u8]) -> usize {
        let Some(line_feed) = memchr(b'\n', bytes) else {
            self.hold(bytes);
            return bytes.len();
        };
        let line = &bytes[..=line_feed];
        if self.held.is_empty() {
            self.header_line(line);
        } else {
            self.hold(line);
            let mut held = std::mem::take(&mut self.held);
            self.header_line(&held);
            // The buffer is used again, unless one long line made it large.
            if held.capacity() <= 4096 {
                held.clear();
                self.held = held;
            }
        }
        line.len()
    }

    fn hold(&mut self, bytes: &[u8]) {
        let n_kept = bytes.len().min(FIELD_BYTES_MAX.saturating_sub(self.held.len()));
        self.held.extend_from_slice(&bytes[..n_kept]);
        self.n_dropped += (bytes.len() - n_kept) as u64;
        self.last_dropped = bytes.last().copied().unwrap_or(self.last_dropped);
    }

    /// One complete line of a header. Its end may have been dropped.
    fn header_line(&mut self, line: &[u8]) {
        // A line of which something was dropped is too long to delimit.
        if self.delimiter_line(line) {
            return;
        }
        let n_dropped = std::mem::take(&mut self.n_dropped);
        let n_bytes = line.len() as u64 + n_dropped;
        let has_line_feed =
            if n_dropped > 0 { self.last_dropped == b'\n' } else { line.ends_with(b"\n") };
        self.position += n_bytes;
        self.n_lines += u64::from(has_line_feed);
        self.n_header_bytes += n_bytes;
        if is_blank(line) {
            self.end_header();
        } else {
            // A line that came in one piece is cut where a held one is.
            self.fields.line(&line[..line.len().min(FIELD_BYTES_MAX)]);
        }
        if self.n_header_bytes > HEADER_BYTES_MAX && self.open.len() > 1 {
            self.turn_opaque();
        }
    }

    /// In a body at the start of a line: only a line that starts with `--` is held back.
    fn feed_line_start(&mut self, bytes: &[u8]) -> usize {
        let start_octets = self.held.iter().chain(bytes).take(2);
        if !start_octets.eq(b"--".iter().take((self.held.len() + bytes.len()).min(2))) {
            self.at_line_start = false;
            let held = std::mem::take(&mut self.held);
            self.consume(&held);
            return 0;
        }
        let n_room = DELIMITER_LINE_BYTES_MAX - self.held.len();
        let window = &bytes[..bytes.len().min(n_room)];
        match memchr(b'\n', window) {
            Some(line_feed) if self.held.is_empty() => {
                let line = &window[..=line_feed];
                if !self.delimiter_line(line) {
                    self.consume(line);
                }
                line.len()
            }
            Some(line_feed) => {
                let mut line = std::mem::take(&mut self.held);
                line.extend_from_slice(&window[..=line_feed]);
                if !self.delimiter_line(&line) {
                    self.consume(&line);
                }
                line_feed + 1
            }
            None if window.len() == n_room => {
                self.at_line_start = false;
                let held = std::mem::take(&mut self.held);
                self.consume(&held);
                0
            }
            None => {
                self.held.extend_from_slice(window);
                window.len()
            }
        }
    }

    /// In a body, inside a line: runs to the next line that may be a delimiter.
    fn feed_body(&mut self, bytes: &[u8]) -> usize {
        let n_taken = if !self.open.iter().any(Open::awaits_delimiter) {
            bytes.len()
        } else if let Some(at) = memmem::find(bytes, b"\n--") {
            at + 1
        } else {
            bytes.len() - usize::from(bytes.ends_with(b"\n-"))
        };
        let run = &bytes[..n_taken];
        self.at_line_start = run.ends_with(b"\n");
        self.consume(run);
        n_taken
    }

    /// Counts body octets.
    fn consume(&mut self, bytes: &[u8]) {
        match bytes {
            [] => return,
            [last] => self.tail = [self.tail[1], *last],
            [.., before, last] => self.tail = [*before, *last],
        }
        self.position += bytes.len() as u64;
        self.n_lines += memchr_iter(b'\n', bytes).count() as u64;
        if let Some(source) = &mut self.preview_source {
            source.feed(bytes);
        }
    }

    /// If `line` delimits parts, ends those it ends and starts the next.
    fn delimiter_line(&mut self, line: &[u8]) -> bool {
        if line.len() > DELIMITER_LINE_BYTES_MAX {
            return false;
        }
        let Some(Delimiter { level, is_last }) = tree::delimiter(&self.open, line) else {
            return false;
        };
        // RFC 2046 5.1.1: the line end before a delimiter belongs to it. A header keeps its own,
        // and so do the parts around a part without a body.
        let innermost = &self.open[self.open.len() - 1];
        let is_bodiless = self.mode == Mode::Header || innermost.body_start == self.position;
        let n_line_end = match self.tail {
            _ if is_bodiless => 0,
            [b'\r', b'\n'] => 2,
            _ => 1,
        };
        self.end_headers();
        if self.mode == Mode::Opaque {
            return false;
        }
        let end = self.position - n_line_end;
        let n_lines = self.n_lines - u64::from(n_line_end > 0);
        while self.open.len() > level + 1 {
            self.close_innermost(end, n_lines);
        }
        self.position += line.len() as u64;
        self.n_lines += u64::from(line.ends_with(b"\n"));
        self.tail = if line.ends_with(b"\r\n") { *b"\r\n" } else { *b"\0\n" };
        if is_last {
            self.open[level].end_parts();
            self.at_line_start = true;
        } else if line.ends_with(b"\n") {
            let is_digest = self.open[level].is_digest();
            self.open_part(Open::part(self.position, is_digest), Fields::of_part());
        }
        true
    }

    /// Opens a part whose header starts here.
    fn open_part(&mut self, part: Open, fields: Fields) {
        self.n_parts += 1;
        if self.n_parts > PARTS_MAX || self.open.len() >= DEPTH_MAX {
            self.turn_opaque();
            return;
        }
        self.open.push(part);
        self.fields = fields;
        self.mode = Mode::Header;
    }

    /// Ends the header of the innermost part at the present position.
    fn end_header(&mut self) {
        let fields = std::mem::replace(&mut self.fields, Fields::of_part());
        let (position, n_lines) = (self.position, self.n_lines);
        let is_root = self.open.len() == 1;
        let is_nested = self.open.iter().any(|open| matches!(open.role, Role::Message { .. }));
        let Some(innermost) = self.open.last_mut() else { return };
        innermost.end_header(position, n_lines);
        // Why first: parameters without end would leave no room for who sent it. Why not all of it: addresses
        // without end would leave none for where the parts end.
        if innermost.is_message {
            let mut most = self.budget.most();
            let envelope = Envelope::read(&fields, &mut most);
            self.budget.give_back(most);
            if is_root {
                let sort = SortKeys::read(&fields, &envelope);
                self.head = Some((envelope, sort));
            } else {
                innermost.envelope = Some(envelope);
            }
        }
        innermost.read(&fields, &mut self.budget);
        self.seams.pass(position, is_root, matches!(innermost.role, Role::Leaf));
        self.at_line_start = true;
        self.mode = Mode::Body;
        if is_root && self.n_header_bytes > HEADER_BYTES_MAX {
            self.turn_opaque();
        } else if matches!(innermost.role, Role::Message { .. }) {
            self.open_part(Open::message(position), Fields::of_message());
        } else if self.is_preview_spare && !is_nested {
            let has_one = self.preview.is_some();
            let source = innermost.preview_source();
            self.preview_source = source.filter(|source| !(has_one && source.is_attachment));
        }
    }

    /// Ends every header that is open: the message or part stops inside it.
    fn end_headers(&mut self) {
        while self.mode == Mode::Header {
            self.end_header();
        }
    }

    /// Ends the innermost part; there is one around it.
    fn close_innermost(&mut self, end: u64, n_lines: u64) {
        self.end_preview();
        let Some(part) = self.open.pop() else { return };
        if let Some(around) = self.open.last_mut() {
            around.adopt(part, end, n_lines);
        }
    }

    fn end_preview(&mut self) {
        let Some(source) = self.preview_source.take() else { return };
        let is_attachment = source.is_attachment;
        if let Some(preview) = source.finish() {
            self.preview = Some(preview);
            self.is_preview_spare = is_attachment;
        }
    }

    /// Gives the structure up; the root keeps its header and the rest becomes its body.
    fn turn_opaque(&mut self) {
        self.open.truncate(1);
        self.preview_source = None;
        self.mode = Mode::Opaque;
    }
}

impl Seams {
    /// A header ends here.
    fn pass(&mut self, position: u64, is_root: bool, is_leaf: bool) {
        if is_root {
            self.header_end = position;
        }
        if is_leaf {
            self.last_body = position;
        }
        if self.first_body == 0 {
            self.first_body = self.last_body;
        }
    }
}
