//! Good input to begin with: files of `tests/fuzz/seeds`, what clients say in the transcripts, and a
//! checkpoint as it is written now.

use std::path::{Path, PathBuf};

use super::Target;
use super::targets::memory::play::unescape;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

/// All seeds of a target, in an order that is the same everywhere.
pub fn of(target: &Target) -> Vec<Vec<u8>> {
    let mut seeds = files(&root().join("fuzz/seeds").join(target.name))
        .into_iter()
        .map(|path| std::fs::read(path).expect("a seed can be read"))
        .collect::<Vec<_>>();
    let transcripts = root().join("../crates").join(target.name).join("tests/transcripts");
    if transcripts.is_dir() {
        let texts = files(&transcripts).into_iter();
        let texts = texts.map(|path| std::fs::read_to_string(path).expect("a transcript"));
        seeds.extend(texts.map(|text| client_side(&text)).filter(|said| !said.is_empty()));
    }
    if target.name == "checkpoint" {
        seeds.extend(replica::fuzz::seeds().expect("a checkpoint is written"));
    }
    assert!(!seeds.is_empty(), "{} has no seeds", target.name);
    seeds
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

/// What a transcript's client sends.
fn client_side(transcript: &str) -> Vec<u8> {
    let mut said = Vec::new();
    for line in transcript.lines() {
        if let Some(octets) = line.strip_prefix("C~ ") {
            said.extend(unescape(octets));
        } else if let Some(line) = line.strip_prefix("C:") {
            said.extend_from_slice(line.strip_prefix(' ').unwrap_or(line).as_bytes());
            said.extend_from_slice(b"\r\n");
        }
    }
    said
}
