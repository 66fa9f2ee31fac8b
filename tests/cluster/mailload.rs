//! Leaders are killed under the load of `mailload`, a tool that knows nothing of this project, and its
//! own audit is the judge. It lies beside the project, or the test is skipped, which is said.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::demo::Demo;
use tests::imap::Imap;
use tests::skip::skipped;
use tests::wait;

const PASSWORD: &str = "secret";
const N_ACCOUNTS: usize = 8;
const N_CLIENTS: usize = 4;
/// Leaders killed, one after the other; `ROOKERY_KILLS` asks for more.
const N_KILLS: u64 = 3;
/// The load's time for each kill, twice what one takes on an idle machine.
const SECONDS_PER_KILL: u64 = 5;
/// Acknowledgements that show that the load goes on: more than were under way at the kill.
const N_PROGRESS: usize = 2 * N_CLIENTS;
/// A debug build on two cores that also run the tests; the figure of the product is measured in release.
const UNAVAILABLE_MAX_MS: u64 = 10_000;

/// The built tool and the journal its runs share.
struct Mailload {
    program: PathBuf,
    acked: PathBuf,
}

/// A run of deliveries; killed when dropped.
struct Load(Option<Child>);

#[test]
fn leaders_die_under_mailload_and_its_audit_is_clean() -> Result<()> {
    let Some(program) = build()? else { return Ok(()) };
    let home = tempfile::tempdir()?;
    let mailload = Mailload { program, acked: home.path().join("acked") };
    let accounts = N_ACCOUNTS.to_string();
    let mut demo = Demo::start(&["--no-sample-mail", "--accounts", &accounts])?;
    let mut load = mailload.deliver(&demo)?;
    for kill in 1..=n_kills() {
        load = mailload.progress(&demo, load, "deliveries before the kill")?;
        let leader = wait::until(Duration::from_secs(30), "a leader", || demo.busiest_leader())?;
        demo.signal(&leader, "KILL")?;
        load = mailload.progress(&demo, load, "deliveries after the kill")?;
        demo.start_again(&leader)?;
        // Why whole: the next is to die in a cluster that can spare one.
        demo.wait_healthy(true)?;
        println!("kill {kill}: {leader}");
    }
    load.judge()?;
    demo.wait_healthy(true)?;
    mailload.audit(&demo)?;
    let before = states(&demo)?;
    demo.end()?;
    demo.begin()?;
    mailload.audit(&demo)?;
    ensure!(before == states(&demo)?, "UIDs or UIDVALIDITY changed with a restart of everything");
    Ok(())
}

fn n_kills() -> u64 {
    std::env::var("ROOKERY_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(N_KILLS)
}

/// Builds the tool where it lies beside the project; nothing is written there.
fn build() -> Result<Option<PathBuf>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no root")?;
    let source = root.parent().context("no parent")?.join("shared").join("mailload");
    let manifest = source.join("Cargo.toml");
    if !manifest.is_file() {
        skipped(format!("no {}", manifest.display()));
        return Ok(None);
    }
    let test = std::env::current_exe()?;
    let target = test.ancestors().nth(3).context("tests lie in target/PROFILE/deps")?;
    let target = target.join("mailload");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.args(["build", "--release", "--locked", "-q", "--manifest-path"]).arg(&manifest);
    let built = cargo.env("CARGO_TARGET_DIR", &target).stdin(Stdio::null()).output()?;
    ensure!(built.status.success(), "build mailload: {}", said(&built));
    Ok(Some(target.join("release").join("mailload")))
}

impl Mailload {
    /// Begins to deliver, for as long as the kills take.
    fn deliver(&self, demo: &Demo) -> Result<Load> {
        let mut deliver = self.command("deliver", demo, "lmtp")?;
        let clients = N_CLIENTS.to_string();
        let seconds = (n_kills() * SECONDS_PER_KILL).to_string();
        deliver.args(["--clients", &clients, "--seconds", &seconds, "--size", "20k"]);
        deliver.arg("--ride-out").stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(Load(Some(deliver.spawn().context("run mailload")?)))
    }

    /// Every acknowledged message is there exactly once, unchanged, in an order that is allowed.
    fn audit(&self, demo: &Demo) -> Result<()> {
        let done = self.command("audit", demo, "imap")?.output().context("run mailload")?;
        println!("{}", said(&done));
        ensure!(done.status.success(), "the audit is not clean: {}", said(&done));
        let verdict: Value = serde_json::from_slice(&done.stdout)?;
        let n_acked = self.n_acked()? as u64;
        ensure!(verdict["clean"] == true, "the audit says {verdict}");
        ensure!(verdict["intact"] == n_acked, "{n_acked} were acknowledged: {verdict}");
        Ok(())
    }

    /// A subcommand at this port of both frontends.
    fn command(&self, verb: &str, demo: &Demo, port: &str) -> Result<Command> {
        let mut command = Command::new(&self.program);
        let at = format!("{},{}", demo.at("f1", port)?, demo.at("f2", port)?);
        let users = format!("u%04d@example.test:1-{N_ACCOUNTS}");
        command.args([verb, "--addr", &at, "--users", &users, "--password", PASSWORD]);
        command.arg("--acked").arg(&self.acked).stdin(Stdio::null());
        Ok(command)
    }

    /// Acknowledgements in the journal, a line each.
    fn n_acked(&self) -> Result<usize> {
        match std::fs::read(&self.acked) {
            Ok(text) => Ok(text.iter().filter(|byte| **byte == b'\n').count()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until the load went on. On a slow machine its time may be over first: another takes over.
    fn progress(&self, demo: &Demo, mut load: Load, what: &str) -> Result<Load> {
        let before = self.n_acked()?;
        loop {
            let goes_on = wait::until(Duration::from_secs(60), what, || {
                let n_new = self.n_acked()? - before;
                let goes_on = n_new >= N_PROGRESS;
                ensure!(goes_on || load.is_over()?, "{n_new} acknowledged");
                Ok(goes_on)
            })?;
            if goes_on {
                return Ok(load);
            }
            load.judge()?;
            load = self.deliver(demo)?;
        }
    }
}

impl Load {
    fn is_over(&mut self) -> Result<bool> {
        let child = self.0.as_mut().context("the run was judged")?;
        Ok(child.try_wait()?.is_some())
    }

    /// Waits for its end. No connection was lost and nothing refused: the tool counts both as errors.
    fn judge(mut self) -> Result<()> {
        let done = self.0.take().context("the run was judged")?.wait_with_output()?;
        println!("{}", said(&done));
        ensure!(done.status.success(), "mailload failed: {}", said(&done));
        let report: Value = serde_json::from_slice(&done.stdout)?;
        ensure!(report["errors"] == 0, "clients were refused or cut off: {report}");
        let longest_ms = report["max_unavailable_ms"].as_u64().context("no figure")?;
        ensure!(longest_ms < UNAVAILABLE_MAX_MS, "a client waited {longest_ms} ms");
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// UIDVALIDITY and UIDs of every account's INBOX.
fn states(demo: &Demo) -> Result<Vec<(String, Vec<u32>)>> {
    let one = |k: usize| {
        let user = format!("u{k:04}@example.test");
        let mut imap = Imap::login(&demo.at("f1", "imap")?, &user, PASSWORD)?;
        let selected = imap.ok("SELECT INBOX")?;
        let validity = selected.into_iter().find(|line| line.text.contains("UIDVALIDITY"));
        Ok((validity.context("no UIDVALIDITY")?.text, imap.uids()?))
    };
    (1..=N_ACCOUNTS).map(one).collect()
}

fn said(done: &Output) -> String {
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).trim().to_owned();
    format!("{}\n{}", text(&done.stdout), text(&done.stderr))
}
