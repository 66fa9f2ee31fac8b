//! `rookery demo`: real processes on this machine, with certificates, accounts and mail.

pub mod alive;
mod children;
mod deliver;
mod layout;
mod sample;
mod setup;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use admin::cluster_file::ClusterFile;
use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use tokio::signal::unix::{Signal, SignalKind, signal};

use children::Children;
use layout::Layout;

/// How often the demo looks whether a child died or came back.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// Run a whole cluster on this machine.
#[derive(Args)]
pub struct DemoArgs {
    #[command(subcommand)]
    verb: Option<DemoVerb>,
    #[command(flatten)]
    options: DemoOptions,
    /// Drill the cluster as soon as it is ready, and end (see `rookery drill`)
    #[arg(long)]
    drill: bool,
    #[command(flatten)]
    drill_options: drill::Options,
}

#[derive(Subcommand)]
enum DemoVerb {
    /// Start a process of a running demo again that was killed
    Start {
        /// Its name, as the demo's table has it
        name: String,
        /// The demo's directory
        #[arg(long)]
        dir: PathBuf,
    },
    /// Deliver a file by LMTP
    Deliver {
        /// A message
        file: PathBuf,
        /// Recipients
        #[arg(long, required = true)]
        to: Vec<String>,
        /// The demo's directory
        #[arg(long)]
        dir: PathBuf,
    },
}

/// What the demo consists of.
#[derive(Args, Clone)]
pub struct DemoOptions {
    /// Keep everything here; a second start brings the same cluster back
    #[arg(long)]
    dir: Option<PathBuf>,
    /// First port; each process takes the next ten
    #[arg(long, default_value_t = 14000)]
    base_port: u16,
    /// Storage nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    nodes: u16,
    /// Frontends
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=9))]
    frontends: u16,
    /// Disks (directories) of each node
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=8))]
    disks: u16,
    /// Data shards
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    shards: u16,
    /// Accounts u0001@example.test, u0002@example.test, ...
    #[arg(long, default_value_t = 4)]
    accounts: u32,
    /// Password of all accounts
    #[arg(long, default_value = "secret")]
    password: String,
    /// Begin with empty mailboxes
    #[arg(long)]
    no_sample_mail: bool,
    /// Give each process its own address 127.0.1.k, which it also binds for outgoing connections
    #[arg(long)]
    spread_addresses: bool,
    /// Keep the nodes' disks here, as DIR/n1/disk1, instead of beside their configuration; each may be a
    /// file system of its own
    #[arg(long, value_name = "DIR")]
    disks_in: Option<PathBuf>,
}

/// Runs the demo or one of its verbs.
pub fn run(args: DemoArgs) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("start runtime")?;
    match args.verb {
        None => {
            let drill = args.drill.then_some(&args.drill_options);
            runtime.block_on(demo(&args.options, drill))
        }
        Some(DemoVerb::Start { name, dir }) => children::start_again(&dir, &name),
        Some(DemoVerb::Deliver { file, to, dir }) => {
            let message =
                std::fs::read(&file).with_context(|| format!("read {}", file.display()))?;
            runtime.block_on(deliver_to_demo(&dir, &message, &to))
        }
    }
}

/// `rookery drill --demo`: a demo of the usual size, drilled and ended.
pub fn drill(options: drill::Options) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let demo_options = DemoOptions {
        no_sample_mail: true,
        base_port: layout::free_ports()?,
        accounts: 0,
        ..DemoOptions::usual()
    };
    runtime.context("start runtime")?.block_on(demo(&demo_options, Some(&options)))
}

impl DemoOptions {
    /// What `rookery demo` does when nothing is said.
    fn usual() -> Self {
        #[derive(clap::Parser)]
        struct Nothing {
            #[command(flatten)]
            options: DemoOptions,
        }
        <Nothing as clap::Parser>::parse_from(["demo"]).options
    }
}

async fn demo(options: &DemoOptions, drill: Option<&drill::Options>) -> Result<ExitCode> {
    let started = std::time::Instant::now();
    let temporary = match &options.dir {
        Some(_) => None,
        None => Some(tempfile::Builder::new().prefix("rookery-demo-").tempdir()?),
    };
    let dir = match (&options.dir, &temporary) {
        (Some(dir), _) => dir.clone(),
        (None, Some(dir)) => dir.path().to_path_buf(),
        (None, None) => unreachable!("one of the two was made above"),
    };
    // Why before all: half a directory could not be used again, and who is told to end while processes start
    // ends them too.
    let mut stop = Stop::listen()?;
    let layout = Layout::prepare(&dir, options)?;
    if !layout.ignored.is_empty() {
        let (dir, ignored) = (layout.dir.display(), layout.ignored.join(", "));
        say(&format!("{dir} holds a demo, which stays what it is: {ignored} came too late"));
    }
    let mut children =
        Children::start(layout.cluster.clone(), layout.file.clone(), &layout.program)?;
    let ready = tokio::select! {
        ready = setup::make_ready(&layout, options, &mut children) => Some(ready),
        () = stop.wait() => None,
    };
    let mut drilled = None;
    let outcome = match ready {
        Some(Ok(())) => {
            if let Some(drill) = drill {
                drilled = Some(drill::on_cluster_file(&layout.file, drill).await);
                Ok(())
            } else {
                watch(&layout, &mut children, &mut stop, started.elapsed()).await
            }
        }
        Some(Err(error)) => Err(error.context(format!("start demo in {}", dir.display()))),
        None => Ok(()),
    };
    say("ending all processes");
    // Why before the outcome is looked at: no child outlives the demo, whatever befell it.
    children.end_all().await;
    outcome?;
    match drilled {
        Some(done) => done,
        // Why a failure: who asked for a drill takes an end without words for a drill that went well.
        None if drill.is_some() => bail!("stopped; no verdict"),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// Tells what runs where, and keeps that file true, until somebody wants the end.
async fn watch(
    layout: &Layout,
    children: &mut Children,
    stop: &mut Stop,
    took: Duration,
) -> Result<()> {
    if let Err(error) = print_welcome(layout, children.cluster(), took) {
        // Why on: whoever reads no output has the file.
        tracing::warn!(%error, "standard output is closed");
    }
    while tokio::time::timeout(WATCH_INTERVAL, stop.wait()).await.is_err() {
        children.refresh()?;
    }
    Ok(())
}

/// A line for whoever reads standard output, if anybody does.
fn say(line: &str) {
    // Why the result is dropped: the demo goes on, or to its end, without a reader.
    drop(writeln!(std::io::stdout(), "{line}"));
}

async fn deliver_to_demo(dir: &Path, message: &[u8], to: &[String]) -> Result<ExitCode> {
    let cluster = ClusterFile::read(&dir.join(layout::CLUSTER_FILE))?;
    let mut last = anyhow::anyhow!("no frontend in the demo");
    for address in cluster.processes.iter().filter_map(|process| process.at("lmtp")) {
        match deliver::deliver(&address, message, to).await {
            Ok(replies) => {
                let all = replies.iter().all(|reply| reply.starts_with('2'));
                replies.iter().zip(to).for_each(|(reply, to)| println!("{to}: {reply}"));
                return Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE });
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn print_welcome(layout: &Layout, cluster: &ClusterFile, took: Duration) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", layout::table(cluster))?;
    let dir = layout.dir.display();
    let frontend = cluster.processes.iter().find(|process| process.role == "frontend");
    if let (Some(frontend), Some(account)) = (frontend, cluster.accounts.first()) {
        let ca = cluster.ca.display();
        let imaps = frontend.at("imaps").unwrap_or_default();
        let (name, password) = (&account.name, &account.password);
        let n_accounts = cluster.accounts.len();
        writeln!(out, "ready after {:.1} s; {n_accounts} accounts", took.as_secs_f32())?;
        writeln!(out, "\nread a message:")?;
        writeln!(out, "  curl --cacert {ca} -u '{name}:{password}' 'imaps://{imaps}/INBOX;UID=1'")?;
        writeln!(out, "deliver a file:")?;
        writeln!(out, "  {} demo deliver FILE --to {name} --dir {dir}", layout.program)?;
        writeln!(out, "kill a node, and start it again:")?;
        let node = &cluster.processes[0];
        let (program, name) = (&layout.program, &node.name);
        writeln!(out, "  kill -9 {}; {program} demo start {name} --dir {dir}", node.pid)?;
    }
    writeln!(out, "\nCtrl-C ends everything.")?;
    out.flush().context("write to terminal")
}

/// SIGINT, SIGTERM, and the end of the terminal, except under nohup(1).
struct Stop {
    hangup: Option<Signal>,
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn listen() -> Result<Self> {
        Ok(Self {
            hangup: drill::hangup()?,
            interrupt: signal(SignalKind::interrupt()).context("listen for Ctrl-C")?,
            terminate: signal(SignalKind::terminate()).context("listen for SIGTERM")?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            () = drill::heard(self.hangup.as_mut()) => {}
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
