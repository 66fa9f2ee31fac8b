//! Who ends a drill before its time: Ctrl-C, SIGTERM, or the end of the terminal. It is heard whatever the
//! drill does at that moment, and stays known. Who cannot wait for the end says so once more.

use std::io::{self, Write as _};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// What is told again so soon is the same. Why: timeout(1) tells its command and then its command's group.
const SAME_WITHIN: Duration = Duration::from_secs(1);
/// As a shell has it for what Ctrl-C ended.
const LEFT_EARLY: i32 = 130;

/// Whether the drill is to end.
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// From now on signals do not end the process. Must be called within a tokio runtime.
    pub fn listen() -> Result<Self> {
        let mut hangup = hangup()?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listen for Ctrl-C")?;
        let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        let (tell, told) = watch::channel(false);
        tokio::spawn(async move {
            tokio::select! {
                () = heard(hangup.as_mut()) => {}
                () = heard(Some(&mut interrupt)) => {}
                () = heard(Some(&mut terminate)) => {}
            }
            tell.send_replace(true);
            leave_when_told_again().await;
        });
        Ok(Self(told))
    }

    /// Returns when somebody wants the end.
    pub async fn wait(&self) {
        let mut told = self.0.clone();
        if told.wait_for(|told| *told).await.is_err() {
            // Why: only while everything is torn down.
            std::future::pending().await
        }
    }

    /// Does this, unless somebody wants the end first.
    pub async fn or<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            () = self.wait() => bail!("stopped; no verdict"),
            done = work => done,
        }
    }
}

/// What was made is being removed, and that takes long where nobody answers. Why not for SIGHUP: a terminal
/// that ends may tell more than once, and nobody is there to mean it.
async fn leave_when_told_again() {
    tokio::time::sleep(SAME_WITHIN).await;
    let again = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let (Ok(mut interrupt), Ok(mut terminate)) = again else { return };
    let words = "rookery: ends when what was made is removed; Ctrl-C once more leaves it behind";
    // Why the result is dropped: whoever reads nothing may end it all the same.
    drop(writeln!(io::stderr(), "{words}"));
    tokio::select! {
        () = heard(Some(&mut interrupt)) => {}
        () = heard(Some(&mut terminate)) => {}
    }
    std::process::exit(LEFT_EARLY);
}

/// The end of the terminal; `None` where nohup(1) keeps it from whoever runs. Must be called within a tokio
/// runtime. Whoever listens for it in another way takes that from all who ask here afterwards.
pub fn hangup() -> Result<Option<Signal>> {
    // Why a look before: who listens is no longer told what it inherited.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if ignores_hangup(&status) {
        return Ok(None);
    }
    signal(SignalKind::hangup()).context("listen for SIGHUP").map(Some)
}

/// Returns when this is told; where there is nothing to be told, never.
pub async fn heard(signal: Option<&mut Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// Who started it with nohup(1) wants it to go on without a terminal (proc(5): the lowest bit is SIGHUP).
fn ignores_hangup(status: &str) -> bool {
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_told_at_any_time_stays_told() {
        let (tell, told) = watch::channel(false);
        let stop = Stop(told);
        assert_eq!(stop.or(async { Ok(7) }).await.unwrap(), 7);
        tell.send_replace(true);
        drop(tell);
        for _ in 0..2 {
            let said = stop.or(async { Ok(7) }).await.unwrap_err().to_string();
            assert_eq!(said, "stopped; no verdict");
        }
    }

    #[tokio::test]
    async fn the_end_of_the_terminal_ends_the_drill_and_not_the_process() {
        let stop = Stop::listen().unwrap();
        if ignores_hangup(&std::fs::read_to_string("/proc/self/status").unwrap()) {
            return;
        }
        let pid = std::process::id().to_string();
        let told = std::process::Command::new("kill").args(["-HUP", &pid]).status().unwrap();
        assert!(told.success());
        stop.wait().await;
        assert!(stop.or(async { Ok(7) }).await.is_err());
    }

    #[test]
    fn a_drill_under_nohup_goes_on_without_a_terminal() {
        assert!(ignores_hangup("Name:\trookery\nSigIgn:\t0000000000001001\n"));
        assert!(!ignores_hangup("SigBlk:\t0000000000000001\nSigIgn:\t0000000000001000\n"));
        assert!(!ignores_hangup(""));
    }
}
