//! The demo's processes: starting, watching, ending. A process is known by its whole command line, so one
//! that was started again by hand is found as well, and a reused pid is never mistaken for it.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use admin::cluster_file::{ClusterFile, Process};
use anyhow::{Context as _, Result, bail};

use super::layout::CLUSTER_FILE;

/// How long a process may take to hand over and end before it is killed.
const END_DEADLINE: Duration = Duration::from_secs(8);
/// How often an ending process is looked at.
const END_POLL: Duration = Duration::from_millis(20);

/// The processes of a running demo.
pub struct Children {
    cluster: ClusterFile,
    file: PathBuf,
    handles: Vec<std::process::Child>,
}

impl Children {
    /// Starts every process that does not run yet.
    pub fn start(cluster: ClusterFile, file: PathBuf) -> Result<Self> {
        let mut children = Self { cluster, file, handles: Vec::new() };
        for process in &mut children.cluster.processes {
            if let Some(pid) = find(process) {
                bail!("{} runs already as pid {pid}: end that demo first", process.name);
            }
        }
        for k in 0..children.cluster.processes.len() {
            let child = spawn(&children.cluster.processes[k])?;
            children.cluster.processes[k].pid = child.id();
            children.handles.push(child);
        }
        children.cluster.write(&children.file)?;
        Ok(children)
    }

    /// The processes with their present pids.
    pub fn cluster(&self) -> &ClusterFile {
        &self.cluster
    }

    /// Fails with the last words of a process that ended on its own.
    pub fn check(&mut self) -> Result<()> {
        self.reap();
        // Why the handles: between fork and the new program a child has no command line yet.
        let ours: Vec<u32> = self.handles.iter().map(std::process::Child::id).collect();
        for process in &self.cluster.processes {
            if !ours.contains(&process.pid) && find(process).is_none() {
                bail!("{} ended: {}", process.name, last_words(process));
            }
        }
        Ok(())
    }

    /// Notices processes that died or came back, and tells `cluster.json`.
    pub fn refresh(&mut self) -> Result<()> {
        self.reap();
        let mut changed = false;
        for process in &mut self.cluster.processes {
            if let Some(pid) = find(process)
                && pid != process.pid
            {
                process.pid = pid;
                changed = true;
            }
        }
        if changed { self.cluster.write(&self.file) } else { Ok(()) }
    }

    /// Ends all processes: frontends first, then nodes; asks first, then kills.
    pub async fn end_all(&mut self) {
        for role in ["frontend", "node"] {
            let of_role = |process: &&Process| process.role == role;
            for process in self.cluster.processes.iter().filter(of_role) {
                signal(process, libc::SIGTERM);
            }
            let deadline = tokio::time::Instant::now() + END_DEADLINE;
            loop {
                self.handles.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
                let alive =
                    self.cluster.processes.iter().filter(of_role).any(|p| find(p).is_some());
                if !alive || tokio::time::Instant::now() > deadline {
                    break;
                }
                tokio::time::sleep(END_POLL).await;
            }
            for process in self.cluster.processes.iter().filter(of_role) {
                signal(process, libc::SIGKILL);
            }
        }
        self.reap();
    }

    fn reap(&mut self) {
        self.handles.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }
}

/// `rookery demo start NAME`: starts a dead process of a demo again.
pub fn start_again(dir: &Path, name: &str) -> Result<ExitCode> {
    let file = dir.join(CLUSTER_FILE);
    let mut cluster = ClusterFile::read(&file)?;
    let names: Vec<String> = cluster.processes.iter().map(|process| process.name.clone()).collect();
    let process = cluster.processes.iter_mut().find(|process| process.name == name);
    let process = process.with_context(|| format!("no process {name}: one of {names:?}"))?;
    if let Some(pid) = find(process) {
        bail!("{name} runs already as pid {pid}");
    }
    process.pid = spawn(process)?.id();
    println!("{name} started as pid {}", process.pid);
    cluster.write(&file)?;
    Ok(ExitCode::SUCCESS)
}

fn spawn(process: &Process) -> Result<std::process::Child> {
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
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("open log")?)
        .stderr(log)
        // Why: Ctrl-C is for the demo, which then ends its processes in order.
        .process_group(0)
        .spawn()
        .with_context(|| format!("start {}", process.name))
}

/// The log lies beside the configuration.
fn log_path(process: &Process) -> PathBuf {
    let config = process.argv.last().map(PathBuf::from).unwrap_or_default();
    config.with_file_name("log")
}

fn last_words(process: &Process) -> String {
    let log = fs::read_to_string(log_path(process)).unwrap_or_default();
    log.lines().last().unwrap_or("it left no log").to_owned()
}

/// The pid of the live process with exactly this command line.
fn find(process: &Process) -> Option<u32> {
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

fn signal(process: &Process, signal: i32) {
    if let Some(pid) = find(process) {
        // SAFETY: kill(2) takes two numbers; the pid was just seen to be this process.
        unsafe { libc::kill(pid as i32, signal) };
    }
}
