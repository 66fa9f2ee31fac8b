//! What came of a drill: for the terminal, as JSON, and as a page for people who were not there.

mod html;
mod plot;
mod timeline;

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde::Serialize;

use crate::availability::availability;
use crate::check::{Promise, Violation, news};
use crate::history::{Fault, History, Record};
use crate::scenario::Scenario;
use crate::work::{Member, Role};
use timeline::Timeline;

pub(crate) use html::page;

/// A whole drill.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The same number makes the same choices.
    pub seed: u64,
    /// Version of this program.
    pub version: &'static str,
    /// Where the histories are, or were if the drill passed.
    pub histories: PathBuf,
    /// Each scenario of each round.
    pub scenarios: Vec<ScenarioReport>,
    /// Where and why it ended before its time.
    pub broken_off: Option<String>,
}

/// One scenario, once.
#[derive(Clone, Debug, Serialize)]
pub struct ScenarioReport {
    /// Which.
    pub scenario: Scenario,
    /// Counted from 1.
    pub round: u32,
    /// Operations that were acknowledged.
    pub n_acknowledged: usize,
    /// Operations that were refused in words.
    pub n_refused: usize,
    /// Operations whose outcome clients do not know.
    pub n_unknown: usize,
    /// Connections lost.
    pub n_disconnects: usize,
    /// The longest wait of each client.
    pub unavailable: Spread,
    /// The longest wait of an IDLE for news that was there.
    pub news_us: u64,
    /// From the fault until every copy was where it belongs.
    pub redundancy_ms: Option<u64>,
    /// Copies of chunks that replicas read and verified in the end.
    pub n_copies: usize,
    /// When the fault began.
    pub fault_us: u64,
    /// What was done to whom.
    pub faults: Vec<Fault>,
    /// Acknowledged changes that are not there.
    pub n_lost: usize,
    /// Every account was read in the end: nothing more is lost than `n_lost` says.
    pub is_read: bool,
    /// Broken promises.
    pub violations: Vec<Violation>,
    /// Everything else that must not be.
    pub trouble: Vec<String>,
    /// Each client.
    pub clients: Vec<ClientReport>,
    /// For the plot.
    pub timeline: Timeline,
    /// What the clients did and saw.
    pub history: PathBuf,
}

/// One client.
#[derive(Clone, Debug, Serialize)]
pub struct ClientReport {
    /// In the history.
    pub id: u32,
    /// What it does.
    pub(crate) role: Role,
    /// In whose account.
    pub account: String,
    /// Operations that were acknowledged.
    pub n_acknowledged: usize,
    /// Its longest wait.
    pub longest_us: u64,
    /// When that began.
    pub longest_from_us: u64,
    /// Connections it lost.
    pub n_disconnects: usize,
}

/// How something is spread over those who felt it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Spread {
    /// Half of them had less, or the same.
    pub p50_us: u64,
    /// 99 of 100.
    pub p99_us: u64,
    /// All of them.
    pub max_us: u64,
}

impl Spread {
    /// Of these values, in any order; nearest rank.
    pub fn of(values: impl Iterator<Item = u64>) -> Self {
        let mut values: Vec<u64> = values.collect();
        values.sort_unstable();
        let rank = |percent: usize| {
            let at = (values.len() * percent).div_ceil(100).max(1) - 1;
            values.get(at).copied().unwrap_or(0)
        };
        Self { p50_us: rank(50), p99_us: rank(99), max_us: rank(100) }
    }
}

impl ScenarioReport {
    /// From what the clients saw; what became of the cluster is added by who knows it.
    pub(crate) fn of(
        scenario: Scenario,
        round: u32,
        history: &History,
        members: &[Member],
    ) -> Self {
        let felt = availability(history);
        let clients = members.iter().map(|member| {
            let felt = felt.clients.get(&member.id).cloned().unwrap_or_default();
            ClientReport {
                id: member.id,
                role: member.role,
                account: member.account.clone(),
                n_acknowledged: felt.n_acknowledged,
                longest_us: felt.longest_us,
                longest_from_us: felt.longest_from_us,
                n_disconnects: felt.n_disconnects,
            }
        });
        let faults = history.records.iter().filter_map(|record| match record {
            Record::Fault(fault) => Some(fault.clone()),
            _ => None,
        });
        Self {
            scenario,
            round,
            n_acknowledged: felt.clients.values().map(|client| client.n_acknowledged).sum(),
            n_refused: felt.clients.values().map(|client| client.n_refused).sum(),
            n_unknown: felt.clients.values().map(|client| client.n_unknown).sum(),
            n_disconnects: felt.n_disconnects,
            unavailable: Spread::of(felt.clients.values().map(|client| client.longest_us)),
            news_us: news::lags(history).map(|(_, lag_us)| lag_us).max().unwrap_or(0),
            redundancy_ms: None,
            n_copies: history.copies().map(|copies| copies.n_chunks).sum(),
            fault_us: 0,
            faults: faults.collect(),
            n_lost: 0,
            is_read: false,
            violations: Vec::new(),
            trouble: Vec::new(),
            clients: clients.collect(),
            timeline: Timeline::of(history),
            history: PathBuf::new(),
        }
    }

    /// Takes the judge's findings, and whose mail nobody read in the end.
    pub(crate) fn judged(&mut self, violations: Vec<Violation>, unread: BTreeSet<&str>) {
        let is_loss = |found: &&Violation| {
            matches!(
                found.promise,
                Promise::NothingLost | Promise::LastFlagWins | Promise::MoveIsAtomic
            )
        };
        self.n_lost = violations.iter().filter(is_loss).count();
        self.violations = violations;
        self.is_read = unread.is_empty();
        let words = |of| format!("nobody looked into {of} in the end: what it lost is not known");
        self.trouble.extend(unread.into_iter().map(words));
    }

    /// Nothing was wrong.
    pub fn passed(&self) -> bool {
        self.violations.is_empty() && self.trouble.is_empty()
    }

    /// In one line.
    pub(crate) fn line(&self) -> String {
        let verdict = if self.passed() { "pass" } else { "FAIL" };
        format!(
            "{verdict}  {:<17} round {}: {} acknowledged, {} lost; longest wait {}; {} disconnects; \
             whole after {}; {} copies verified",
            self.scenario.name(),
            self.round,
            self.n_acknowledged,
            lost(self.n_lost, self.is_read),
            ms(self.unavailable.max_us),
            self.n_disconnects,
            self.redundancy(),
            self.n_copies
        )
    }

    fn redundancy(&self) -> String {
        self.redundancy_ms.map_or("never".into(), |ms| format!("{:.1} s", ms as f64 / 1000.0))
    }
}

impl Report {
    pub(crate) fn new(seed: u64, histories: PathBuf) -> Self {
        let version = env!("CARGO_PKG_VERSION");
        Self { seed, version, histories, scenarios: Vec::new(), broken_off: None }
    }

    /// What is told as long as nothing else is.
    pub(crate) fn unfinished(seed: u64) -> Self {
        let broken_off = Some("a run that has not ended, or never came to its end".into());
        Self { broken_off, ..Self::new(seed, PathBuf::new()) }
    }

    /// In one line.
    pub(crate) fn verdict(&self) -> String {
        match &self.broken_off {
            _ if self.passed() => "passed".into(),
            None => "FAILED".into(),
            Some(why) => format!("BROKEN OFF in {why}"),
        }
    }

    /// Everything was read in the end, so that what is lost is known.
    pub(crate) fn is_read(&self) -> bool {
        self.scenarios.iter().all(|one| one.is_read)
    }

    /// Nothing was wrong in any scenario.
    pub fn passed(&self) -> bool {
        let is_whole = self.broken_off.is_none() && !self.scenarios.is_empty();
        is_whole && self.scenarios.iter().all(ScenarioReport::passed)
    }

    /// For programs: everything, and the verdicts.
    pub(crate) fn to_json(&self) -> Result<String> {
        let mut value = serde_json::to_value(self).context("write JSON")?;
        value["passed"] = self.passed().into();
        for (k, one) in self.scenarios.iter().enumerate() {
            value["scenarios"][k]["passed"] = one.passed().into();
        }
        serde_json::to_string_pretty(&value).context("write JSON")
    }

    /// For the terminal.
    pub(crate) fn table(&self) -> String {
        let mut table = Table::new();
        table.load_preset(NOTHING);
        table.set_header([
            "scenario",
            "rounds",
            "verdict",
            "acknowledged",
            "lost",
            "wait p50",
            "p99",
            "max",
            "disconnects",
            "IDLE told",
            "whole after",
            "copies verified",
        ]);
        for rounds in self.by_scenario() {
            let first = rounds[0];
            let waits = Spread::of(
                rounds.iter().flat_map(|one| one.clients.iter().map(|client| client.longest_us)),
            );
            let failed = rounds.iter().filter(|one| !one.passed()).count();
            let verdict = if failed == 0 { "pass".into() } else { format!("FAIL ({failed})") };
            let whole = rounds.iter().map(|one| one.redundancy_ms).collect::<Option<Vec<u64>>>();
            let whole = whole.and_then(|all| all.into_iter().max());
            table.add_row([
                first.scenario.name().to_owned(),
                rounds.len().to_string(),
                verdict,
                rounds.iter().map(|one| one.n_acknowledged).sum::<usize>().to_string(),
                lost(
                    rounds.iter().map(|one| one.n_lost).sum(),
                    rounds.iter().all(|one| one.is_read),
                ),
                ms(waits.p50_us),
                ms(waits.p99_us),
                ms(waits.max_us),
                rounds.iter().map(|one| one.n_disconnects).sum::<usize>().to_string(),
                ms(rounds.iter().map(|one| one.news_us).max().unwrap_or(0)),
                whole.map_or("never".into(), |ms| format!("{:.1} s", ms as f64 / 1000.0)),
                rounds.iter().map(|one| one.n_copies).sum::<usize>().to_string(),
            ]);
        }
        let mut text = table.to_string();
        for one in self.scenarios.iter().filter(|one| !one.passed()) {
            text += &format!("\n\n{} round {}:", one.scenario.name(), one.round);
            for trouble in &one.trouble {
                text += &format!("\n  {trouble}");
            }
            for violation in one.violations.iter().take(TOLD_MAX) {
                text += &format!("\n  {violation}");
            }
            if one.violations.len() > TOLD_MAX {
                text += &format!("\n  and {} more", one.violations.len() - TOLD_MAX);
            }
            text += &format!("\n  history: {}", one.history.display());
        }
        text
    }

    /// The runs of each scenario, in the order of the drill.
    fn by_scenario(&self) -> Vec<Vec<&ScenarioReport>> {
        let mut seen = BTreeSet::new();
        let names = self.scenarios.iter().map(|one| one.scenario);
        let names: Vec<Scenario> = names.filter(|one| seen.insert(*one)).collect();
        let of = |name| self.scenarios.iter().filter(move |one| one.scenario == name).collect();
        names.into_iter().map(of).collect()
    }
}

/// Broken promises that are told of one run; the history has all of them.
const TOLD_MAX: usize = 12;

/// How many acknowledged changes are lost, as far as that is known.
fn lost(n_lost: usize, is_read: bool) -> String {
    match (n_lost, is_read) {
        (n_lost, true) => n_lost.to_string(),
        (0, false) => "unknown".into(),
        (n_lost, false) => format!("{n_lost} or more"),
    }
}

/// Microseconds for people.
fn ms(us: u64) -> String {
    match us {
        0..10_000 => format!("{:.1} ms", us as f64 / 1e3),
        10_000..1_000_000 => format!("{} ms", us / 1000),
        _ => format!("{:.2} s", us as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let spread = |values: &[u64]| Spread::of(values.iter().copied());
        assert_eq!(spread(&[]), Spread::default());
        assert_eq!(spread(&[7]), Spread { p50_us: 7, p99_us: 7, max_us: 7 });
        assert_eq!(spread(&[4, 1, 3, 2]), Spread { p50_us: 2, p99_us: 4, max_us: 4 });
        let many: Vec<u64> = (1..=200).rev().collect();
        assert_eq!(spread(&many), Spread { p50_us: 100, p99_us: 198, max_us: 200 });
    }

    #[test]
    fn times_are_told_with_their_unit() {
        assert_eq!(ms(1_234), "1.2 ms");
        assert_eq!(ms(123_456), "123 ms");
        assert_eq!(ms(1_234_567), "1.23 s");
    }
}
