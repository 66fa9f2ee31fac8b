// Each test file is a crate of its own and uses only some of this.
#![allow(dead_code)]
//! What several tests of this crate need: the corpus, cuts, and what always holds of a tree.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use mime::{Envelope, Metadata, Part, PartKind, Range, Scanner};
use proptest::prelude::ProptestConfig;

/// So many messages of its own the project has at least.
pub const OWN_MIN: usize = 18;

/// Runs `n_cases` random cases. Why no files of failures: a found failure becomes a named test.
pub fn config(n_cases: u32) -> ProptestConfig {
    ProptestConfig { cases: n_cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// The project's own messages, and those of `shared/corpus` where that lies beside the workspace.
pub fn messages() -> Vec<(PathBuf, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut own = Vec::new();
    gather(&root.join("crates/imap/tests/messages"), &mut own);
    gather(&root.join("tests/fuzz/seeds/mime"), &mut own);
    assert!(own.len() >= OWN_MIN, "the project's own messages were not found");
    own.extend(corpus());
    own.sort();
    own.into_iter().map(|path| (path.clone(), std::fs::read(path).expect("read"))).collect()
}

/// The messages of `shared/corpus`; says so and gives none where it is not.
fn corpus() -> Vec<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let Some(root) = here.ancestors().map(|dir| dir.join("shared/corpus")).find(|dir| dir.is_dir())
    else {
        // Why no macro: what a test that passes prints is kept from everybody.
        let said = b"skipped: no shared/corpus beside the workspace\n";
        let _ = std::io::stderr().write_all(said);
        return Vec::new();
    };
    let mut files = Vec::new();
    gather(&root, &mut files);
    files
}

fn gather(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("list the corpus") {
        let path = entry.expect("list the corpus").path();
        if path.is_dir() {
            gather(&path, files);
        } else if path.extension().is_none_or(|extension| extension != "md") {
            files.push(path);
        }
    }
}

/// Scans in pieces whose lengths `cuts` gives, over and over.
pub fn scan_in_cuts(raw: &[u8], cuts: &[usize]) -> Metadata {
    let mut scanner = Scanner::new();
    let mut rest = raw;
    let mut lengths = cuts.iter().cycle();
    while !rest.is_empty() {
        let length = lengths.next().copied().unwrap_or(rest.len()).clamp(1, rest.len());
        scanner.feed(&rest[..length]);
        rest = &rest[length..];
    }
    scanner.finish()
}

/// Asserts what holds of every message: ranges lie in the message and in each other, in order,
/// and line counts are those of the ranges.
pub fn check(raw: &[u8], metadata: &Metadata) {
    let root = &metadata.structure;
    assert_eq!(metadata.size, raw.len() as u64);
    assert_eq!(root.whole(), Range { start: 0, end: metadata.size }, "the root spans the message");
    check_part(raw, root);
    check_envelope(&metadata.envelope);
    let n_chars = metadata.preview.as_ref().map_or(0, |preview| preview.chars().count());
    assert!(n_chars <= mime::limits::PREVIEW_CHARS_MAX);
}

/// Asserts that IMAP can send every value of the envelope as a string.
fn check_envelope(envelope: &Envelope) {
    let values = [&envelope.date, &envelope.subject, &envelope.in_reply_to, &envelope.message_id];
    values.into_iter().for_each(|value| check_value(value.as_deref()));
    let lists = [&envelope.from, &envelope.sender, &envelope.reply_to];
    let more = [&envelope.to, &envelope.cc, &envelope.bcc];
    for address in lists.into_iter().chain(more).flatten() {
        for value in [&address.name, &address.adl, &address.mailbox, &address.host] {
            check_value(value.as_deref());
        }
    }
}

fn check_value(value: Option<&[u8]>) {
    let value = value.unwrap_or_default();
    let is_sendable = !value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0));
    assert!(is_sendable, "{:?}", String::from_utf8_lossy(value));
}

fn check_part(raw: &[u8], part: &Part) {
    for value in [&part.id, &part.description, &part.md5, &part.location] {
        check_value(value.as_deref());
    }
    let of_disposition = part.disposition.iter().flat_map(|disposition| &disposition.parameters);
    for parameter in part.content_type.parameters.iter().chain(of_disposition) {
        check_value(Some(&parameter.value));
    }
    assert!(part.header.start <= part.header.end, "{:?}", part.header);
    assert_eq!(part.header.end, part.body.start, "the body follows the header");
    assert!(part.body.start <= part.body.end, "{:?}", part.body);
    let body = &raw[part.body.start as usize..part.body.end as usize];
    let n_lines = body.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(part.n_lines, n_lines as u64, "lines of {:?}", part.body);
    match &part.kind {
        PartKind::Leaf => assert_ne!(part.content_type.kind, "multipart"),
        PartKind::Multipart(children) => {
            assert_eq!(part.content_type.kind, "multipart");
            assert!(!children.is_empty());
            let mut from = part.body.start;
            for child in children {
                assert!(child.header.start >= from, "parts overlap");
                assert!(child.body.end <= part.body.end, "a part leaves its multipart");
                from = child.body.end;
                check_end(raw, part, child);
                check_part(raw, child);
            }
        }
        PartKind::Message { part: inner, envelope } => {
            check_envelope(envelope);
            assert_eq!(inner.whole(), part.body, "a message fills its part");
            check_part(raw, inner);
        }
    }
}

/// A part ends at the line end before a delimiter, or without a body at the delimiter itself, or
/// with what it is in.
fn check_end(raw: &[u8], around: &Part, part: &Part) {
    let behind = &raw[part.body.end as usize..around.body.end as usize];
    let is_whole = behind.starts_with(b"\r\n--")
        || behind.starts_with(b"\n--") && !raw[..part.body.end as usize].ends_with(b"\r")
        || behind.starts_with(b"--") && raw[..part.body.end as usize].ends_with(b"\n")
        || behind.is_empty();
    assert!(is_whole, "{:?} ends before {:?}", part.body, String::from_utf8_lossy(behind));
}
