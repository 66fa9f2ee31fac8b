//! One frontend process beside a demo, or all alone.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::demo::rookery;
use crate::wait;

/// A debug build on a busy machine is slow to start.
const READY_DEADLINE: Duration = Duration::from_secs(30);

/// A running frontend; killed when dropped.
pub struct FrontendProcess {
    child: Child,
    log: PathBuf,
}

impl FrontendProcess {
    /// Starts one with this configuration, which lies in `dir` afterwards, and waits until it serves.
    pub fn start(dir: &Path, config: &toml::Table) -> Result<Self> {
        let file = dir.join("frontend.toml");
        std::fs::write(&file, config.to_string())?;
        let log = dir.join("frontend.log");
        let out = std::fs::File::create(&log)?;
        let mut frontend = Command::new(rookery());
        frontend.args(["frontend", "--config"]).arg(&file).stdin(Stdio::null());
        let child = frontend.stdout(Stdio::null()).stderr(out).spawn().context("start frontend")?;
        let mut process = Self { child, log };
        wait::until(READY_DEADLINE, "frontend serves", || {
            let said = process.said();
            if let Some(status) = process.child.try_wait()? {
                // The loop would wait in vain for a process that is gone.
                panic!("the frontend ended with {status}: {said}");
            }
            ensure!(said.contains("frontend serves"), "the frontend says: {said}");
            Ok(())
        })?;
        Ok(process)
    }

    /// Its log so far.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Resident memory in octets.
    pub fn resident_bytes(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
        let kib = line.split_whitespace().nth(1).context("no number")?.parse::<u64>()?;
        Ok(kib * 1024)
    }

    /// Ends it in order and waits until it is gone.
    pub fn end(mut self) -> Result<()> {
        let told = Command::new("kill").arg(self.child.id().to_string()).status()?;
        ensure!(told.success(), "kill failed");
        let ended = wait::until(Duration::from_secs(20), "frontend ended", || {
            self.child.try_wait()?.context("it still runs")
        })?;
        ensure!(ended.success(), "the frontend ended with {ended}: {}", self.said());
        Ok(())
    }
}

impl Drop for FrontendProcess {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.said());
        }
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
