//! The processes a cluster file names. One is known by its whole command line, so one that was started
//! again by hand is found as well, and a reused pid is never mistaken for it.

use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::cluster_file::Process;

/// How long the ports of one that was killed may stay taken. Why: its memory goes first, so it is no
/// longer found while the system still closes its files.
const PORTS_FREE_MAX: Duration = Duration::from_secs(3);
/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Beside the cluster file: locked as long as the demo runs.
pub const ALIVE_FILE: &str = "alive";
/// Names that file to a process, in its environment: it ends when the demo does.
pub const ALIVE: &str = "ROOKERY_DEMO_ALIVE";

/// Starts one, in the background, with its log beside its configuration.
pub fn spawn(process: &Process) -> Result<std::process::Child> {
    wait_for_ports(process);
    let log = log_path(process);
    let mut options = fs::OpenOptions::new();
    let log = options
        .create(true)
        .append(true)
        .open(&log)
        .with_context(|| format!("open {}", log.display()))?;
    let (program, arguments) = process.argv.split_first().context("empty command line")?;
    Command::new(program)
        .args(arguments)
        .envs(&process.env)
        .envs(alive_path(process).map(|path| (ALIVE, path)))
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("open log")?)
        .stderr(log)
        // Why: Ctrl-C is for who started it, who then ends its processes in order.
        .process_group(0)
        .spawn()
        .with_context(|| format!("start {}", process.name))
}

/// Waits until nobody listens at its ports; if somebody goes on to, it says so itself.
fn wait_for_ports(process: &Process) {
    let until = Instant::now() + PORTS_FREE_MAX;
    let is_taken = |port: &u16| TcpListener::bind((process.address.as_str(), *port)).is_err();
    while process.ports.values().any(is_taken) && Instant::now() < until {
        std::thread::sleep(LOOK_EVERY);
    }
}

/// The log lies beside the configuration.
fn log_path(process: &Process) -> PathBuf {
    let config = process.argv.last().map(PathBuf::from).unwrap_or_default();
    config.with_file_name("log")
}

/// Its configuration lies in a directory of its own beside the cluster file.
fn alive_path(process: &Process) -> Option<PathBuf> {
    let config = process.argv.last().map(PathBuf::from)?;
    Some(config.parent()?.parent()?.join(ALIVE_FILE)).filter(|path| path.exists())
}

/// The last line of its log.
pub fn last_words(process: &Process) -> String {
    let log = fs::read_to_string(log_path(process)).unwrap_or_default();
    log.lines().last().unwrap_or("it left no log").to_owned()
}

/// The pid of the live process with exactly this command line.
pub fn find(process: &Process) -> Option<u32> {
    if runs(process.pid, process) {
        return Some(process.pid);
    }
    let pids = fs::read_dir("/proc")
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.into_iter().find(|pid| runs(*pid, process))
}

fn runs(pid: u32, process: &Process) -> bool {
    // A zombie's command line is empty, so the dead are not taken for alive.
    let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    let arguments = line.strip_suffix(b"\0").unwrap_or(&line).split(|byte| *byte == 0);
    pid != 0 && arguments.eq(process.argv.iter().map(String::as_bytes))
}

/// Sends it a signal if it runs.
pub fn signal(process: &Process, signal: i32) {
    if let Some(pid) = find(process) {
        // SAFETY: kill(2) takes two numbers; the pid was just seen to be this process.
        unsafe { libc::kill(pid as i32, signal) };
    }
}
