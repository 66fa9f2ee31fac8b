//! How far the drill is: a moving line on a terminal, plain lines elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::report::ScenarioReport;
use crate::say;
use crate::scenario::Scenario;

/// How often the line moves.
const TICK: Duration = Duration::from_millis(120);

pub(crate) struct Progress(ProgressBar);

impl Progress {
    pub fn new(n_runs: u64) -> Self {
        let bar = ProgressBar::new(n_runs);
        let template = "{spinner} [{elapsed_precise}] {pos}/{len} {prefix} {msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(TICK);
        Self(bar)
    }

    pub fn begin(&self, scenario: Scenario, round: u32) {
        self.0.set_prefix(format!("{} (round {round}):", scenario.name()));
    }

    pub fn say(&self, what: &str) {
        self.0.set_message(what.to_owned());
    }

    pub fn done(&self, report: &ScenarioReport) {
        self.0.inc(1);
        let line = report.line();
        if self.0.is_hidden() {
            say(&line);
        } else {
            self.0.println(line);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
