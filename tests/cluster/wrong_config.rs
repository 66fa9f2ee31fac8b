//! What a process says to a configuration that cannot work: one line that names the mistake, and exit
//! status 1. No cluster is needed for that.

use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use tests::demo::rookery;

#[test]
fn a_node_says_what_is_wrong_with_its_configuration() -> Result<()> {
    let home = tempfile::tempdir()?;
    issue(home.path(), "node", "n1")?;
    let wrong = [
        ("lisen = \"[::1]:0\"", "unknown setting `lisen`, did you mean `listen`?"),
        ("zone = 7", "line 4: invalid type: integer `7`, expected a string"),
        ("advertise = \"n1.mail.test\"", "advertise: write it as host:port"),
        ("retention_s = -1", "line 4: invalid value"),
    ];
    for (line, words) in wrong {
        refused("node", home.path(), "n1", line, words)?;
    }
    issue(home.path(), "frontend", "f1")?;
    refused("node", home.path(), "f1", "", "the certificate is for f1.frontend.rookery.internal")
}

#[test]
fn a_frontend_says_what_is_wrong_with_its_configuration() -> Result<()> {
    let home = tempfile::tempdir()?;
    issue(home.path(), "frontend", "f1")?;
    let tls = |key: &str| {
        let file = |name: &str| home.path().join("f1").join(name).display().to_string();
        format!("tls_certificate = {:?}\ntls_key = {:?}", file("cert.pem"), file(key))
    };
    let (no_key, two_lines) = (tls("cert.pem"), "hostname = \"a\\r\\nb\"");
    let wrong = [
        ("imapss = \"[::1]:0\"", "unknown setting `imapss`, did you mean `imaps`?"),
        ("connections_per_account_max = 0", "it is 1 at least"),
        (two_lines, "hostname: use letters, digits, dots and hyphens"),
        (&no_key, "cert.pem: no private key in it"),
    ];
    for (line, words) in wrong {
        refused("frontend", home.path(), "f1", line, words)?;
    }
    // It stands on the internet: no key that operates the cluster belongs there.
    for role in ["admin", "node"] {
        issue(home.path(), role, "x1")?;
        let words =
            format!("the certificate is for x1.{role}.rookery.internal, not for a frontend");
        refused("frontend", home.path(), "x1", "", &words)?;
    }
    Ok(())
}

/// An identity in a directory of its name.
fn issue(home: &Path, role: &str, name: &str) -> Result<()> {
    let ca = home.join("ca");
    if !ca.exists() {
        ended(Command::new(rookery()).args(["ctl", "cert", "authority", "--dir"]).arg(&ca), 0)?;
    }
    let mut issue = Command::new(rookery());
    issue.args(["ctl", "cert", "issue", "--role", role, "--name", name, "--authority"]);
    ended(issue.arg(&ca).arg("--out").arg(home.join(name)), 0).map(|_| ())
}

/// Starts a process with one more line in its configuration.
fn refused(role: &str, home: &Path, name: &str, line: &str, words: &str) -> Result<()> {
    let identity = home.join(name);
    let rest = match role {
        "node" => format!("data_dirs = [{:?}]\nidentity_dir = {identity:?}", home.join("none")),
        _ => format!("seeds = [\"127.0.0.1:1\"]\nidentity = {identity:?}"),
    };
    let file = home.join("config.toml");
    std::fs::write(&file, format!("name = {name:?}\n{rest}\n{line}\n"))?;
    // Why a time limit: one that is not refused serves for ever.
    let mut start = Command::new("timeout");
    start.arg("20").arg(rookery()).args([role, "--config"]).arg(&file);
    let output = ended(&mut start, 1).with_context(|| format!("{role} with {line:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let last = said.lines().last().context("it says nothing")?;
    ensure!(last.starts_with("rookery: serve: ") && last.contains(words), "{line:?}: {said}");
    Ok(())
}

fn ended(command: &mut Command, status: i32) -> Result<Output> {
    let output = command.output()?;
    ensure!(output.status.code() == Some(status), "{command:?}: {output:?}");
    Ok(output)
}
