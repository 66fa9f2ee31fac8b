//! The judge watches a foreign IMAP server: a mail client's work in two mailboxes made for that, for a
//! bounded time, over a few connections.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use clap::Args;

use crate::args::Ports;
use crate::availability::availability;
use crate::check::check;
use crate::client::imap::Imap;
use crate::client::is_lost;
use crate::dice::Dice;
use crate::recorder::{Done, Recorder};
use crate::report::Spread;
use crate::run::{has_worked, last_looks};
use crate::say;
use crate::stop::Stop;
use crate::work::{Canary, Crew, Member, Pace, Site};

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

/// Works, and judges. Whatever comes of it, the mailboxes are removed.
pub(crate) fn run(args: &WatchArgs) -> Result<ExitCode> {
    let password = std::env::var(&args.password_env)
        .with_context(|| format!("read the password from ${}", args.password_env))?;
    let mut site = args.ports.site()?;
    ensure!(!site.imap.is_empty(), "name the server: --imaps HOST:PORT, or --imap");
    // Nothing else may be in them, and other mail is not touched.
    site.mailboxes = [1, 2].map(|n| format!("drill-{}-{n}", std::process::id()));
    (site.lmtp, site.pop3) = (Vec::new(), Vec::new());
    let recorder = Arc::new(Recorder::begin(args.history.as_deref())?);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(1).enable_all().build().context("start runtime")?;
    let stop = runtime.block_on(async { Stop::listen() })?;
    let canaries = [Canary { name: args.user.clone(), password }];
    let watch = Watch { site, canaries, recorder };
    let mut made = Vec::new();
    let worked = watch.work(args, &mut made, |seconds| {
        let told = async { tokio::time::timeout(seconds, stop.wait()).await.is_ok() };
        runtime.block_on(told)
    });
    let left = watch.remove(&made).err().map(|error| format!("{error:#}"));
    match (worked, left) {
        (Ok(members), None) => Ok(watch.tell(&members)),
        (Ok(members), Some(left)) => {
            let _ = watch.tell(&members);
            bail!(left)
        }
        (Err(error), None) => Err(error),
        (Err(error), Some(left)) => bail!("{error:#}; {left}"),
    }
}

struct Watch {
    site: Site,
    canaries: [Canary; 1],
    recorder: Arc<Recorder>,
}

impl Watch {
    /// Makes the mailboxes, uses them for as long as `wait` says, which tells whether somebody wants the end,
    /// and reads everything; who worked.
    fn work(
        &self,
        args: &WatchArgs,
        made: &mut Vec<String>,
        wait: impl FnOnce(Duration) -> bool,
    ) -> Result<Vec<Member>> {
        let mut imap = self.log_in().context("log in")?;
        for mailbox in &self.site.mailboxes {
            make(mailbox, made, |command| imap.ok(command).map(drop))?;
        }
        let dice = Dice::new(args.seed);
        let recorder = &self.recorder;
        let crew = Crew::start(&self.site, &self.canaries, recorder, Pace::Slowing, &dice)?;
        let members = crew.members.clone();
        let is_stopped = wait(Duration::from_secs(args.seconds));
        ensure!(crew.stop() == 0, "a client of the drill panicked");
        ensure!(!is_stopped, "stopped; no verdict");
        let looked = last_looks(&self.site, &self.canaries, &self.recorder);
        looked.context("read everything")?;
        Ok(members)
    }

    /// Each on its own, in a session of its own: that in which they were made was idle for as long as the
    /// work took, or broke.
    fn remove(&self, made: &[String]) -> Result<()> {
        if made.is_empty() {
            return Ok(());
        }
        let left = |names: &[String]| format!("left behind on the server: {}", names.join(", "));
        let mut imap = self.log_in().with_context(|| left(made))?;
        let (mut names, mut why) = (Vec::new(), None);
        for mailbox in made {
            if let Err(error) = imap.ok(&format!("DELETE \"{mailbox}\"")) {
                names.push(mailbox.clone());
                why = Some(error);
            }
        }
        why.map_or(Ok(()), |why| Err(why.context(left(&names))))
    }

    /// At the first address that lets it in.
    fn log_in(&self) -> Result<Imap> {
        let Canary { name, password } = &self.canaries[0];
        let mut last = anyhow!("no address");
        for endpoint in &self.site.imap {
            match Imap::open(endpoint, name, password) {
                Ok(imap) => return Ok(imap),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Judges and says what there is to say. Where a client got nothing done nothing was shown.
    fn tell(&self, members: &[Member]) -> ExitCode {
        let idle = idle(members, &self.recorder);
        let history = self.recorder.take_history();
        let violations = check(&history);
        let felt = availability(&history);
        let waits = Spread::of(felt.clients.values().map(|client| client.longest_us));
        let n: usize = felt.clients.values().map(|client| client.n_acknowledged).sum();
        say(&format!(
            "{n} operations acknowledged, {} connections lost, longest wait {} ms",
            felt.n_disconnects,
            waits.max_us / 1000
        ));
        violations.iter().for_each(|violation| say(&violation.to_string()));
        idle.iter().for_each(|words| say(words));
        say(&format!("{} broken promises", violations.len()));
        let is_good = violations.is_empty() && idle.is_empty();
        if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Makes one mailbox, and notes it if it may be there afterwards.
fn make(mailbox: &str, made: &mut Vec<String>, ok: impl FnOnce(&str) -> Result<()>) -> Result<()> {
    let done = ok(&format!("CREATE \"{mailbox}\""));
    // Why also without an answer: it may have been made all the same.
    if done.as_ref().err().is_none_or(is_lost) {
        made.push(mailbox.to_owned());
    }
    done
}

/// Clients that got nothing done of what they are there for, in words.
fn idle(members: &[Member], recorder: &Recorder) -> Vec<String> {
    let is_idle = |one: &&Member| !has_worked(one.role, Done::default(), recorder.done(one.id), 1);
    let words =
        |one: &Member| format!("client {} ({}) got nothing done", one.id, one.role.protocol());
    members.iter().filter(is_idle).map(words).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Operation, Reply, Verdict};
    use crate::work::Role;

    #[test]
    fn what_may_have_been_made_is_removed() {
        let mut made = Vec::new();
        make("a", &mut made, |command| {
            assert_eq!(command, "CREATE \"a\"");
            Ok(())
        })
        .unwrap();
        let refused = make("b", &mut made, |_| Err(anyhow!("CREATE: t2 NO there already")));
        assert!(refused.is_err());
        let broken = || std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert!(make("c", &mut made, |_| Err(broken().into())).is_err());
        assert_eq!(made, ["a", "c"]);
    }

    #[test]
    fn a_server_that_refuses_everything_does_not_pass() {
        let recorder = Recorder::begin(None).unwrap();
        let member = |id, role| Member { id, role, account: "anna".into() };
        let members = [member(0, Role::Sorter), member(1, Role::Reader)];
        let read = || Operation::Read { mailbox: "INBOX".into() };
        for id in [0, 1] {
            let verdict = Verdict::Acknowledged { reply: Reply::Done };
            recorder.event((id, "anna"), 1, read(), verdict);
        }
        assert_eq!(idle(&members, &recorder), ["client 0 (IMAP) got nothing done"]);
        assert_eq!(idle(&members, &Recorder::begin(None).unwrap()).len(), 2);
    }
}
