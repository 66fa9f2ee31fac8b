//! Waiting for what the controller does, with a line for each replica that is being made or waits.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, bail};
use api::admin::{Phase, Replacement};
use tokio::time::Instant;

use crate::cluster::{self, ClusterStatus};
use crate::show::say;
use crate::target::Target;

/// How often the cluster is asked.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often progress is printed.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// What cannot be done for so long will not be done without somebody's help.
const STUCK_AFTER: Duration = Duration::from_secs(10);
/// How long the cluster may be out of reach meanwhile.
pub(crate) const AWAY_MAX: Duration = Duration::from_secs(30);

/// What is left to wait for.
pub(crate) enum Left {
    /// Nothing.
    Done,
    /// This, in words.
    Still(String),
}

/// Looks until `left` says that nothing is left. Gives up when nothing moves and the cluster says why.
pub(crate) async fn until(
    target: &Target,
    left: impl FnMut(&ClusterStatus) -> Result<Left>,
) -> Result<()> {
    look(target, left, Some(STUCK_AFTER)).await
}

/// The same for what goes on whatever the cluster waits for.
pub(crate) async fn until_at_last(
    target: &Target,
    left: impl FnMut(&ClusterStatus) -> Result<Left>,
) -> Result<()> {
    look(target, left, None).await
}

async fn look(
    target: &Target,
    mut left: impl FnMut(&ClusterStatus) -> Result<Left>,
    stuck_after: Option<Duration>,
) -> Result<()> {
    let mut told: Option<Instant> = None;
    let mut stuck: Option<Instant> = None;
    let mut waiting = Vec::new();
    let mut reached = Instant::now();
    loop {
        match cluster::status(target).await {
            Ok(status) => {
                reached = Instant::now();
                let Left::Still(text) = left(&status)? else { return Ok(()) };
                if told.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
                    told = Some(Instant::now());
                    say(&text);
                    for one in status.replacements() {
                        say(format_args!("  {}", line(one)));
                    }
                    if waiting != status.waiting() {
                        waiting = status.waiting().to_vec();
                        waiting.iter().for_each(|one| say(format_args!("  waits: {one}")));
                    }
                }
                let waits = status.replacements().is_empty() && !status.waiting().is_empty();
                let since = stuck.get_or_insert_with(Instant::now);
                if !waits {
                    stuck = None;
                } else if stuck_after.is_some_and(|most| since.elapsed() >= most) {
                    bail!("{text}; it waits:\n  {}", status.waiting().join("\n  "));
                }
            }
            Err(error) if reached.elapsed() > AWAY_MAX => return Err(error),
            Err(_) => {}
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// How far one replica is.
pub(crate) fn line(one: &Replacement) -> String {
    let Replacement { shard, node, .. } = one;
    let percent = (one.done * 100).checked_div(one.total).unwrap_or(0);
    let mib = |bytes: u64| bytes >> 20;
    let what = match one.phase {
        Phase::Placed => "placed, not running yet".to_owned(),
        Phase::Rows => format!("rows {percent} % ({} MiB so far)", mib(one.received_bytes)),
        Phase::Bodies => {
            format!("bodies {percent} % ({} of {} MiB)", mib(one.done), mib(one.total))
        }
        Phase::Whole => "whole, begins to vote".to_owned(),
    };
    let instead = one.replaces.map_or(String::new(), |old| format!(" for {old}"));
    let eta = one.eta_ms.map_or(String::new(), |ms| format!(", {} s to go", ms.div_ceil(1000)));
    format!("shard {shard}: replica {}{instead} on {node}: {what}{eta}", one.replica_id)
}

/// Counts what there is by name.
pub(crate) fn count<'a>(names: impl Iterator<Item = &'a str>) -> BTreeMap<&'a str, usize> {
    let mut counts = BTreeMap::new();
    names.for_each(|name| *counts.entry(name).or_default() += 1);
    counts
}
