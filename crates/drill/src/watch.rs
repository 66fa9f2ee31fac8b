//! The judge watches a foreign IMAP server: a mail client's work in two mailboxes made for that, for a
//! bounded time, over a few connections.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::args::Ports;
use crate::availability::availability;
use crate::check::check;
use crate::client::imap::Imap;
use crate::dice::Dice;
use crate::recorder::Recorder;
use crate::report::Spread;
use crate::run::last_looks;
use crate::work::{Canary, Crew};

/// Limit: nobody means to use a server that is not theirs for longer.
const SECONDS_MAX: u64 = 3600;

/// `rookery drill watch`
#[derive(Args)]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    ports: Ports,
    /// Login of an account made for this
    #[arg(long)]
    user: String,
    /// Environment variable with its password
    #[arg(long, default_value = "DRILL_PASSWORD")]
    password_env: String,
    /// How long, in seconds
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=SECONDS_MAX))]
    seconds: u64,
    /// The same number makes the same choices
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Keep the history here
    #[arg(long)]
    history: Option<std::path::PathBuf>,
}

/// Works, and judges.
pub(crate) fn run(args: &WatchArgs) -> Result<ExitCode> {
    let password = std::env::var(&args.password_env)
        .with_context(|| format!("read the password from ${}", args.password_env))?;
    let mut site = args.ports.site()?;
    ensure!(!site.imap.is_empty(), "name the server: --imaps HOST:PORT, or --imap");
    // Nothing else may be in them, and other mail is not touched.
    site.mailboxes = [1, 2].map(|n| format!("drill-{}-{n}", std::process::id()));
    (site.lmtp, site.pop3) = (Vec::new(), Vec::new());
    let canary = Canary { name: args.user.clone(), password };
    let recorder = Arc::new(Recorder::begin(args.history.as_deref())?);
    let mut imap = Imap::open(&site.imap[0], &canary.name, &canary.password).context("log in")?;
    for mailbox in &site.mailboxes {
        imap.ok(&format!("CREATE \"{mailbox}\""))?;
    }
    let canaries = [canary];
    let crew = Crew::start(&site, &canaries, &recorder, &Dice::new(args.seed))?;
    std::thread::sleep(Duration::from_secs(args.seconds));
    ensure!(crew.stop() == 0, "a client of the drill panicked");
    let looked = last_looks(&site, &canaries, &recorder);
    // Why anew: the first session was idle for as long as the work took.
    let mut imap = Imap::open(&site.imap[0], &canaries[0].name, &canaries[0].password)?;
    for mailbox in &site.mailboxes {
        imap.ok(&format!("DELETE \"{mailbox}\""))?;
    }
    looked.context("read everything")?;
    let history = recorder.history();
    let violations = check(&history);
    let felt = availability(&history);
    let waits = Spread::of(felt.clients.values().map(|client| client.longest_us));
    let n: usize = felt.clients.values().map(|client| client.n_acknowledged).sum();
    println!(
        "{n} operations acknowledged, {} connections lost, longest wait {} ms",
        felt.n_disconnects,
        waits.max_us / 1000
    );
    violations.iter().for_each(|violation| println!("{violation}"));
    println!("{} broken promises", violations.len());
    Ok(if violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
