//! What a frontend counts, in the text format of Prometheus. Labels are few and fixed: no name of a
//! person, no address.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mailbox::Outcome;
use mailbox::command::Place;
use mailbox::dialogue::{Look, Question, Trouble};

use crate::listen::Protocol;

/// Upper bounds in milliseconds of how long an answer of the cluster took.
const BOUNDS_MS: [u64; 9] = [1, 2, 5, 10, 25, 100, 500, 2_000, 10_000];

/// One for the process.
#[derive(Default)]
pub(crate) struct Metrics {
    opened: [AtomicU64; N_PROTOCOLS],
    open: [AtomicU64; N_PROTOCOLS],
    turned_away: [AtomicU64; N_PROTOCOLS],
    logins: [AtomicU64; LOGINS.len()],
    deliveries: [AtomicU64; DELIVERIES.len()],
    asked: [Histogram; ASKED.len()],
}

/// What came of a login.
#[derive(Clone, Copy)]
pub(crate) enum LoginResult {
    Right,
    Wrong,
    Disabled,
    /// Right, and one session too many of its account.
    Limit,
    Trouble,
}

const N_PROTOCOLS: usize = Protocol::ALL.len();
const LOGINS: [&str; 5] = ["right", "wrong", "disabled", "limit", "trouble"];
const DELIVERIES: [&str; 4] = ["committed", "refused", "trouble", "unknown_recipient"];
const ASKED: [&str; 4] = ["command", "query", "chunk", "recipient"];

#[derive(Default)]
struct Histogram {
    within: [AtomicU64; BOUNDS_MS.len()],
    n: AtomicU64,
    sum_us: AtomicU64,
}

/// A connection that is open, until it is dropped.
pub(crate) struct Open {
    metrics: Arc<Metrics>,
    protocol: Protocol,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.metrics.open[self.protocol as usize].fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    pub(crate) fn opened(self: &Arc<Self>, protocol: Protocol) -> Open {
        add(&self.opened[protocol as usize], 1);
        add(&self.open[protocol as usize], 1);
        Open { metrics: Arc::clone(self), protocol }
    }

    pub(crate) fn turned_away(&self, protocol: Protocol) {
        add(&self.turned_away[protocol as usize], 1);
    }

    pub(crate) fn login(&self, result: LoginResult) {
        add(&self.logins[result as usize], 1);
    }

    pub(crate) fn delivered(&self, outcome: &Result<Outcome, Trouble>) {
        let result = match outcome {
            Ok(Outcome::Appended(_)) => 0,
            Ok(_) => 1,
            Err(_) => 2,
        };
        add(&self.deliveries[result], 1);
    }

    /// A recipient was looked up. Why counted: without an account nothing is delivered and nothing else told.
    pub(crate) fn named(&self, found: &Result<Vec<Place>, Trouble>) {
        match found {
            Ok(places) if places.is_empty() => add(&self.deliveries[3], 1),
            Ok(_) => {}
            Err(_) => add(&self.deliveries[2], 1),
        }
    }

    /// Copies that are not made after a look at whom they are for.
    pub(crate) fn looked(&self, looks: &[Look]) {
        for look in looks {
            match look {
                Look::Takes | Look::Has => {}
                Look::Refuses(_) => add(&self.deliveries[1], 1),
                Look::Unknown(_) => add(&self.deliveries[2], 1),
            }
        }
    }

    /// How long the cluster took for an answer of this kind.
    pub(crate) fn asked(&self, kind: Kind, took: Duration) {
        let histogram = &self.asked[kind as usize];
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if let Some(at) = BOUNDS_MS.iter().position(|bound| us <= bound * 1000) {
            add(&histogram.within[at], 1);
        }
        add(&histogram.n, 1);
        add(&histogram.sum_us, us);
    }

    /// All of it as text.
    pub(crate) fn text(&self) -> String {
        let mut out = String::with_capacity(4096);
        let protocols = Protocol::ALL.map(Protocol::name);
        let families = [
            ("connections_open", "gauge", "Connections that are open.", "protocol", &self.open),
            ("connections_total", "counter", "Connections accepted.", "protocol", &self.opened),
            (
                "connections_turned_away_total",
                "counter",
                "Connections beyond a limit.",
                "protocol",
                &self.turned_away,
            ),
        ];
        for (name, kind, help, label, values) in families {
            head(&mut out, name, kind, help);
            samples(&mut out, name, label, &protocols, values);
        }
        head(&mut out, "logins_total", "counter", "Logins by result.");
        samples(&mut out, "logins_total", "result", &LOGINS, &self.logins);
        let help = "Copies of messages, and recipients nobody could be found for, by what came of them; \
                    trouble and some refusals come again.";
        head(&mut out, "deliveries_total", "counter", help);
        samples(&mut out, "deliveries_total", "result", &DELIVERIES, &self.deliveries);
        head(&mut out, "store_seconds", "histogram", "How long the cluster took to answer.");
        for (kind, histogram) in ASKED.iter().zip(&self.asked) {
            histogram.write(&mut out, kind);
        }
        out
    }
}

/// What the cluster was asked.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Command,
    Query,
    Chunk,
    Recipient,
}

impl Kind {
    /// `None` for what is answered without the cluster.
    pub(crate) fn of(question: &Question) -> Option<Self> {
        match question {
            Question::Command(..) | Question::CommandAnd(..) | Question::Commands(_) => {
                Some(Self::Command)
            }
            Question::Query(_) | Question::WouldTake(..) => Some(Self::Query),
            Question::Chunk(..) => Some(Self::Chunk),
            Question::Recipient(_) => Some(Self::Recipient),
            _ => None,
        }
    }
}

impl Histogram {
    fn write(&self, out: &mut String, kind: &str) {
        let mut n_within = 0;
        for (bound, n) in BOUNDS_MS.iter().zip(&self.within) {
            n_within += n.load(Ordering::Relaxed);
            let le = *bound as f64 / 1000.0;
            let _ = writeln!(
                out,
                "rookery_frontend_store_seconds_bucket{{kind=\"{kind}\",le=\"{le}\"}} {n_within}"
            );
        }
        let n = self.n.load(Ordering::Relaxed).max(n_within);
        let sum = self.sum_us.load(Ordering::Relaxed) as f64 / 1e6;
        let _ = writeln!(
            out,
            "rookery_frontend_store_seconds_bucket{{kind=\"{kind}\",le=\"+Inf\"}} {n}\n\
             rookery_frontend_store_seconds_sum{{kind=\"{kind}\"}} {sum}\n\
             rookery_frontend_store_seconds_count{{kind=\"{kind}\"}} {n}"
        );
    }
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

// Writing to a string does not fail, here and above.
fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(
        out,
        "# HELP rookery_frontend_{name} {help}\n# TYPE rookery_frontend_{name} {kind}"
    );
}

fn samples(out: &mut String, name: &str, label: &str, names: &[&str], values: &[AtomicU64]) {
    for (value_name, value) in names.iter().zip(values) {
        let value = value.load(Ordering::Relaxed);
        let _ = writeln!(out, "rookery_frontend_{name}{{{label}=\"{value_name}\"}} {value}");
    }
}

#[cfg(test)]
mod tests {
    use mailbox::Refusal;

    use super::*;

    #[test]
    fn what_is_not_delivered_is_counted_wherever_it_ended() {
        let metrics = Metrics::default();
        metrics.named(&Ok(Vec::new()));
        metrics.named(&Err(Trouble::Unavailable));
        let (refuses, unknown) =
            (Look::Refuses(Refusal::Suspended), Look::Unknown(Trouble::Unavailable));
        metrics.looked(&[Look::Takes, Look::Has, refuses, unknown]);
        let text = metrics.text();
        let wanted = [("committed", 0), ("refused", 1), ("trouble", 2), ("unknown_recipient", 1)];
        for (result, n) in wanted {
            let line = format!("rookery_frontend_deliveries_total{{result=\"{result}\"}} {n}\n");
            assert!(text.contains(&line), "{line} is not in {text}");
        }
    }
}
