//! The fields of a header that a section names, picked out while its octets come. What is not wanted is not
//! held, but for the beginning of a line that is not whole.

use mime::{Range, header_fields};

use super::section::cut;
use crate::parse::{Section, Text};

/// Wanted fields, as far as the header was read.
#[derive(Default)]
pub(super) struct Fields {
    found: Vec<u8>,
    /// The first line of a field, as far as it came.
    held: Vec<u8>,
    /// The octets fed last end within a line.
    is_in_line: bool,
    /// This line goes on with what one before it began.
    is_continued: bool,
    /// What the last line began is wanted.
    is_wanted: bool,
    /// The empty line came.
    is_over: bool,
}

impl Fields {
    /// Takes the next octets of the header.
    pub(super) fn feed(&mut self, mut octets: &[u8], section: &Section) {
        while !octets.is_empty() && !self.is_over {
            let line_feed = octets.iter().position(|octet| *octet == b'\n');
            let (piece, rest) = octets.split_at(line_feed.map_or(octets.len(), |at| at + 1));
            octets = rest;
            if !self.is_in_line {
                self.is_continued = matches!(piece, [b' ' | b'\t', ..]);
            }
            self.is_in_line = line_feed.is_none();
            if self.is_continued {
                if self.is_wanted {
                    self.found.extend_from_slice(piece);
                }
            } else if self.held.is_empty() && !self.is_in_line {
                self.first_line(piece, section);
            } else {
                self.held.extend_from_slice(piece);
                if !self.is_in_line {
                    self.end_held(section);
                }
            }
        }
    }

    /// The wanted fields and the empty line (RFC 9051 6.4.5.1), or what the section's partial leaves of them.
    pub(super) fn finish(mut self, section: &Section) -> Vec<u8> {
        self.end_held(section);
        let mut found = self.found;
        if !found.is_empty() && !found.ends_with(b"\n") {
            found.extend_from_slice(b"\r\n");
        }
        found.extend_from_slice(b"\r\n");
        let range = cut(Range { start: 0, end: found.len() as u64 }, section.partial);
        found.drain(range.end as usize..);
        found.drain(..range.start as usize);
        found
    }

    fn end_held(&mut self, section: &Section) {
        if !self.held.is_empty() {
            let line = std::mem::take(&mut self.held);
            self.first_line(&line, section);
        }
    }

    /// A line that goes on with no other: it tells whether its field is wanted.
    fn first_line(&mut self, line: &[u8], section: &Section) {
        self.is_over = matches!(line, b"\n" | b"\r\n");
        let mut fields = header_fields(line);
        self.is_wanted = fields.next().is_some_and(|field| is_wanted(field.name, section));
        if self.is_wanted {
            self.found.extend_from_slice(line);
        }
    }
}

fn is_wanted(name: &[u8], section: &Section) -> bool {
    match &section.part.text {
        Text::HeaderFields(names) => names.contains(name),
        Text::HeaderFieldsNot(names) => !names.contains(name),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::parse::Part;

    fn section(text: Text) -> Section {
        let part = Part { path: Vec::new(), text };
        Section { label: String::new(), peek: true, part, partial: None }
    }

    /// As they are picked out of a header that is held whole.
    fn at_once(block: &[u8], section: &Section) -> Vec<u8> {
        let fields = header_fields(block).filter(|field| is_wanted(field.name, section));
        let mut found: Vec<u8> = fields.flat_map(|field| field.raw.to_vec()).collect();
        if !found.is_empty() && !found.ends_with(b"\n") {
            found.extend_from_slice(b"\r\n");
        }
        [&found[..], b"\r\n"].concat()
    }

    proptest! {
        #[test]
        fn fields_are_picked_out_alike_in_all_cuts(
            block in "(a|A|b|:|: |\r\n|\n|\r| |\t|x){0,40}",
            cuts in proptest::collection::vec(1usize..9, 1..6),
        ) {
            let names = || [b"a".to_vec()].into_iter().collect();
            for text in [Text::HeaderFields(names()), Text::HeaderFieldsNot(names())] {
                let section = section(text);
                let mut fields = Fields::default();
                let (mut rest, mut lengths) = (block.as_bytes(), cuts.iter().cycle());
                while !rest.is_empty() {
                    let length = lengths.next().copied().unwrap_or(1).min(rest.len());
                    let (piece, behind) = rest.split_at(length);
                    fields.feed(piece, &section);
                    rest = behind;
                }
                prop_assert_eq!(fields.finish(&section), at_once(block.as_bytes(), &section));
            }
        }
    }

    #[test]
    fn what_is_not_wanted_is_not_held() {
        let section = section(Text::HeaderFields([b"to".to_vec()].into_iter().collect()));
        let mut fields = Fields::default();
        fields.feed(b"To: a\r\n", &section);
        for _ in 0..1000 {
            fields.feed(b"X-Long: a\r\n\tlong value\r\n", &section);
            fields.feed(b"\tand longer", &section);
            assert_eq!((fields.found.len(), fields.held.len()), (7, 0));
            fields.feed(b"\r\n", &section);
        }
        assert_eq!(fields.finish(&section), b"To: a\r\n\r\n");
    }
}
