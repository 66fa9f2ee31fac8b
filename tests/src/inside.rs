//! A world of a test's own: a network in which nobody else is, mounts that nobody else sees, and
//! processes that end with the test.
//!
//! Enter at [`enter`]: it runs the test once more, in namespaces, and there gives it a directory.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use crate::demo::rookery;
use crate::skip::{self, skipped};

/// Set inside: the test's directory.
const DIR: &str = "ROOKERY_TEST_INSIDE";

/// Inside: a directory that is removed afterwards. Outside `None`, when the test has run inside or was
/// skipped, which it says. `test` is its name as `cargo test` prints it.
pub fn enter(test: &str) -> Result<Option<PathBuf>> {
    if let Some(dir) = std::env::var_os(DIR) {
        raise_loopback()?;
        return Ok(Some(dir.into()));
    }
    let tried = unshare(Path::new("true")).output();
    match tried {
        Ok(done) if done.status.success() => {}
        Ok(done) => return without(String::from_utf8_lossy(&done.stderr).trim()),
        Err(error) => return without(&format!("unshare: {error}")),
    }
    // Why here: inside there is no network to build with.
    rookery();
    let dir = tempfile::Builder::new().prefix("rookery-test-").tempdir()?;
    let mut again = unshare(&std::env::current_exe()?);
    again.args([test, "--exact", "--nocapture", "--test-threads", "1"]).env(DIR, dir.path());
    let done = again.output().context("run the test inside")?;
    let said = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
    println!("{said}");
    skip::pass_on(&said);
    // Why: of a name that is not there no test fails.
    ensure!(said.contains("1 passed") || !done.status.success(), "{test} is not the test's name");
    ensure!(done.status.success(), "{test} failed inside");
    Ok(None)
}

/// Says why a test, or the rest of it, does not run here.
fn without<T>(reason: &str) -> Result<Option<T>> {
    skipped(format!("no namespaces of a test's own here: {reason}"));
    Ok(None)
}

fn unshare(program: &Path) -> Command {
    let mut command = Command::new("unshare");
    // SAFETY: geteuid(2) takes nothing and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        command.arg("--map-root-user");
    }
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.arg(program).stdin(Stdio::null());
    command
}

/// A new network's loopback is down.
fn raise_loopback() -> Result<()> {
    // SAFETY: ioctl(2) reads and writes one ifreq that lives across the calls; the socket is ours.
    let raised = unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
        let raised = libc::ioctl(socket, libc::SIOCSIFFLAGS, &raw mut request);
        libc::close(socket);
        raised
    };
    if raised != 0 {
        bail!("raise loopback: {}", std::io::Error::last_os_error());
    }
    Ok(())
}

/// Runs a program of the system; what it said, also as an error.
pub(crate) fn system(program: &str, arguments: &[&str]) -> Result<String> {
    let done = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let done = done.with_context(|| format!("run {program}"))?;
    let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
    ensure!(done.status.success(), "{program} {}: {said}", arguments.join(" "));
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}
