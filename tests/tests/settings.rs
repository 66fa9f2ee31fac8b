//! `deploy/settings.md` lists every setting there is, and the examples beside it can be read.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lies in the root").join("deploy")
}

fn rendered() -> String {
    let mut text = String::from(
        "# Settings\n\nRendered by `UPDATE=1 cargo test -p tests --test settings`; do not edit.\n",
    );
    let row = |text: &mut String, key: &str, unit: &str, default: &str, when: &str| {
        writeln!(text, "| `{key}` | {unit} | {default} | {when} |").expect("memory takes it");
    };
    let head = "\n| key | unit | default | when to change it |\n|---|---|---|---|\n";
    text += &format!("\n## `rookery node`\n{head}");
    for one in node::config::SETTINGS {
        row(&mut text, one.key, one.unit, one.default, one.advice);
    }
    text += &format!("\n## `rookery frontend`\n{head}");
    for one in &frontend::SETTINGS {
        row(&mut text, one.key, one.unit, one.default, one.when);
    }
    text
}

#[test]
fn every_setting_is_listed() {
    let path = deploy().join("settings.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, rendered()).expect("settings.md can be written");
    }
    let listed = std::fs::read_to_string(&path).expect("settings.md is there");
    assert_eq!(listed, rendered(), "run with UPDATE=1 and look at the difference");
}

#[test]
fn the_examples_are_valid() {
    node::Config::load(&deploy().join("node.toml")).expect("node.toml");
    let text = std::fs::read_to_string(deploy().join("frontend.toml")).expect("frontend.toml");
    frontend::Config::from_toml(&text).expect("frontend.toml");
}
