//! Load for the bench: clients that each do one thing after the other, over any server's LMTP, IMAP and
//! POP3. `tests/bench/compare.py` runs it; by hand:
//!
//! `cargo run --release -p tests --example load -- OPERATION key=value ...`

#![allow(missing_docs)]

mod message;
mod operation;
mod options;

use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::operation::Client;
use crate::options::Options;

/// How long each step of each client took, in seconds, and how many failed.
#[derive(Default)]
struct Seen {
    took: Vec<f64>,
    n_errors: u64,
}

fn main() -> Result<()> {
    let options = Options::read(std::env::args().skip(1))?;
    let clients: Result<Vec<Client>> =
        (0..options.clients).map(|number| Client::connect(&options, number)).collect();
    // What is made ready before the clock starts is not measured.
    let clients = clients.context("connect")?;
    let seen = Mutex::new(Seen::default());
    let begun = Instant::now();
    let until = begun + Duration::from_secs_f64(options.seconds);
    std::thread::scope(|scope| {
        for client in clients {
            let seen = &seen;
            scope.spawn(move || run(client, until, seen));
        }
    });
    let seconds = begun.elapsed().as_secs_f64();
    let mut seen = seen.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    seen.took.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let last = seen.took.len().saturating_sub(1);
        seen.took.get((last as f64 * share) as usize).map_or(0.0, |took| took * 1000.0)
    };
    let line = serde_json::json!({
        "operation": options.operation,
        "ops": seen.took.len(),
        "errors": seen.n_errors,
        "ops_per_s": seen.took.len() as f64 / seconds,
        "p50_ms": at(0.5),
        "p99_ms": at(0.99),
    });
    println!("{line}");
    Ok(())
}

fn run(mut client: Client, until: Instant, seen: &Mutex<Seen>) {
    let mut mine = Seen::default();
    while Instant::now() < until {
        match client.step() {
            Ok(Some(took)) => mine.took.extend(took),
            Ok(None) => break,
            Err(error) => {
                if mine.n_errors == 0 {
                    eprintln!("{error:#}");
                }
                mine.n_errors += 1;
                if client.again().is_err() {
                    break;
                }
            }
        }
    }
    let mut seen = seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    seen.took.append(&mut mine.took);
    seen.n_errors += mine.n_errors;
}
