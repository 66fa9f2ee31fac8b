//! The table of settings in deploy/ is what the program knows. `UPDATE=1` writes it anew.

#![allow(clippy::unwrap_used, reason = "a test stops where something is not as it must be")]

use std::fmt::Write as _;
use std::path::Path;

use node::config::SETTINGS;

#[test]
fn the_table_of_settings_is_what_the_program_knows() {
    let mut table = String::from("# Settings of a storage node\n\n");
    table.push_str("`rookery node --config FILE` reads one TOML file with these keys.\n\n");
    table.push_str("| setting | unit | default | when to change it |\n|---|---|---|---|\n");
    for setting in SETTINGS {
        let (key, unit, default) = (setting.key, setting.unit, setting.default);
        writeln!(table, "| `{key}` | {unit} | {default} | {} |", setting.advice).unwrap();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/node-settings.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &table).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(written, table, "run this test with UPDATE=1");
}
