//! Messages to test with: some made here, and a corpus of real ones where it lies beside the project.

use std::path::{Path, PathBuf};

use crate::skip::skipped;

/// Where real messages lie, if they do.
pub fn corpus_dir() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    let corpus = root.parent()?.join("shared").join("corpus");
    corpus.is_dir().then_some(corpus)
}

/// All messages of the corpus, or none, and says so.
pub fn corpus() -> Vec<Vec<u8>> {
    let Some(dir) = corpus_dir() else {
        skipped("no corpus of real messages beside the project");
        return Vec::new();
    };
    let mut messages = Vec::new();
    let mut open = vec![dir];
    while let Some(dir) = open.pop() {
        let mut entries: Vec<_> =
            std::fs::read_dir(dir).expect("the corpus can be read").flatten().collect();
        entries.sort_by_key(std::fs::DirEntry::path);
        for entry in entries {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_none_or(|extension| extension != "md") {
                messages.push(std::fs::read(path).expect("the corpus can be read"));
            }
        }
    }
    messages
}

/// Messages with the shapes that break mail stores.
pub fn made() -> Vec<Vec<u8>> {
    let head = "From: a@example.test\r\nTo: b@example.test\r\nSubject: made\r\n";
    let mut all: Vec<Vec<u8>> = vec![
        format!("{head}\r\nshort\r\n").into(),
        format!("{head}\r\n.\r\n..\r\n.dots\r\n").into(),
        format!("{head}\r\nno final line end").into(),
        format!("{head}\r\n").into(),
        "no header at all\r\n".into(),
        format!(
            "{head}Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\none\r\n--b--\r\n"
        )
        .into(),
        format!("{head}\r\n{}\r\n", "x".repeat(998)).into(),
    ];
    let mut eight_bit = format!("{head}\r\n").into_bytes();
    eight_bit.extend((1..=255u8).filter(|byte| *byte != b'\n' && *byte != b'\r'));
    eight_bit.extend_from_slice(b"\r\n");
    all.push(eight_bit);
    all.push(large(1_500_000));
    all
}

/// A message of about this many octets that does not compress well.
pub fn large(octets: usize) -> Vec<u8> {
    let mut message = b"From: a@example.test\r\nSubject: large\r\n\r\n".to_vec();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    while message.len() < octets {
        for _ in 0..75 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            message.push(b'!' + (state % 90) as u8);
        }
        message.extend_from_slice(b"\r\n");
    }
    message
}

/// The same message as LMTP transports it: every line ends with CRLF.
pub fn crlf(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + message.len() / 32 + 2);
    let mut last = 0;
    for &byte in message {
        if byte == b'\n' && last != b'\r' {
            out.push(b'\r');
        }
        if last == b'\r' && byte != b'\n' {
            out.push(b'\n');
        }
        out.push(byte);
        last = byte;
    }
    if last == b'\r' {
        out.push(b'\n');
    }
    if !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out
}
