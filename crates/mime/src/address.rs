//! Address lists as IMAP's ENVELOPE shows them: raw octets, groups between two markers.

use crate::envelope::Address;
use crate::header::unfold;
use crate::token::{Budget, end_of_comment, quoted};

/// Reads an address list. A word that is no address is read as a local part without a host, and
/// words or a quoted string as a name without an address.
pub(crate) fn addresses(value: &[u8], budget: &mut Budget) -> Vec<Address> {
    let mut reader = Reader { bytes: value, at: 0, list: Vec::new(), in_group: false };
    while reader.at < value.len() {
        let Some(entry) = reader.entry() else { continue };
        if !budget.take() {
            break;
        }
        reader.list.push(entry);
    }
    if reader.in_group {
        reader.list.push(Address::default());
    }
    reader.list
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    list: Vec<Address>,
    in_group: bool,
}

/// Words read so far: all of them are a name, the last of them a local part.
#[derive(Default)]
struct Words {
    name: Vec<u8>,
    local: Vec<u8>,
    /// Octets of the name before the local part.
    n_before: usize,
    n_words: usize,
    is_phrase: bool,
}

impl Words {
    fn push(&mut self, word: &[u8], after_space: bool, is_phrase: bool) {
        let is_gap = after_space && self.n_words > 0;
        // RFC 5322 4.4: "a . b" is one local part, "a b" is not.
        if is_gap && !word.starts_with(b".") && !self.local.ends_with(b".") {
            self.n_before = self.name.len();
            self.local.clear();
            self.is_phrase = true;
        }
        self.push_name(word, is_gap);
        self.local.extend_from_slice(word);
        self.n_words += 1;
        self.is_phrase |= is_phrase;
    }

    fn push_name(&mut self, word: &[u8], is_gap: bool) {
        self.name.extend_from_slice(if is_gap { b" " } else { b"" });
        self.name.extend_from_slice(word);
    }

    /// The address that these words are.
    fn address(mut self, comment: Option<Vec<u8>>, host: Option<Vec<u8>>) -> Address {
        let (name, local) = match (&host, self.is_phrase) {
            (None, true) => (Some(self.name), Vec::new()),
            _ => {
                self.name.truncate(self.n_before);
                (comment.or(Some(self.name)), self.local)
            }
        };
        // Why: a host of NIL would make it a group, so a missing one is the empty string.
        Address {
            name: name.filter(|name| !name.is_empty()),
            adl: None,
            mailbox: Some(local),
            host: Some(host.unwrap_or_default()),
        }
    }
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Skips white space and comments; gives whether there was any, and the last comment.
    fn skip_space(&mut self, comment: &mut Option<Vec<u8>>) -> bool {
        let start = self.at;
        while let Some(byte) = self.peek() {
            match byte {
                b'(' => {
                    let end = end_of_comment(self.bytes, self.at);
                    let inner = &self.bytes[self.at + 1..end];
                    let inner = inner.strip_suffix(b")").unwrap_or(inner).trim_ascii();
                    *comment = Some(unescape(inner));
                    self.at = end;
                }
                b' ' | b'\t' | b'\r' | b'\n' => self.at += 1,
                _ => break,
            }
        }
        self.at > start
    }

    /// One entry of the list: an address or a group's marker; `None` for an empty place.
    fn entry(&mut self) -> Option<Address> {
        let mut words = Words::default();
        let mut comment = None;
        let mut host = None;
        loop {
            let after_space = self.skip_space(&mut comment);
            match self.peek() {
                None => break,
                Some(b',') => {
                    self.at += 1;
                    break;
                }
                Some(b';') if !self.in_group => {
                    self.at += 1;
                    break;
                }
                Some(b';') => {
                    // An address right before the end of its group is given first.
                    if words.n_words > 0 {
                        break;
                    }
                    self.at += 1;
                    self.in_group = false;
                    return Some(Address::default());
                }
                Some(b':') if !self.in_group && words.n_words > 0 && host.is_none() => {
                    self.at += 1;
                    self.in_group = true;
                    return Some(Address { mailbox: Some(words.name), ..Address::default() });
                }
                Some(b'<') => {
                    self.at += 1;
                    let name = words.name;
                    return Some(self.angle(if name.is_empty() { comment } else { Some(name) }));
                }
                Some(b'@') if host.is_none() => {
                    self.at += 1;
                    let domain = self.domain();
                    // Should "a@b <a@b>" follow, all of it is a name.
                    words.name.push(b'@');
                    words.name.extend_from_slice(&domain);
                    host = Some(domain);
                }
                Some(first) => {
                    let word = self.word();
                    // A quoted string or an encoded word stands in names.
                    let is_phrase = first == b'"' || word.starts_with(b"=?");
                    match host {
                        None => words.push(&word, after_space, is_phrase),
                        // "a@b c" says nothing more of the address.
                        Some(_) => words.push_name(&word, after_space),
                    }
                }
            }
        }
        (words.n_words > 0 || host.is_some()).then(|| words.address(comment, host))
    }

    /// The rest of an address behind `<`, up to the next one of the list.
    fn angle(&mut self, name: Option<Vec<u8>>) -> Address {
        let mut ignored = None;
        self.skip_space(&mut ignored);
        let mut adl = None;
        if self.peek() == Some(b'@') {
            let route_end = self.bytes[self.at..]
                .iter()
                .position(|byte| matches!(byte, b':' | b'>' | b'<' | b'"'))
                .map_or(self.bytes.len(), |at| self.at + at);
            if self.bytes.get(route_end) == Some(&b':') {
                adl = Some(unfold(&self.bytes[self.at..route_end]).into_owned());
                self.at = route_end + 1;
            }
        }
        let mut local = Vec::new();
        let mut host = Vec::new();
        loop {
            self.skip_space(&mut ignored);
            match self.peek() {
                None => break,
                Some(b'>') => {
                    self.at += 1;
                    break;
                }
                Some(b'@') => {
                    self.at += 1;
                    host = self.domain();
                }
                Some(b',' | b';' | b'<') if !local.is_empty() => break,
                Some(_) => local.extend(self.word()),
            }
        }
        self.skip_to_separator();
        Address {
            name: name.filter(|name| !name.is_empty()),
            adl,
            mailbox: Some(local),
            host: Some(host),
        }
    }

    /// Passes over what follows an address, and over what separates it from the next.
    fn skip_to_separator(&mut self) {
        let mut ignored = None;
        loop {
            self.skip_space(&mut ignored);
            match self.peek() {
                None => break,
                Some(b';') if self.in_group => break,
                // Some senders write semicolons where commas belong.
                Some(b',' | b';') => {
                    self.at += 1;
                    break;
                }
                Some(_) => drop(self.word()),
            }
        }
    }

    /// A quoted string's content, or octets up to a special; takes at least one octet.
    fn word(&mut self) -> Vec<u8> {
        if self.peek() == Some(b'"') {
            let (content, end) = quoted(self.bytes, self.at + 1);
            self.at = end;
            return content;
        }
        let start = self.at;
        self.at += 1;
        while self.peek().is_some_and(|byte| !is_special(byte)) {
            self.at += 1;
        }
        self.bytes[start..self.at].to_vec()
    }

    /// A domain or a domain literal, white space and comments taken out.
    fn domain(&mut self) -> Vec<u8> {
        let mut domain = Vec::new();
        let mut ignored = None;
        loop {
            let before = self.at;
            let after_space = self.skip_space(&mut ignored);
            match self.peek() {
                Some(b'[') => {
                    let rest = &self.bytes[self.at..];
                    let end = rest.iter().position(|byte| *byte == b']');
                    let end = end.map_or(rest.len(), |at| at + 1);
                    domain.extend_from_slice(&unfold(&rest[..end]));
                    self.at += end;
                }
                Some(byte) if !is_special(byte) => {
                    // "a@b c" is no domain "bc", but "a@b . c" is "b.c" (RFC 5322 4.4).
                    if after_space && byte != b'.' && !domain.ends_with(b".") && !domain.is_empty()
                    {
                        self.at = before;
                        return domain;
                    }
                    domain.extend(self.word());
                }
                _ => {
                    // A comment behind the domain may be the name: leave it to the caller.
                    self.at = before;
                    return domain;
                }
            }
        }
    }
}

fn is_special(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n') || b"()<>@,;:\"[".contains(&byte)
}

/// Takes the backslashes of quoted pairs and the line ends of folds out.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut is_escaped = false;
    for &byte in text {
        if byte == b'\\' && !is_escaped {
            is_escaped = true;
            continue;
        }
        is_escaped = false;
        if !matches!(byte, b'\r' | b'\n') {
            plain.push(byte);
        }
    }
    plain
}
