//! A demo cluster of real processes, ended when dropped.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::wait;

/// A debug build on a busy machine takes longer than the ten seconds a release build is held to.
const READY_DEADLINE: Duration = Duration::from_secs(90);
/// For a demo to end all of its processes.
const END_DEADLINE: Duration = Duration::from_secs(30);
/// Lines of each log that a failed test shows.
const LOG_LINES: usize = 40;
/// Ports one demo may use.
const PORTS: u16 = 100;

/// A running demo.
pub struct Demo {
    child: Option<Child>,
    dir: PathBuf,
    options: Vec<String>,
    env: Vec<(String, String)>,
    _keep: Option<tempfile::TempDir>,
}

/// The `rookery` binary of this build, built first if need be; or the one that `ROOKERY_BINARY` names,
/// so that a test can judge another build.
pub fn rookery() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(binary) = std::env::var_os("ROOKERY_BINARY") {
            return binary.into();
        }
        let test = std::env::current_exe().expect("a test knows its own path");
        let profile = test.ancestors().nth(2).expect("tests lie in target/PROFILE/deps");
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        build.args(["build", "--locked", "-q", "-p", "rookery"]);
        if profile.ends_with("release") {
            build.arg("--release");
        }
        let target = profile.parent().expect("a profile lies in the target directory");
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lies in the root");
        let built = build.env("CARGO_TARGET_DIR", target).current_dir(root).status();
        assert!(built.is_ok_and(|status| status.success()), "cargo build -p rookery failed");
        profile.join("rookery")
    })
}

impl Demo {
    /// Starts a demo in a temporary directory and waits until it is ready.
    pub fn start(options: &[&str]) -> Result<Self> {
        let keep = tempfile::Builder::new().prefix("rookery-test-").tempdir()?;
        let dir = keep.path().join("demo");
        let mut demo = Self::start_in(&dir, options)?;
        demo._keep = Some(keep);
        Ok(demo)
    }

    /// Starts a demo in this directory; the ports are chosen here.
    pub fn start_in(dir: &Path, options: &[&str]) -> Result<Self> {
        Self::start_with(dir, options, Vec::new())
    }

    /// The same, all processes with more in their environment.
    pub fn start_with(dir: &Path, options: &[&str], env: Vec<(String, String)>) -> Result<Self> {
        let base = free_ports()?.to_string();
        let mut all = vec!["--base-port".to_owned(), base];
        all.extend(options.iter().map(|option| (*option).to_owned()));
        let dir = dir.to_path_buf();
        let mut demo = Self { child: None, dir, options: all, env, _keep: None };
        demo.begin()?;
        Ok(demo)
    }

    /// Starts it again after [`Demo::end`], in the same directory.
    pub fn begin(&mut self) -> Result<()> {
        ensure!(self.child.is_none(), "the demo runs already");
        std::fs::create_dir_all(&self.dir)?;
        let out = self.dir.with_extension("out");
        let file = std::fs::File::create(&out)?;
        let child = Command::new(rookery())
            .arg("demo")
            .arg("--dir")
            .arg(&self.dir)
            .args(&self.options)
            .envs(self.env.clone())
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .context("start demo")?;
        self.child = Some(child);
        wait::until(READY_DEADLINE, "demo ready", || {
            let said = std::fs::read_to_string(&out)?;
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().ok()?) {
                // The loop would wait in vain for a process that is gone.
                panic!("the demo ended with {status}: {said}");
            }
            ensure!(said.contains("Ctrl-C ends everything"), "the demo says: {said}");
            Ok(())
        })
    }

    /// Ends all processes as Ctrl-C does.
    pub fn end(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        signal(child.id(), "TERM")?;
        let ended = wait::until(END_DEADLINE, "demo ended", || {
            child.try_wait()?.context("the demo still runs")
        });
        if ended.is_err() {
            child.kill()?;
        }
        ended.map(|_| ())
    }

    /// Ends the demo's own process, and none of the others, as `kill -9` does.
    pub fn kill(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// The demo's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// `cluster.json` as it is now.
    pub fn cluster(&self) -> Result<Value> {
        let text = std::fs::read_to_string(self.cluster_file())?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Where `cluster.json` lies.
    pub fn cluster_file(&self) -> PathBuf {
        self.dir.join("cluster.json")
    }

    /// One process of `cluster.json`.
    pub fn process(&self, name: &str) -> Result<Value> {
        let cluster = self.cluster()?;
        let all = cluster["processes"].as_array().context("no processes")?;
        let found = all.iter().find(|process| process["name"] == name);
        found.cloned().with_context(|| format!("no process {name}"))
    }

    /// `address:port` of a process's port.
    pub fn at(&self, name: &str, port: &str) -> Result<String> {
        let process = self.process(name)?;
        let number = process["ports"][port].as_u64().with_context(|| format!("no port {port}"))?;
        Ok(format!("{}:{number}", process["address"].as_str().unwrap_or("127.0.0.1")))
    }

    /// Kills a process with a signal (`KILL`, `TERM`, `STOP`, `CONT`).
    pub fn signal(&self, name: &str, with: &str) -> Result<()> {
        let pid = self.process(name)?["pid"].as_u64().context("no pid")?;
        signal(u32::try_from(pid)?, with)
    }

    /// `rookery demo start NAME`
    pub fn start_again(&self, name: &str) -> Result<()> {
        let dir = self.dir.to_string_lossy().into_owned();
        wait::until(Duration::from_secs(10), "process started again", || {
            let mut start = Command::new(rookery());
            start.args(["demo", "start", name, "--dir", &dir]).envs(self.env.clone());
            let done = start.output()?;
            ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            Ok(())
        })
    }

    /// Runs `rookery ctl --cluster FILE ...`.
    pub fn ctl(&self, arguments: &[&str]) -> Result<Output> {
        let mut ctl = Command::new(rookery());
        ctl.args(["ctl", "--cluster"]).arg(self.cluster_file()).args(arguments);
        ctl.stdin(Stdio::null()).output().context("run ctl")
    }

    /// As [`Demo::ctl`], with a line on standard input; must succeed.
    pub fn ctl_with_input(&self, arguments: &[&str], line: &str) -> Result<String> {
        use std::io::Write as _;
        let mut ctl = Command::new(rookery());
        ctl.args(["ctl", "--cluster"]).arg(self.cluster_file()).args(arguments);
        ctl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = ctl.spawn().context("run ctl")?;
        child.stdin.take().context("no input")?.write_all(format!("{line}\n").as_bytes())?;
        let done = child.wait_with_output()?;
        ensure!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    }

    /// Waits until every shard has a leader, with `whole` until every replica has everything.
    pub fn wait_healthy(&self, whole: bool) -> Result<()> {
        let arguments: &[&str] =
            if whole { &["cluster", "health", "--whole"] } else { &["cluster", "health"] };
        wait::until(Duration::from_secs(60), "cluster healthy", || {
            let done = self.ctl(arguments)?;
            let said = String::from_utf8_lossy(&done.stdout).into_owned();
            ensure!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stderr));
            Ok(())
        })
    }

    /// The node that leads most data shards now.
    pub fn busiest_leader(&self) -> Result<String> {
        let done = self.ctl(&["cluster", "status", "--json"])?;
        let status: Value = serde_json::from_slice(&done.stdout)?;
        let shards = status["shards"].as_array().context("no shards in the status")?;
        let mut led: Vec<(usize, String)> = Vec::new();
        for shard in shards.iter().filter(|shard| shard["shard"].as_u64() != Some(0)) {
            let Some(leader) = shard["leader"].as_str() else { continue };
            match led.iter_mut().find(|entry| entry.1 == leader) {
                Some(entry) => entry.0 += 1,
                None => led.push((1, leader.to_owned())),
            }
        }
        led.into_iter().max().map(|entry| entry.1).context("no shard has a leader")
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("end demo: {error:#}");
        }
        if std::thread::panicking() {
            for log in self.logs() {
                eprintln!("{log}");
            }
        }
    }
}

impl Demo {
    /// Prints the last lines of every process's log if this is an error.
    pub fn explain<T>(&self, result: Result<T>) -> Result<T> {
        if result.is_err() {
            self.logs().iter().for_each(|log| println!("{log}"));
        }
        result
    }

    /// The last lines of every process's log, for a failed test.
    fn logs(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(&self.dir) else { return Vec::new() };
        let logs = entries.flatten().filter_map(|entry| {
            let text = std::fs::read_to_string(entry.path().join("log")).ok()?;
            let lines: Vec<&str> = text.lines().collect();
            let tail = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
            Some(format!("--- {}\n{tail}", entry.path().display()))
        });
        logs.collect()
    }
}

/// Sends a signal to a process.
pub fn signal(pid: u32, with: &str) -> Result<()> {
    let sent = Command::new("kill").args([format!("-{with}"), pid.to_string()]).status();
    ensure!(sent.context("run kill")?.success(), "kill -{with} {pid} failed");
    Ok(())
}

/// The first of so many consecutive free ports that a demo of the usual size fits.
pub fn free_ports() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let own = (std::process::id() % 200) as u16;
    for _ in 0..200 {
        let k = (own + NEXT.fetch_add(1, Ordering::Relaxed)) % 200;
        let base = 12_000 + k * PORTS;
        let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if (base..base + PORTS).all(free) {
            return Ok(base);
        }
    }
    bail!("no {PORTS} consecutive ports are free")
}
