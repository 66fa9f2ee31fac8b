//! RFC 5256 2.1: the base subject.

use crate::limits::SORT_KEY_BYTES_MAX;
use crate::word::decode_header;

/// The base subject of a raw Subject value, and whether it is a reply or forward.
pub fn base_subject(raw: &[u8]) -> (String, bool) {
    // A bound before the work keeps the removal of one blob at a time cheap.
    let raw = &raw[..raw.len().min(4 * SORT_KEY_BYTES_MAX)];
    let decoded = decode_header(raw);
    let words: Vec<&str> = decoded.split_whitespace().collect();
    let collapsed = words.join(" ");
    let (base, is_reply) = strip(&collapsed);
    (truncated(base, SORT_KEY_BYTES_MAX).to_owned(), is_reply)
}

/// The longest start of `text` with at most `n_bytes` that ends at a character.
pub(crate) fn truncated(text: &str, n_bytes: usize) -> &str {
    let mut end = n_bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn strip(mut subject: &str) -> (&str, bool) {
    let mut is_reply = false;
    loop {
        // Step 2: the trailer.
        subject = subject.trim_end();
        while let Some(rest) = strip_suffix_ignoring_case(subject, "(fwd)") {
            subject = rest.trim_end();
            is_reply = true;
        }
        // Steps 3 to 5: leaders and blobs.
        loop {
            subject = subject.trim_start();
            if let Some(rest) = strip_leader(subject) {
                subject = rest;
                is_reply = true;
            } else if let Some(rest) = strip_blob(subject).filter(|rest| !rest.is_empty()) {
                subject = rest;
            } else {
                break;
            }
        }
        // Step 6: a forward in brackets.
        match strip_prefix_ignoring_case(subject, "[fwd:").and_then(|rest| rest.strip_suffix(']')) {
            Some(rest) => subject = rest,
            None => return (subject, is_reply),
        }
        is_reply = true;
    }
}

/// `*subj-blob subj-refwd`
fn strip_leader(subject: &str) -> Option<&str> {
    let mut rest = subject;
    while let Some(after_blob) = strip_blob(rest) {
        rest = after_blob;
    }
    let rest = ["re", "fwd", "fw"]
        .iter()
        .find_map(|word| strip_prefix_ignoring_case(rest, word))?
        .trim_start();
    strip_blob(rest).unwrap_or(rest).strip_prefix(':')
}

/// `"[" *BLOBCHAR "]" *WSP`
fn strip_blob(subject: &str) -> Option<&str> {
    let inner = subject.strip_prefix('[')?;
    let end = inner.find(['[', ']'])?;
    inner[end..].strip_prefix(']').map(str::trim_start)
}

fn strip_prefix_ignoring_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let start = text.get(..prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then(|| &text[prefix.len()..])
}

fn strip_suffix_ignoring_case<'a>(text: &'a str, suffix: &str) -> Option<&'a str> {
    let at = text.len().checked_sub(suffix.len())?;
    text.get(at..)?.eq_ignore_ascii_case(suffix).then(|| &text[..at])
}
