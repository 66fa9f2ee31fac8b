//! Roundcube, as a browser drives it. Skipped, which is said, where it is not installed.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use tests::demo::Demo;
use tests::skip::{has_program, skipped};

/// What Debian's packages roundcube-core, roundcube-sqlite3 and php-cli bring.
const NEEDED: [&str; 4] = [
    "/var/lib/roundcube/index.php",
    "/etc/roundcube/defaults.inc.php",
    "/usr/share/roundcube/SQL/sqlite.initial.sql",
    "/usr/bin/php",
];

#[test]
fn webmail_reads_sorts_searches_moves_and_keeps_drafts() -> Result<()> {
    if let Some(missing) = NEEDED.iter().find(|path| !Path::new(path).exists()) {
        skipped(format!("there is no {missing}"));
        return Ok(());
    }
    if !has_program("python3") {
        return Ok(());
    }
    if !has_sqlite()? {
        skipped("PHP has no sqlite");
        return Ok(());
    }
    let demo = Demo::start(&["--no-sample-mail", "--accounts", "1"])?;
    let home = tempfile::tempdir()?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster").join("webmail.py");
    let ca = demo.cluster()?["ca"].as_str().unwrap_or_default().to_owned();
    let mut browser = Command::new("python3");
    browser.arg(script).args([demo.at("f1", "imap")?, demo.at("f2", "lmtp")?, ca]);
    let output = browser.args(["u0001@example.test", "secret"]).arg(home.path()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}");
    Ok(())
}

fn has_sqlite() -> Result<bool> {
    let modules = Command::new("php").arg("-m").output()?.stdout;
    Ok(String::from_utf8_lossy(&modules).lines().any(|module| module == "pdo_sqlite"))
}
