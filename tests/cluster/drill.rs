//! The drill as an operator runs it, against a demo of real processes.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::demo::{Demo, rookery};
use tests::wait;

/// Scenarios of the test; `ROOKERY_DRILL` names others, separated by commas.
const SCENARIOS: &str = "leader-crash,leader-drain";
/// For a drill to notice that nobody is there.
const SAID_WITHIN: Duration = Duration::from_secs(40);
/// Much sooner than a server that says nothing is given up.
const LEFT_WITHIN: Duration = Duration::from_secs(10);

fn drill(arguments: &[&str], paths: &[&Path]) -> Result<Output> {
    Command::new(rookery()).arg("drill").args(arguments).args(paths).output().context("run drill")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

#[test]
fn a_drill_of_a_demo_finds_every_promise_kept_and_leaves_nothing_behind() -> Result<()> {
    let mut demo = Demo::start(&["--no-sample-mail", "--accounts", "0"])?;
    let out = demo.dir().join("histories");
    let (json, html) = (demo.dir().join("report.json"), demo.dir().join("report.html"));
    let file = demo.cluster_file();
    let scenarios = std::env::var("ROOKERY_DRILL").unwrap_or_else(|_| SCENARIOS.into());
    let done = Command::new(rookery())
        .args(["drill", "--only", &scenarios, "--canaries", "2", "--seed", "7"])
        .arg("--cluster")
        .arg(&file)
        .arg("--out")
        .arg(&out)
        .arg("--json")
        .arg(&json)
        .arg("--html")
        .arg(&html)
        .output()?;
    println!("{}", said(&done));
    ensure!(done.status.success(), "the drill failed");

    let report: Value = serde_json::from_str(&std::fs::read_to_string(&json)?)?;
    let runs = report["scenarios"].as_array().context("no scenarios")?;
    ensure!(runs.len() == scenarios.split(',').count(), "{} scenarios were run", runs.len());
    for run in runs {
        ensure!(run["n_acknowledged"].as_u64() > Some(50), "too little was done: {run}");
        ensure!(run["faults"][0]["name"].is_string(), "nothing was done to the cluster: {run}");
    }
    let page = std::fs::read_to_string(&html)?;
    ensure!(page.contains("<b>Passed.</b>") && page.contains("<svg"), "the page says else");
    let accounts = demo.ctl(&["account", "list", "--json"])?;
    ensure!(!said(&accounts).contains("drill"), "canaries are left: {}", said(&accounts));

    let checked = drill(&["check"], &[&out])?;
    ensure!(checked.status.success(), "the same histories: {}", said(&checked));
    a_verdict_nobody_reads_is_the_exit_status(&out)?;
    let first = scenarios.split(',').next().context("no scenario")?;
    a_planted_loss_is_found(&out.join(format!("{first}-1.jsonl")))?;
    demo.end()?;
    a_drill_of_nothing_ends(&file, &json)
}

/// Where nobody answers it says so, and the report of a drill before it does not stay.
fn a_drill_of_nothing_ends(file: &Path, json: &Path) -> Result<()> {
    let begun = Instant::now();
    let done = drill(&["--cluster"], &[file, Path::new("--json"), json])?;
    let said = said(&done);
    ensure!(!done.status.success(), "it passed without a cluster: {said}");
    ensure!(said.contains("no node of a formed cluster answered"), "{said}");
    ensure!(begun.elapsed() < SAID_WITHIN, "it took {:?}", begun.elapsed());
    let report: Value = serde_json::from_str(&std::fs::read_to_string(json)?)?;
    ensure!(report["passed"] == false, "the report of the drill before is still there");
    Ok(())
}

#[test]
fn who_ends_a_drill_twice_does_not_wait_for_a_server_that_says_nothing() -> Result<()> {
    let silent = TcpListener::bind("127.0.0.1:0")?;
    silent.set_nonblocking(true)?;
    let address = silent.local_addr()?.to_string();
    let mut command = Command::new(rookery());
    command.args(["drill", "watch", "--user", "anna", "--imap", &address]);
    command.env("DRILL_PASSWORD", "secret").stdin(Stdio::null()).stdout(Stdio::null());
    let mut drill = command.stderr(Stdio::piped()).spawn()?;
    let pid = drill.id().to_string();
    let end = || Command::new("kill").args(["-TERM", &pid]).status();
    let _connection = wait::until(SAID_WITHIN, "it connects", || Ok(silent.accept()?))?;
    ensure!(end()?.success(), "the first signal");
    let mut said = BufReader::new(drill.stderr.take().context("no output")?);
    let mut words = String::new();
    said.read_line(&mut words)?;
    ensure!(words.contains("once more"), "the drill says: {words}");
    ensure!(end()?.success(), "the second signal");
    let left = wait::until(LEFT_WITHIN, "it is gone", || drill.try_wait()?.context("it runs"))?;
    ensure!(left.code() == Some(130), "it ended with {left}");
    Ok(())
}

/// As `rookery drill check DIR | head -0` ends.
fn a_verdict_nobody_reads_is_the_exit_status(histories: &Path) -> Result<()> {
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    let mut command = Command::new(rookery());
    let status = command.args(["drill", "check"]).arg(histories).stdout(writer).status()?;
    ensure!(status.success(), "without a reader the verdict is {status}");
    Ok(())
}

/// Takes one message out of what was there in the end.
fn a_planted_loss_is_found(file: &Path) -> Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let mut taken = None;
    let mut lines = Vec::new();
    for line in text.lines() {
        let mut record: Value = serde_json::from_str(line)?;
        if record["record"] == "final" && taken.is_none() {
            let messages = record["view"]["messages"].as_array_mut().context("no view")?;
            taken = messages.pop();
        }
        lines.push(record.to_string());
    }
    let taken = taken.context("no message is left in the end")?;
    std::fs::write(file, lines.join("\n"))?;
    let checked = drill(&["check"], &[file])?;
    ensure!(!checked.status.success(), "a message is missing, and nobody noticed");
    let token = taken["token"].as_str().context("no token")?;
    ensure!(said(&checked).contains(token), "{token} is not named: {}", said(&checked));
    Ok(())
}
