//! Processes whose log cannot be written, since its disk is full or whoever read it is gone.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::demo::{free_ports, rookery, signal};
use tests::wait;

const WITHIN: Duration = Duration::from_secs(30);

#[test]
fn a_process_goes_on_and_ends_in_order_when_its_log_cannot_be_written() -> Result<()> {
    let home = tempfile::tempdir()?;
    ctl(&["cert", "authority", "--dir"], &home.path().join("ca"))?;
    for (role, rest) in [
        ("frontend", "seeds = [\"127.0.0.1:1\"]\nidentity"),
        ("node", "data_dirs = [\".\"]\nlisten = \"127.0.0.1:0\"\nidentity_dir"),
    ] {
        let ca = home.path().join("ca").display().to_string();
        let identity = home.path().join(role);
        let issue = ["cert", "issue", "--name", "x1", "--role", role, "--authority", &ca, "--out"];
        ctl(&issue, &identity)?;
        let disk = home.path().join(format!("{role}-disk"));
        std::fs::create_dir(&disk)?;
        let http = format!("127.0.0.1:{}", free_ports()?);
        let file = home.path().join("config.toml");
        let text = format!("name = \"x1\"\nhttp = \"{http}\"\n{rest} = {identity:?}\n");
        std::fs::write(&file, text)?;
        full(role, &file, &disk, &http).with_context(|| format!("{role}, full"))?;
        broken(role, &file, &disk, &http).with_context(|| format!("{role}, pipe"))?;
    }
    Ok(())
}

/// Every line fails, from the first one on.
fn full(role: &str, config: &Path, dir: &Path, http: &str) -> Result<()> {
    let log = OpenOptions::new().write(true).open("/dev/full")?;
    let process = start(role, config, dir, log.into())?;
    alive_and_ends(process, http)
}

/// Whoever read the log goes away.
fn broken(role: &str, config: &Path, dir: &Path, http: &str) -> Result<()> {
    let mut process = start(role, config, dir, Stdio::piped())?;
    let mut log = process.stderr.take().context("no pipe")?;
    log.read_exact(&mut [0])?;
    drop(log);
    alive_and_ends(process, http)
}

fn start(role: &str, config: &Path, dir: &Path, log: Stdio) -> Result<Child> {
    let mut command = Command::new(rookery());
    command.arg(role).arg("--config").arg(config).current_dir(dir);
    Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?)
}

fn alive_and_ends(mut process: Child, http: &str) -> Result<()> {
    let alive = wait::until(WITHIN, "it is alive", || Ok(TcpStream::connect(http).map(drop)?));
    let ended = alive.and_then(|()| {
        signal(process.id(), "TERM")?;
        wait::until(WITHIN, "it ends", || process.try_wait()?.context("it still runs"))
    });
    if ended.is_err() {
        process.kill()?;
    }
    let status = ended?;
    ensure!(status.success(), "{status}");
    Ok(())
}

fn ctl(arguments: &[&str], path: &Path) -> Result<()> {
    let status = Command::new(rookery()).arg("ctl").args(arguments).arg(path).status()?;
    ensure!(status.success(), "ctl {arguments:?}: {status}");
    Ok(())
}
