//! HTML read as text, for the preview.

use encoding_rs::WINDOWS_1252;
use mail_parser::decoders::html::add_html_token;
use memchr::{memchr, memchr2};

/// Octets of a tag's name that are kept; no name that matters here has more than ten.
const NAME_BYTES_MAX: usize = 16;

/// Octets of a character reference between `&` and `;`: the longest name has 31.
const REFERENCE_BYTES_MAX: usize = 32;

/// Elements whose content is no text to read, and how they end. No tag counts in them.
const SKIPPED: [(&str, &str); 7] = [
    ("style", "</style"),
    ("script", "</script"),
    ("title", "</title"),
    ("template", "</template"),
    ("iframe", "</iframe"),
    ("noembed", "</noembed"),
    ("noframes", "</noframes"),
];

/// Elements that stand on lines or in cells of their own: words before and behind are two.
const APART: &str = "address article aside blockquote body br button caption center dd details dir \
    div dl dt fieldset figcaption figure footer form h1 h2 h3 h4 h5 h6 head header hr html legend li main \
    menu nav ol optgroup option p pre section select summary table tbody td textarea tfoot th thead tr ul";

/// References that old pages write without the semicolon.
const BARE_REFERENCES: [&str; 5] = ["amp", "gt", "lt", "nbsp", "quot"];

/// Takes the tags out of HTML; fed in any cuts it gives the same text.
///
/// It reads as browsers do (HTML Standard 13.2.5), as far as that decides what is shown: whatever stands
/// in a head and is no style, script or title ends the head, so heads need no rule of their own.
#[derive(Debug, Default)]
pub(crate) struct HtmlReader {
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Text,
    /// Behind `&`.
    Reference(String),
    /// Behind `<`.
    Open,
    /// Behind `</`.
    OpenEnd,
    Tag(Tag),
    /// Behind `<!`.
    Declaration(String),
    /// All up to `end`, the first `n_read` octets of which came last.
    Skip {
        end: &'static str,
        n_read: usize,
    },
}

#[derive(Debug)]
struct Tag {
    name: String,
    is_end: bool,
    place: Place,
}

/// Where in a tag the last character stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Name,
    Between,
    Slash,
    /// Behind `=`, where a value begins.
    Equals,
    Bare,
    Quoted(char),
}

impl HtmlReader {
    /// Appends what is to be read of `html` to `text`.
    pub(crate) fn feed(&mut self, html: &str, text: &mut String) {
        let mut rest = html;
        loop {
            rest = self.state.leap(rest, text);
            let Some(c) = rest.chars().next() else { return };
            self.state = next(std::mem::take(&mut self.state), c, text);
            rest = &rest[c.len_utf8()..];
        }
    }

    /// Appends what was still held.
    pub(crate) fn finish(self, text: &mut String) {
        match self.state {
            State::Reference(name) => push_reference(&name, false, text),
            State::Open => text.push('<'),
            _ => {}
        }
    }
}

impl State {
    /// Takes what leaves the state as it is all at once, and gives the rest.
    fn leap<'h>(&self, html: &'h str, text: &mut String) -> &'h str {
        let octets = html.as_bytes();
        // All that is looked for is ASCII, so that it is found between characters.
        let found = match self {
            Self::Text => memchr2(b'<', b'&', octets),
            // No first octet of an end is a letter, which might be large or small.
            Self::Skip { end, n_read: 0 } => memchr(end.as_bytes()[0], octets),
            Self::Tag(Tag { place: Place::Quoted(quote), .. }) => memchr(*quote as u8, octets),
            _ => return html,
        };
        let (same, rest) = html.split_at(found.unwrap_or(html.len()));
        if matches!(self, Self::Text) {
            text.push_str(same);
        }
        rest
    }
}

fn next(state: State, c: char, text: &mut String) -> State {
    match state {
        State::Text => plain(c, text),
        State::Reference(name) if c == ';' => {
            push_reference(&name, true, text);
            State::Text
        }
        State::Reference(mut name)
            if (c.is_ascii_alphanumeric() || c == '#') && name.len() < REFERENCE_BYTES_MAX =>
        {
            name.push(c);
            State::Reference(name)
        }
        State::Reference(name) => {
            push_reference(&name, false, text);
            plain(c, text)
        }
        State::Open => match c {
            '/' => State::OpenEnd,
            '!' => State::Declaration(String::new()),
            '?' => State::Skip { end: ">", n_read: 0 },
            _ if c.is_ascii_alphabetic() => tag(Tag::new(false), c, text),
            _ => {
                text.push('<');
                plain(c, text)
            }
        },
        State::OpenEnd if c == '>' => State::Text,
        State::OpenEnd if c.is_ascii_alphabetic() => tag(Tag::new(true), c, text),
        State::OpenEnd => State::Skip { end: ">", n_read: 0 },
        State::Tag(open) => tag(open, c, text),
        State::Declaration(read) => declaration(read, c),
        State::Skip { end, n_read } => skip(end, n_read, c),
    }
}

fn plain(c: char, text: &mut String) -> State {
    match c {
        '<' => return State::Open,
        '&' => return State::Reference(String::new()),
        _ => text.push(c),
    }
    State::Text
}

fn tag(mut tag: Tag, c: char, text: &mut String) -> State {
    let is_space = c.is_ascii_whitespace();
    tag.place = match tag.place {
        Place::Quoted(quote) if c == quote => Place::Between,
        Place::Quoted(quote) => Place::Quoted(quote),
        _ if c == '>' => return tag.end(text),
        Place::Name if !is_space && c != '/' => {
            if tag.name.len() < NAME_BYTES_MAX {
                tag.name.push(c.to_ascii_lowercase());
            }
            Place::Name
        }
        Place::Equals if matches!(c, '"' | '\'') => Place::Quoted(c),
        Place::Equals if is_space => Place::Equals,
        Place::Equals => Place::Bare,
        Place::Bare if !is_space => Place::Bare,
        _ if c == '=' => Place::Equals,
        _ if c == '/' => Place::Slash,
        _ => Place::Between,
    };
    State::Tag(tag)
}

impl Tag {
    fn new(is_end: bool) -> Tag {
        Tag { name: String::new(), is_end, place: Place::Name }
    }

    /// What comes behind its `>`.
    fn end(self, text: &mut String) -> State {
        if APART.split(' ').any(|name| name == self.name) {
            text.push(' ');
        }
        // Why not browsers' way: pages that were XML have `<title/>`, and would have no text at all.
        let is_open = !self.is_end && self.place != Place::Slash;
        match SKIPPED.iter().find(|(name, _)| is_open && *name == self.name) {
            Some((_, end)) => State::Skip { end, n_read: 0 },
            None => State::Text,
        }
    }
}

/// Comments and CDATA have ends of their own; all else goes on to the next `>`.
fn declaration(mut read: String, c: char) -> State {
    read.push(c);
    match read.as_str() {
        // The two may be those of the end as well: `<!-->`.
        "--" => State::Skip { end: "-->", n_read: 2 },
        "[CDATA[" => State::Skip { end: "]]>", n_read: 0 },
        "-" => State::Declaration(read),
        start if "[CDATA[".starts_with(start) => State::Declaration(read),
        _ if c == '>' => State::Text,
        _ => State::Skip { end: ">", n_read: 0 },
    }
}

fn skip(end: &'static str, n_read: usize, c: char) -> State {
    let is_next = end[n_read..].starts_with(c.to_ascii_lowercase());
    if is_next && n_read + 1 == end.len() {
        let is_tag = end.starts_with('<');
        return if is_tag { State::Skip { end: ">", n_read: 0 } } else { State::Text };
    }
    // Behind `--` another dash still leaves two of them; no other end repeats its beginning.
    let n_again = end.chars().take_while(|first| *first == c).count();
    State::Skip { end, n_read: if is_next { n_read + 1 } else { n_again } }
}

fn push_reference(name: &str, is_ended: bool, text: &mut String) {
    let number = name.strip_prefix('#').and_then(|number| match number.strip_prefix(['x', 'X']) {
        Some(number) => u32::from_str_radix(number, 16).ok(),
        None => number.parse().ok(),
    });
    if let Some(number) = number {
        match number {
            // HTML Standard 13.2.5.80: these are octets of windows-1252.
            0x80..=0x9f => {
                text.push_str(&WINDOWS_1252.decode_without_bom_handling(&[number as u8]).0);
            }
            _ => text.push(char::from_u32(number).unwrap_or(char::REPLACEMENT_CHARACTER)),
        }
    } else if is_ended || BARE_REFERENCES.contains(&name) {
        // One that nobody knows is shown as it is.
        add_html_token(text, format!("&{name};").as_bytes(), false);
    } else {
        text.push('&');
        text.push_str(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stands where something begins or ends, and between.
    const PIECES: [&str; 24] = [
        "<",
        ">",
        "&",
        ";",
        "-",
        "--",
        "!",
        "/",
        "]",
        "]]>",
        "-->",
        "<!--",
        "<![CDATA[",
        "\"",
        "'",
        "=",
        "style",
        "</STYLE",
        "<script ",
        "p",
        " ",
        "amp",
        "\u{e9}\u{20ac}",
        "#8364",
    ];

    proptest::proptest! {
        #[test]
        fn leaps_give_what_each_character_gives(which in proptest::collection::vec(0..PIECES.len(), 0..60)) {
            let html: String = which.into_iter().map(|at| PIECES[at]).collect();
            let (mut leaping, mut leapt) = (HtmlReader::default(), String::new());
            leaping.feed(&html, &mut leapt);
            leaping.finish(&mut leapt);
            let mut walked = String::new();
            let state = html.chars().fold(State::Text, |state, c| next(state, c, &mut walked));
            HtmlReader { state }.finish(&mut walked);
            proptest::prop_assert_eq!(leapt, walked, "{:?}", html);
        }
    }
}
