//! What LIST and LSUB are asked for: names with wildcards (RFC 9051 6.3.9).

use std::cell::Cell;

use mailbox::MailboxName;

use crate::limits::{COMPARED_AT_ONCE, WILD_CHARS_MAX};

/// A reference and a pattern, ready to match.
struct Pattern {
    /// Up to the first wildcard.
    fixed: Vec<char>,
    /// From there on. Invariant: no two wildcards beside each other.
    wild: Vec<char>,
}

/// The patterns of a LIST, ready to match.
/// Invariant: at most `WILD_CHARS_MAX` characters from their first wildcards on, of all together.
pub(super) struct Patterns {
    patterns: Vec<Pattern>,
    separator: char,
    /// Characters compared since others had their turn.
    n_compared: Cell<usize>,
}

impl Patterns {
    /// RFC 9051 6.3.9: patterns beyond what can be matched are ignored.
    pub(super) fn new(reference: &str, patterns: &[String], separator: char) -> Self {
        let forms = |pattern: &String| {
            // Why composed: names are, and whoever created one decomposed finds it by what it said.
            let text = MailboxName::compose(&format!("{reference}{pattern}"));
            with_inbox_folded(text, separator)
        };
        let mut n_left = WILD_CHARS_MAX;
        let fits = |pattern: &Pattern| {
            let left = n_left.checked_sub(pattern.wild.len());
            n_left = left.unwrap_or(n_left);
            left.is_some()
        };
        let patterns = patterns.iter().flat_map(forms).map(|form| Pattern::new(&form));
        let patterns = patterns.filter(fits).collect();
        Self { patterns, separator, n_compared: Cell::new(0) }
    }

    /// Whether nothing can match.
    pub(super) fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether so much was compared that others are to have their turn. Says so once.
    pub(super) fn need_rest(&self) -> bool {
        let need_rest = self.n_compared.get() >= COMPARED_AT_ONCE;
        if need_rest {
            self.n_compared.set(0);
        }
        need_rest
    }

    /// Whether a name matches.
    pub(super) fn match_name(&self, name: &MailboxName) -> bool {
        self.n_levels(name) == Some(name.components().len())
    }

    /// Of how many levels is the longest name that matches, this one or one above it?
    pub(super) fn n_levels(&self, name: &MailboxName) -> Option<usize> {
        let joined: Vec<char> = name.join(self.separator).chars().collect();
        let n_wild: usize = self.patterns.iter().map(|pattern| 1 + pattern.wild.len()).sum();
        self.n_compared.set(self.n_compared.get() + joined.len() * n_wild);
        let n_levels = |pattern: &Pattern| pattern.n_levels(name, &joined, self.separator);
        self.patterns.iter().filter_map(n_levels).max()
    }
}

impl Pattern {
    fn new(text: &str) -> Self {
        let (mut fixed, mut wild): (Vec<char>, Vec<char>) = (Vec::new(), Vec::new());
        for c in text.chars() {
            let is_wildcard = matches!(c, '*' | '%');
            match wild.last().copied() {
                None if !is_wildcard => fixed.push(c),
                // Several in a row are what the widest of them is.
                Some('*') if is_wildcard => {}
                Some('%') if is_wildcard => {
                    wild.pop();
                    wild.push(c);
                }
                _ => wild.push(c),
            }
        }
        Self { fixed, wild }
    }

    fn n_levels(&self, name: &MailboxName, joined: &[char], separator: char) -> Option<usize> {
        let reached = reached(&self.wild, joined.strip_prefix(&self.fixed[..])?, separator);
        let (mut end, mut n_levels) = (0, None);
        for (level, component) in name.components().iter().enumerate() {
            end += component.chars().count() + usize::from(level > 0);
            if end >= self.fixed.len() && reached[end - self.fixed.len()] {
                n_levels = Some(level + 1);
            }
        }
        n_levels
    }
}

/// Which beginnings of the text, by their length, the pattern matches: `*` is anything, `%` anything but the
/// separator. Linear in pattern times text.
fn reached(pattern: &[char], text: &[char], separator: char) -> Vec<bool> {
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    for &wanted in pattern {
        match wanted {
            '*' | '%' => {
                for at in 0..text.len() {
                    let passes = wanted == '*' || text[at] != separator;
                    reached[at + 1] |= reached[at] && passes;
                }
            }
            _ => {
                for at in (0..text.len()).rev() {
                    reached[at + 1] = reached[at] && text[at] == wanted;
                }
                reached[0] = false;
            }
        }
        if !reached.contains(&true) {
            break;
        }
    }
    reached
}

/// INBOX in a pattern is matched in any case (RFC 9051 5.1). Where a wildcard follows, the name may go on and
/// be another one, which is matched as it is written.
fn with_inbox_folded(pattern: String, separator: char) -> Vec<String> {
    let end = pattern.find([separator, '*', '%']).unwrap_or(pattern.len());
    let (word, rest) = pattern.split_at(end);
    if word == "INBOX" || !word.eq_ignore_ascii_case("INBOX") {
        return vec![pattern];
    }
    let folded = format!("INBOX{rest}");
    if rest.starts_with(['*', '%']) { vec![folded, pattern] } else { vec![folded] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(pattern: &str) -> Patterns {
        Patterns::new("", &[pattern.to_owned()], '/')
    }

    fn name(text: &str) -> MailboxName {
        MailboxName::parse(text, '/').expect("a name")
    }

    #[test]
    fn wildcards() {
        for (pattern, of, wanted) in [
            ("*", "a/b", true),
            ("%", "a", true),
            ("%", "a/b", false),
            ("%/%", "a/b", true),
            ("a/%", "a/b", true),
            ("a/%", "a", false),
            ("a%", "a/b", false),
            ("a*", "a/b", true),
            ("*b", "a/b", true),
            ("%b", "a/b", false),
            ("%*b", "a/b", true),
            ("*%b", "a/b", true),
            ("%%b", "a/b", false),
            ("inbox", "INBOX", true),
            ("inbox/%", "INBOX/x", true),
            ("inBox%", "INBOX", true),
            ("inbox*", "inbox-old", true),
            ("inbox*", "INBOX/x", true),
            ("inBox%", "inbox-old", false),
            ("inbox/*", "inbox-old/x", false),
            ("", "a", false),
            ("a", "ab", false),
            ("ab", "a", false),
            ("**%%**", "a/b/c", true),
            ("ä%", "äö", true),
        ] {
            assert_eq!(patterns(pattern).match_name(&name(of)), wanted, "{pattern} {of}");
        }
    }

    #[test]
    fn the_longest_name_that_matches_is_found() {
        for (pattern, of, wanted) in [
            ("%", "a/b/c", Some(1)),
            ("*", "a/b/c", Some(3)),
            ("a", "a/b/c", Some(1)),
            ("a", "ab/c", None),
            ("a/%", "a/bä/c", Some(2)),
            ("*ä", "a/bä/c", Some(2)),
            ("a/b/c", "a/b/c", Some(3)),
            ("a/", "a/b", None),
            ("d%", "a/b", None),
        ] {
            assert_eq!(patterns(pattern).n_levels(&name(of)), wanted, "{pattern} {of}");
        }
    }

    #[test]
    fn wildcards_in_a_row_are_one() {
        assert_eq!(patterns(&"*%".repeat(5_000)).patterns[0].wild, ['*']);
        assert_eq!(patterns(&"%".repeat(5_000)).patterns[0].wild, ['%']);
        assert!(patterns(&"*a".repeat(5_000)).is_empty());
        assert!(!Patterns::new("*", &["a".repeat(255)], '/').is_empty());
    }

    #[test]
    fn of_patterns_that_are_too_much_together_those_that_fit_count() {
        let long = format!("*{}", "a".repeat(WILD_CHARS_MAX - 2));
        let all = Patterns::new("", &[long.clone(), long, "b*".to_owned()], '/');
        assert_eq!(all.patterns.len(), 2);
        assert!(all.match_name(&name("bc")));
    }
}
