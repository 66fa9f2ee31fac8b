//! The demo's processes: starting, watching, ending.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use admin::cluster_file::{ClusterFile, Process};
use admin::process::{find, last_words, signal, spawn};
use anyhow::{Context as _, Result, bail};

use super::alive::{Alive, is_running};
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
    /// Held until they have ended.
    _alive: Alive,
}

impl Children {
    /// Starts every process, as this program.
    pub fn start(mut cluster: ClusterFile, file: PathBuf, program: &str) -> Result<Self> {
        for process in &cluster.processes {
            if let Some(pid) = find(process) {
                bail!("{} runs already as pid {pid}: end that demo first", process.name);
            }
        }
        let _alive = Alive::begin(file.parent().context("find the demo's directory")?)?;
        // Why: the one that made the directory may be another build, or be gone.
        for first in cluster.processes.iter_mut().filter_map(|process| process.argv.first_mut()) {
            program.clone_into(first);
        }
        let mut children = Self { cluster, file, handles: Vec::new(), _alive };
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
    if !is_running(dir)? {
        // Why: it would end as soon as it began.
        let dir = dir.display();
        bail!("no demo runs in {dir}: `rookery demo --dir {dir}` starts it with all its processes");
    }
    process.pid = spawn(process)?.id();
    println!("{name} started as pid {}", process.pid);
    cluster.write(&file)?;
    Ok(ExitCode::SUCCESS)
}
