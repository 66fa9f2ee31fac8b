//! The house keeps itself tidy: arrows between crates, sizes, and words that must not be left.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Limit: lines of a source file (the house style); longer ones hide more than one idea.
const FILE_LINES_MAX: usize = 800;
/// Limit: columns of a line of source; a little over the formatter's, for text it does not break.
const COLUMNS_MAX: usize = 110;

/// The arrows of ARCHITECTURE.md. What is not here is not allowed.
const ARROWS: &[(&str, &[&str])] = &[
    ("mime", &[]),
    ("mailbox", &["mime"]),
    ("imap", &["mailbox", "mime"]),
    ("pop3", &["mailbox"]),
    ("lmtp", &["mailbox"]),
    ("journal", &[]),
    ("api", &["mailbox"]),
    ("replica", &["mailbox", "api", "journal"]),
    ("node", &["api", "mailbox", "replica"]),
    ("frontend", &["api", "mailbox", "mime", "imap", "pop3", "lmtp"]),
    ("admin", &["api", "mailbox"]),
    ("drill", &["api", "admin"]),
    ("rookery", &["node", "frontend", "admin", "drill"]),
];

/// Crates that touch nothing outside: no clock, disk, network, task, randomness, logs.
const PURE: &[&str] = &["mailbox", "mime", "imap", "pop3", "lmtp"];
const IMPURE_PACKAGES: &[&str] =
    &["tokio", "tonic", "tracing", "getrandom", "rand", "sled", "socket2", "openraft"];
const IMPURE_WORDS: &[&str] =
    &["std::fs", "std::net", "std::thread", "SystemTime", "Instant::now", "HashMap"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lies in the root").to_path_buf()
}

fn sources(under: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(under).expect("the tree can be read") {
        let path = entry.expect("the tree can be read").path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

fn all_sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for room in ["crates", "tests"] {
        sources(&root().join(room), &mut found);
    }
    assert!(found.len() > 30, "the sources were not found");
    found
}

fn manifest(room: &str) -> toml::Table {
    let path = root().join("crates").join(room).join("Cargo.toml");
    std::fs::read_to_string(path).expect("every crate has a manifest").parse().expect("TOML")
}

fn dependencies(room: &str) -> BTreeSet<String> {
    let manifest = manifest(room);
    let table = manifest.get("dependencies").and_then(|table| table.as_table());
    table.map(|table| table.keys().cloned().collect()).unwrap_or_default()
}

#[test]
fn arrows_between_crates_are_those_that_were_drawn() {
    let drawn: BTreeMap<_, BTreeSet<_>> =
        ARROWS.iter().map(|(from, to)| (*from, to.iter().copied().collect())).collect();
    for entry in std::fs::read_dir(root().join("crates")).expect("crates") {
        let name = entry.expect("crates").file_name().into_string().expect("UTF-8");
        let allowed = drawn.get(name.as_str()).unwrap_or_else(|| panic!("{name} is not drawn"));
        for dependency in dependencies(&name) {
            let ours = drawn.contains_key(dependency.as_str());
            let fine = !ours || allowed.contains(dependency.as_str());
            assert!(fine, "the arrow {name} -> {dependency} is not drawn");
        }
    }
}

#[test]
fn pure_crates_touch_nothing_outside() {
    for room in PURE {
        for dependency in dependencies(room) {
            assert!(!IMPURE_PACKAGES.contains(&dependency.as_str()), "{room} needs {dependency}");
        }
        let mut files = Vec::new();
        sources(&root().join("crates").join(room).join("src"), &mut files);
        for file in files {
            let text = std::fs::read_to_string(&file).expect("source");
            for word in IMPURE_WORDS {
                assert!(!text.contains(word), "{} says {word}", file.display());
            }
        }
    }
}

#[test]
fn only_replica_names_openraft_and_sled() {
    for (room, _) in ARROWS.iter().filter(|(room, _)| *room != "replica") {
        let found = dependencies(room);
        assert!(!found.contains("openraft") && !found.contains("sled"), "{room} names the engine");
    }
    let workspace = std::fs::read_to_string(root().join("Cargo.toml")).expect("manifest");
    assert!(
        workspace.contains("openraft = { version = \"=0.10.0-alpha.37\""),
        "openraft is pinned"
    );
}

#[test]
fn files_stay_small_enough_to_be_read() {
    for path in all_sources() {
        let text = std::fs::read_to_string(&path).expect("source");
        let lines = text.lines().count();
        assert!(lines <= FILE_LINES_MAX, "{} has {lines} lines", path.display());
        for (n, line) in text.lines().enumerate() {
            let columns = line.chars().count();
            assert!(columns <= COLUMNS_MAX, "{}:{} has {columns} columns", path.display(), n + 1);
        }
    }
}

#[test]
fn nothing_is_left_for_later() {
    // The words are put together here so that this file does not find itself.
    let left = [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["unimple", "mented!"].concat()];
    let ignored = ["#[ig", "nore"].concat();
    for path in all_sources() {
        let text = std::fs::read_to_string(&path).expect("source");
        for word in left.iter().chain([&ignored]) {
            assert!(!text.contains(word.as_str()), "{} says {word}", path.display());
        }
    }
}

#[test]
fn no_package_has_a_licence_we_cannot_take() {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).expect("lock file");
    for name in ["sieve-rs", "jmap-proto"] {
        assert!(!lock.contains(&format!("name = \"{name}\"")), "{name} is AGPL");
    }
}
