//! The grammar's small words: atoms, strings, numbers, sets, names.

use std::borrow::Cow;

use mailbox::MailboxName;
use mime::CharsetDecoder;

use crate::context::Enabled;
use crate::limits::DEPTH_MAX;
use crate::number_set::{Number, NumberSet};
use crate::utf7;

/// Why a command was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The form is wrong: `BAD`.
    Bad(&'static str),
    /// The form is right, but no such thing can be: `NO` with a response code.
    No(&'static str, &'static str),
}

const LINE_SEPARATOR: char = '\u{2028}';
const PARAGRAPH_SEPARATOR: char = '\u{2029}';

const NOT_A_NAME: Fault = Fault::No("CANNOT", "not a mailbox name");

/// What parsing gives.
pub(crate) type Parsed<T> = Result<T, Fault>;

/// A place in a command.
#[derive(Clone, Debug)]
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: usize,
    enabled: Enabled,
    separator: char,
    /// What is looked for is in it where it is not UTF-8.
    charset: Option<String>,
}

/// A mailbox name as it is kept and as the client wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) name: MailboxName,
    /// RFC 9051 5.1, 6.3.9.7: what the client wrote, if that is not the name but only equal to it.
    pub(crate) old_name: Option<String>,
}

/// RFC 9051 9: `ATOM-CHAR`.
fn is_atom_char(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"(){%*\"\\]".contains(&byte)
}

/// RFC 9051 9: `ASTRING-CHAR`.
pub(crate) fn is_astring_char(byte: u8) -> bool {
    is_atom_char(byte) || byte == b']'
}

/// What a literal says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LiteralMark {
    /// Octets that follow.
    pub(crate) len: u64,
    /// Whether the client waits for us to agree.
    pub(crate) is_synchronising: bool,
    /// `literal8`: NUL may be among the octets.
    pub(crate) is_binary: bool,
    /// Where the mark begins in the line.
    pub(crate) start: usize,
}

/// The mark of a literal at the end of a line without its line end. `None` if there is none, `Err`
/// if its number is beyond all reason.
pub(crate) fn literal_mark(line: &[u8]) -> Result<Option<LiteralMark>, Fault> {
    let Some(inner) = line.strip_suffix(b"}") else { return Ok(None) };
    let Some(open) = inner.iter().rposition(|byte| *byte == b'{') else { return Ok(None) };
    let (digits, is_synchronising) = match inner[open + 1..].strip_suffix(b"+") {
        Some(digits) => (digits, false),
        None => (&inner[open + 1..], true),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Ok(None);
    }
    let is_binary = open > 0 && line[open - 1] == b'~';
    let len = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse::<u64>().ok());
    let len = len.filter(|len| *len < 1 << 63).ok_or(Fault::Bad("literal size out of range"))?;
    Ok(Some(LiteralMark { len, is_synchronising, is_binary, start: open - usize::from(is_binary) }))
}

impl<'a> Cursor<'a> {
    /// At the start of `bytes`.
    pub(crate) fn new(bytes: &'a [u8], enabled: &Enabled, separator: char) -> Self {
        Self { bytes, at: 0, depth: 0, enabled: *enabled, separator, charset: None }
    }

    /// Whether the client synchronises (RFC 7162).
    pub(crate) fn is_qresync_enabled(&self) -> bool {
        self.enabled.qresync
    }

    /// Whether the client speaks IMAP4rev2.
    pub(crate) fn is_rev2_enabled(&self) -> bool {
        self.enabled.rev2
    }

    /// Whether the client reads UTF-8 (RFC 9755).
    pub(crate) fn is_utf8_enabled(&self) -> bool {
        self.enabled.utf8
    }

    /// The next octet.
    pub(crate) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// What is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        let rest = &self.bytes[self.at..];
        self.at = self.bytes.len();
        rest
    }

    /// Whether nothing is left.
    pub(crate) fn is_at_end(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// Takes these octets, in any case, if they are next.
    pub(crate) fn eat_text(&mut self, text: &str) -> bool {
        let rest = &self.bytes[self.at..];
        let is_next =
            rest.len() >= text.len() && rest[..text.len()].eq_ignore_ascii_case(text.as_bytes());
        self.at += if is_next { text.len() } else { 0 };
        is_next
    }

    /// Takes spaces and these octets, in any case, if they are next.
    pub(crate) fn eat_behind_space(&mut self, text: &str) -> bool {
        let start = self.at;
        let is_next = self.space().is_ok() && self.eat_text(text);
        if !is_next {
            self.at = start;
        }
        is_next
    }

    /// Takes this octet if it is next.
    pub(crate) fn eat(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    /// Takes this word, in any case, if it is next and a word ends behind it.
    pub(crate) fn eat_word(&mut self, word: &str) -> bool {
        let rest = &self.bytes[self.at..];
        let is_next = rest.len() >= word.len()
            && rest[..word.len()].eq_ignore_ascii_case(word.as_bytes())
            && !rest.get(word.len()).copied().is_some_and(is_atom_char);
        self.at += if is_next { word.len() } else { 0 };
        is_next
    }

    /// Takes this octet.
    pub(crate) fn expect(&mut self, byte: u8, fault: &'static str) -> Parsed<()> {
        if self.eat(byte) { Ok(()) } else { Err(Fault::Bad(fault)) }
    }

    /// Takes the space between two words. Why any number of them: people write what programs send, and
    /// imapclient has two; Dovecot and others never minded.
    pub(crate) fn space(&mut self) -> Parsed<()> {
        self.expect(b' ', "space expected")?;
        self.spaces();
        Ok(())
    }

    /// Takes the spaces there are.
    pub(crate) fn spaces(&mut self) {
        while self.eat(b' ') {}
    }

    /// Takes the space behind a word if another one follows. Those at the end of a command are forgiven.
    pub(crate) fn goes_on(&mut self) -> bool {
        self.space().is_ok() && !self.is_at_end()
    }

    /// Nothing may be left; spaces at the end are forgiven.
    pub(crate) fn end(&mut self) -> Parsed<()> {
        self.spaces();
        if self.is_at_end() { Ok(()) } else { Err(Fault::Bad("unexpected text at the end")) }
    }

    /// Goes one level down; [`Cursor::leave`] comes back.
    pub(crate) fn enter(&mut self) -> Parsed<()> {
        self.depth += 1;
        if self.depth > DEPTH_MAX { Err(Fault::Bad("nested too deep")) } else { Ok(()) }
    }

    /// Comes back from [`Cursor::enter`].
    pub(crate) fn leave(&mut self) {
        self.depth -= 1;
    }

    fn take(&mut self, legal: impl Fn(u8) -> bool) -> &'a [u8] {
        let start = self.at;
        while self.peek().is_some_and(&legal) {
            self.at += 1;
        }
        &self.bytes[start..self.at]
    }

    /// An atom as written.
    pub(crate) fn atom(&mut self, fault: &'static str) -> Parsed<&'a str> {
        let atom = self.take(is_atom_char);
        if atom.is_empty() {
            return Err(Fault::Bad(fault));
        }
        Ok(std::str::from_utf8(atom).expect("atoms are ASCII"))
    }

    /// An atom in upper case.
    pub(crate) fn word(&mut self, fault: &'static str) -> Parsed<String> {
        self.atom(fault).map(str::to_ascii_uppercase)
    }

    /// Letters and digits up to something else, in upper case: the name of an item that may be
    /// followed by a bracket or a dot.
    pub(crate) fn letters(&mut self) -> String {
        let letters = self.take(|byte| byte.is_ascii_alphanumeric());
        letters.iter().map(|byte| char::from(byte.to_ascii_uppercase())).collect()
    }

    /// A number of up to 63 bits.
    pub(crate) fn number64(&mut self) -> Parsed<u64> {
        let digits = self.take(|byte| byte.is_ascii_digit());
        let number = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
        number.filter(|number: &u64| *number < 1 << 63).ok_or(Fault::Bad("number expected"))
    }

    /// A number of 32 bits.
    pub(crate) fn number(&mut self) -> Parsed<u32> {
        u32::try_from(self.number64()?).map_err(|_| Fault::Bad("number out of range"))
    }

    /// A number of 32 bits, not 0.
    pub(crate) fn nz_number(&mut self) -> Parsed<u32> {
        match self.number()? {
            0 => Err(Fault::Bad("a number above 0 expected")),
            number => Ok(number),
        }
    }

    /// `sequence-set`, or `$`.
    pub(crate) fn number_set(&mut self) -> Parsed<NumberSet> {
        if self.eat(b'$') {
            return Ok(NumberSet::Saved);
        }
        let mut ranges = Vec::new();
        loop {
            let first = self.seq_number()?;
            let last = if self.eat(b':') { self.seq_number()? } else { first };
            ranges.push((first, last));
            if !self.eat(b',') {
                return Ok(NumberSet::Ranges(ranges));
            }
        }
    }

    /// One number of a sequence set.
    pub(crate) fn seq_number(&mut self) -> Parsed<Number> {
        if self.eat(b'*') { Ok(Number::Last) } else { self.nz_number().map(Number::Is) }
    }

    /// A quoted string or a literal.
    pub(crate) fn string(&mut self) -> Parsed<Cow<'a, [u8]>> {
        match self.peek() {
            Some(b'"') => self.quoted(),
            Some(b'{' | b'~') => self.literal().map(Cow::Borrowed),
            _ => Err(Fault::Bad("string expected")),
        }
    }

    fn quoted(&mut self) -> Parsed<Cow<'a, [u8]>> {
        self.at += 1;
        let start = self.at;
        let plain = self.take(|byte| !matches!(byte, b'"' | b'\\' | b'\r' | b'\n'));
        if self.eat(b'"') {
            return Ok(Cow::Borrowed(plain));
        }
        self.at = start;
        let mut unescaped = Vec::new();
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Cow::Owned(unescaped));
                }
                Some(b'\\') => {
                    self.at += 1;
                    match self.peek() {
                        Some(byte @ (b'"' | b'\\')) => unescaped.push(byte),
                        _ => return Err(Fault::Bad("only '\"' and '\\' may be escaped")),
                    }
                }
                Some(b'\r' | b'\n') | None => return Err(Fault::Bad("'\"' missing")),
                Some(byte) => unescaped.push(byte),
            }
            self.at += 1;
        }
    }

    /// A literal, whose octets were gathered behind its mark.
    fn literal(&mut self) -> Parsed<&'a [u8]> {
        self.eat(b'~');
        self.expect(b'{', "'{' expected")?;
        let len = self.number64()?;
        self.eat(b'+');
        self.expect(b'}', "'}' expected")?;
        self.eat(b'\r');
        self.expect(b'\n', "line end expected after a literal's size")?;
        let end = usize::try_from(len).ok().and_then(|len| self.at.checked_add(len));
        let octets = end.and_then(|end| self.bytes.get(self.at..end));
        let octets = octets.ok_or(Fault::Bad("literal cut short"))?;
        self.at += octets.len();
        Ok(octets)
    }

    /// A string or NIL.
    pub(crate) fn nstring(&mut self) -> Parsed<Option<Cow<'a, [u8]>>> {
        if self.eat_word("NIL") { Ok(None) } else { self.string().map(Some) }
    }

    /// An atom-like word, a quoted string or a literal.
    pub(crate) fn astring(&mut self) -> Parsed<Cow<'a, [u8]>> {
        if matches!(self.peek(), Some(b'"' | b'{')) {
            return self.string();
        }
        // Why: RFC 6855 lets UTF-8 stand in quoted strings only, but raw 8-bit names come as atoms
        // from some clients too; whether they are names is decided where names are read.
        let atom = self.take(|byte| is_astring_char(byte) || byte >= 0x80);
        if atom.is_empty() { Err(Fault::Bad("string expected")) } else { Ok(Cow::Borrowed(atom)) }
    }

    /// A name or password of LOGIN. Why more than an astring: neither a list nor a pattern can stand there,
    /// and people and scripts write passwords as they are.
    pub(crate) fn credential(&mut self) -> Parsed<Cow<'a, [u8]>> {
        if matches!(self.peek(), Some(b'"' | b'{')) {
            return self.string();
        }
        let word = self.take(|byte| byte.is_ascii_graphic() || byte >= 0x80);
        if word.is_empty() { Err(Fault::Bad("string expected")) } else { Ok(Cow::Borrowed(word)) }
    }

    /// An astring that is UTF-8.
    pub(crate) fn text(&mut self) -> Parsed<String> {
        let octets = self.astring()?.into_owned();
        String::from_utf8(octets).map_err(|_| Fault::Bad("not UTF-8"))
    }

    /// Octets as text in the charset that was named, UTF-8 if none was.
    pub(crate) fn decoded(&self, octets: Vec<u8>) -> Option<String> {
        let Some(charset) = &self.charset else { return String::from_utf8(octets).ok() };
        let (mut decoder, mut text) = (CharsetDecoder::new(charset), String::new());
        decoder.feed(&octets, &mut text);
        decoder.finish(&mut text);
        Some(text)
    }

    /// What is looked for is in this charset from now on; false if it is not known.
    pub(crate) fn set_charset(&mut self, charset: &str) -> bool {
        // Why UTF8: no registered name, but what imap-tools' users say.
        let is_utf8 =
            ["UTF-8", "UTF8", "US-ASCII"].iter().any(|name| charset.eq_ignore_ascii_case(name));
        self.charset = (!is_utf8).then(|| charset.to_owned());
        is_utf8 || CharsetDecoder::is_known(charset)
    }

    /// A mailbox name or pattern as the client writes it now, in Unicode.
    fn decoded_name(&self, octets: &[u8]) -> Parsed<String> {
        if self.enabled.has_utf8_names() {
            // RFC 9755 3
            return String::from_utf8(octets.to_vec()).map_err(|_| Fault::Bad("not UTF-8"));
        }
        utf7::decode(octets).ok_or(NOT_A_NAME)
    }

    fn mailbox_name(&self, name: &str) -> Parsed<MailboxName> {
        MailboxName::parse(name, self.separator).ok_or(NOT_A_NAME)
    }

    /// The name of a mailbox.
    pub(crate) fn mailbox(&mut self) -> Parsed<MailboxName> {
        let octets = self.astring()?;
        self.mailbox_name(&self.decoded_name(&octets)?)
    }

    /// The name of a mailbox, and how the client wrote it.
    pub(crate) fn given_mailbox(&mut self) -> Parsed<Given> {
        let octets = self.astring()?;
        self.given(&self.decoded_name(&octets)?)
    }

    /// The same of a mailbox to be; RFC 3501 6.3.3: a separator at its end is only a hint.
    pub(crate) fn new_mailbox(&mut self) -> Parsed<Given> {
        let octets = self.astring()?;
        let name = self.decoded_name(&octets)?;
        // RFC 9755 3. Why only here: names from before are to be found.
        if name.contains([LINE_SEPARATOR, PARAGRAPH_SEPARATOR]) {
            return Err(NOT_A_NAME);
        }
        self.given(name.strip_suffix(self.separator).unwrap_or(&name))
    }

    fn given(&self, text: &str) -> Parsed<Given> {
        let name = self.mailbox_name(text)?;
        let is_another = !name.join(self.separator).eq_ignore_ascii_case(text);
        let old_name = (self.enabled.rev2 && is_another).then(|| text.to_owned());
        Ok(Given { name, old_name })
    }

    /// RFC 9051 9: `list-mailbox`, a pattern; `None` if no name can be like it.
    pub(crate) fn pattern(&mut self) -> Parsed<Option<String>> {
        let octets = if matches!(self.peek(), Some(b'"' | b'{')) {
            self.string()?
        } else {
            let legal = |byte| is_astring_char(byte) || matches!(byte, b'%' | b'*' | 0x80..);
            Cow::Borrowed(self.take(legal))
        };
        match self.decoded_name(&octets) {
            Err(Fault::No(..)) => Ok(None),
            name => name.map(Some),
        }
    }

    /// Between parentheses, with spaces between: what `item` reads.
    pub(crate) fn list<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Parsed<T>,
    ) -> Parsed<Vec<T>> {
        self.expect(b'(', "'(' expected")?;
        self.spaces();
        let mut items = Vec::new();
        while !self.eat(b')') {
            items.push(item(self)?);
            if self.peek() != Some(b')') {
                self.space()?;
            }
        }
        Ok(items)
    }
}
