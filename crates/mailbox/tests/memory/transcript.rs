//! Golden transcripts: a file shows a session and its store. What the client sends and what is done
//! to the store is read from it; what the engine says and asks is compared with it, or rewritten
//! when the environment says `UPDATE=1`.
//!
//! `C: line` is sent with CRLF, `C~ octets` as it is (with `\r`, `\n`, `\xNN`), `C* n octets` so many
//! times. `store: ...` sets the store up, `event: ...` is what the driver tells.

use std::path::Path;

use mailbox::dialogue::Engine;

use super::play::{Play, unescape};

/// Plays every transcript of a directory, in which there are so many.
pub fn run_all(directory: &Path, n: usize, engine: impl Fn(&str) -> Box<dyn Engine>) {
    let is_update = std::env::var_os("UPDATE").is_some();
    let entries = std::fs::read_dir(directory).expect("the directory of transcripts");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    assert_eq!(paths.len(), n, "transcripts in {}", directory.display());
    for path in paths {
        let written = std::fs::read_to_string(&path).expect("a transcript");
        let name = path.file_stem().and_then(|name| name.to_str()).expect("a name");
        let played = play(&written, engine(name));
        if is_update {
            std::fs::write(&path, played).expect("write");
        } else {
            assert_eq!(played, written, "{} (UPDATE=1 rewrites it)", path.display());
        }
    }
}

fn play(written: &str, engine: Box<dyn Engine>) -> String {
    let mut play = Play::new(engine);
    let mut has_begun = false;
    for line in written.lines() {
        let is_told = ["S:", "store?", "store!", "|"].iter().any(|mark| line.starts_with(mark));
        if is_told {
            continue;
        }
        let is_preparation = line.is_empty() || line.starts_with('#') || line.starts_with("store:");
        if !has_begun && !is_preparation {
            has_begun = true;
            play.run();
        }
        play.log.push(line.to_owned());
        act(&mut play, line);
    }
    play.log.join("\n") + "\n"
}

fn act(play: &mut Play, line: &str) {
    if let Some(words) = line.strip_prefix("store: ") {
        play.set_up(words);
    } else if let Some(octets) = line.strip_prefix("C~ ") {
        play.receive(&unescape(octets));
    } else if let Some(words) = line.strip_prefix("C* ") {
        let (n, octets) = words.split_once(' ').expect("a count and octets");
        play.receive(&unescape(octets).repeat(n.parse().expect("a count")));
    } else if let Some(words) = line.strip_prefix("C:") {
        let words = words.strip_prefix(' ').unwrap_or(words);
        play.receive(&[words.as_bytes(), b"\r\n"].concat());
    } else if let Some(what) = line.strip_prefix("event: ") {
        play.event(what);
    } else {
        assert!(line.is_empty() || line.starts_with('#'), "what is {line:?}?");
    }
}
