//! The failover drill: clients that keep using a mail store while it is hurt, and the judge of what
//! they saw. Enter at [`run`], or for the judge alone at [`check`]: it reads a [`History`] and names
//! every broken promise.

mod args;
mod availability;
mod check;
pub mod client;
mod cluster;
mod dice;
mod history;
mod keeper;
mod load;
mod look;
mod message;
mod progress;
mod recorder;
mod report;
mod run;
mod scenario;
mod stop;
mod tls;
mod watch;
mod work;

use std::fs;
use std::io::{self, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use admin::cluster_file::ClusterFile;
use anyhow::{Context as _, Result, ensure};

use args::Verb;
use check::unread;
use keeper::Keeper;
use report::Report;
use run::Ground;
use stop::Stop;

pub use args::{Drill, Options};
pub use availability::{Availability, ClientAvailability, availability};
pub use check::{Promise, Violation, check};
pub use history::{
    Copies, Event, Fault, FlagChange, History, Operation, Placed, ReadHistoryError, Record,
    ReplicaState, Reply, Target, Verdict, View, ViewedMessage,
};
pub use load::{Judged, Load};
pub use scenario::Scenario;
pub use stop::{hangup, heard};

/// `rookery drill`, except with `--demo`: who has a demo calls [`on_cluster_file`].
pub fn run(drill: Drill) -> Result<ExitCode> {
    match &drill.verb {
        Some(Verb::Check { history }) => return check_again(history),
        Some(Verb::Watch(args)) => return watch::run(args),
        None => {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("start runtime")?;
    let done = runtime.block_on(async {
        match drill.ground.cluster_file() {
            Some(file) => on_file(file, &drill.ground.domain, &drill.options).await,
            None => {
                let ground = drill.ground.ground(&drill.options)?;
                on_ground(&ground, &drill.options, None).await
            }
        }
    });
    // Why: clients of a drill that was stopped may still wait for a server that says nothing.
    runtime.shutdown_background();
    done
}

/// Drills the cluster of a `cluster.json`; nodes of it that die are started again.
pub async fn on_cluster_file(file: &Path, options: &Options) -> Result<ExitCode> {
    on_file(file, args::CANARY_DOMAIN, options).await
}

async fn on_file(file: &Path, domain: &str, options: &Options) -> Result<ExitCode> {
    let ground = args::of_file(&ClusterFile::read(file)?, domain)?;
    on_ground(&ground, options, Some(file)).await
}

/// Drills; nodes of this cluster file that die are started again.
async fn on_ground(ground: &Ground, options: &Options, kept: Option<&Path>) -> Result<ExitCode> {
    let seed = options.random_seed();
    let (json, html) = (options.json.as_deref(), options.html.as_deref());
    begin_files(seed, json, html)?;
    let stop = Stop::listen()?;
    // Why before all else: whoever waits for a cluster that is not there waits for ever, and nodes of a demo
    // that has ended are not to be started.
    stop.or(ground.cluster.reach()).await.context("drill")?;
    let keeper = kept.map(Keeper::start).transpose()?;
    let report = run::run(ground, options, seed, &stop).await.context("drill");
    let told = report.and_then(|report| tell(&report, json, html));
    drop(keeper);
    told
}

/// Makes sure that reports can be written. What a drill before this one wrote is not of this one, which may
/// be killed before it has a report.
fn begin_files(seed: u64, json: Option<&Path>, html: Option<&Path>) -> Result<()> {
    try_files(&[json, html])?;
    // Why only those: what was written elsewhere, as into a pipe, cannot be replaced.
    let is_file = |path: &&Path| path.is_file();
    write_files(&Report::unfinished(seed), json.filter(is_file), html.filter(is_file))
}

/// Makes sure that reports can be written, before hours are spent on them.
fn try_files(paths: &[Option<&Path>]) -> Result<()> {
    for path in paths.iter().flatten() {
        let opened = fs::OpenOptions::new().create(true).append(true).open(path);
        opened.with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

/// Prints the report, writes it, and makes the verdict the exit status.
fn tell(report: &Report, json: Option<&Path>, html: Option<&Path>) -> Result<ExitCode> {
    say(&format!("\n{}\n\nseed {}: {}", report.table(), report.seed, report.verdict()));
    write_files(report, json, html)?;
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A line for whoever reads standard output.
fn say(line: &str) {
    // Why the result is dropped: who reads no more of it still gets the files and the exit status.
    let _ = writeln!(io::stdout(), "{line}");
}

fn write_files(report: &Report, json: Option<&Path>, html: Option<&Path>) -> Result<()> {
    if let Some(path) = json {
        fs::write(path, report.to_json()?).with_context(|| format!("write {}", path.display()))?;
    }
    if let Some(path) = html {
        let page = report::page(report);
        fs::write(path, page).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

fn check_again(path: &Path) -> Result<ExitCode> {
    let mut files: Vec<PathBuf> = match path.is_dir() {
        false => vec![path.to_owned()],
        true => {
            let entries = fs::read_dir(path).with_context(|| format!("read {}", path.display()))?;
            let found = entries.flatten().map(|entry| entry.path());
            found.filter(|path| path.extension().is_some_and(|end| end == "jsonl")).collect()
        }
    };
    files.sort();
    ensure!(!files.is_empty(), "{} holds no history (*.jsonl)", path.display());
    let mut n_broken = 0;
    for file in files {
        let open = fs::File::open(&file).with_context(|| format!("open {}", file.display()))?;
        let history = History::read(BufReader::new(open))
            .with_context(|| format!("read {}", file.display()))?;
        let violations = check(&history);
        let n_events = history.events().count();
        let (name, n) = (file.display(), violations.len());
        say(&format!("{name}: {n_events} operations, {n} broken promises"));
        violations.iter().for_each(|violation| say(&format!("  {violation}")));
        n_broken += violations.len();
        // Why a failure: a history that was broken off shows no loss, since nobody looked for one.
        for account in unread(&history) {
            say(&format!("  nobody looked into {account} in the end: what it lost is not known"));
            n_broken += 1;
        }
        ensure!(n_events > 0, "{}: nothing was done in it", file.display());
    }
    Ok(if n_broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::*;
    use report::ScenarioReport;

    /// A delivery that was acknowledged, and what INBOX holds in the end.
    fn history(in_the_end: &[&str]) -> History {
        let (account, token, digest) = ("anna".to_owned(), "t1".to_owned(), "of t1".to_owned());
        let deliver = Operation::Deliver {
            mailbox: "INBOX".into(),
            token,
            digest: digest.clone(),
            flags: Default::default(),
        };
        let verdict = Verdict::Acknowledged { reply: Reply::Done };
        let (client, start_us, end_us) = (1, 1, 2);
        let event = Event {
            client,
            account: account.clone(),
            start_us,
            end_us,
            operation: deliver,
            verdict,
        };
        let message = |token: &&str| ViewedMessage {
            uid: 1,
            token: (*token).to_owned(),
            digest: Some(digest.clone()),
            flags: None,
            modseq: None,
        };
        let messages = in_the_end.iter().map(message).collect();
        let view = View { uid_validity: 9, complete: true, messages, ..View::default() };
        let last = Record::Final { account, mailbox: "INBOX".into(), view };
        History { records: vec![Record::Event(event), last] }
    }

    fn report(history: &History) -> Report {
        let mut one = ScenarioReport::of(Scenario::LeaderCrash, 1, history, &[]);
        one.judged(check(history), unread(history));
        let mut report = Report::new(7, PathBuf::new());
        report.scenarios.push(one);
        report
    }

    #[test]
    fn a_broken_promise_fails_the_drill_and_is_named_everywhere() {
        let dir = tempfile::tempdir().expect("a directory");
        let (json, html) = (dir.path().join("json"), dir.path().join("html"));
        let read = |path: &Path| fs::read_to_string(path).expect("it was written");
        for (in_the_end, wanted) in [(&["t1"][..], ExitCode::SUCCESS), (&[], ExitCode::FAILURE)] {
            let report = report(&history(in_the_end));
            let told = tell(&report, Some(&json), Some(&html)).expect("it can be written");
            assert_eq!(told, wanted, "{}", report.table());
            let value: serde_json::Value = serde_json::from_str(&read(&json)).expect("JSON");
            let is_kept = wanted == ExitCode::SUCCESS;
            assert_eq!(value["passed"], is_kept);
            assert_eq!(read(&html).contains("<b>Passed.</b>"), is_kept);
            assert_eq!(report.scenarios[0].line().starts_with("pass"), is_kept);
            for words in [report.table(), read(&html), value["scenarios"][0].to_string()] {
                let names = words.contains("NothingLost") || words.contains("nothing_lost");
                assert_eq!(names && words.contains("t1"), !is_kept, "{words}");
            }
        }
    }

    #[test]
    fn a_report_that_cannot_be_written_is_said_before_the_drill() {
        let dir = tempfile::tempdir().expect("a directory");
        let (there, nowhere) = (dir.path().join("json"), dir.path().join("none/html"));
        fs::write(&there, "of the last drill").expect("it can be written");
        let paths = [Some(there.as_path()), None, Some(nowhere.as_path())];
        let said = try_files(&paths).expect_err("no directory");
        assert!(said.to_string().starts_with("write "), "{said}");
        let kept = fs::read_to_string(&there).expect("it was written");
        assert_eq!(kept, "of the last drill");
    }

    #[test]
    fn a_drill_that_ends_without_a_report_leaves_none_that_passed() {
        let dir = tempfile::tempdir().expect("a directory");
        let (json, html) = (dir.path().join("json"), dir.path().join("html"));
        let report = report(&history(&["t1"]));
        tell(&report, Some(&json), Some(&html)).expect("it can be written");
        begin_files(8, Some(&json), Some(&html)).expect("it can be written");
        let read = |path: &Path| fs::read_to_string(path).expect("it was written");
        let value: serde_json::Value = serde_json::from_str(&read(&json)).expect("JSON");
        assert_eq!(value["passed"], false);
        assert_eq!(value["seed"], 8);
        assert!(read(&html).contains("Not finished") && !read(&html).contains("Passed."));
    }

    #[test]
    fn a_history_that_was_broken_off_does_not_pass() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("it.jsonl");
        let checked = |history: &History| {
            history.write(fs::File::create(&file).expect("a file")).expect("it can be written");
            check_again(&file)
        };
        let mut whole = history(&["t1"]);
        assert_eq!(checked(&whole).expect("it can be judged"), ExitCode::SUCCESS);
        whole.records.pop();
        assert_eq!(checked(&whole).expect("it can be judged"), ExitCode::FAILURE);
        // INBOX was looked into, Archive was not.
        let mut half = history(&["t1"]);
        let Some(Record::Event(event)) = half.records.first().cloned() else { unreachable!() };
        let operation = Operation::Read { mailbox: "Archive".into() };
        half.records.push(Record::Event(Event { operation, ..event }));
        assert_eq!(checked(&half).expect("it can be judged"), ExitCode::FAILURE);
        let said = checked(&History::default()).expect_err("nothing was done in it").to_string();
        assert!(said.ends_with("nothing was done in it"), "{said}");
    }
}
