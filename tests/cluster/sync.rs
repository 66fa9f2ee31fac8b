//! Clients of every kind change the same mailboxes through both frontends and keep what they are told:
//! whenever nobody does anything, each of them knows exactly what there is.
//!
//! `ROOKERY_SYNC=100` plays so many seeds, from `ROOKERY_SYNC_SEED` on.

mod acts;
mod cache;
mod dice;
mod facts;
mod field;
mod quiet;
mod session;
mod wire;
mod words;

use anyhow::{Context as _, Result};
use tests::demo::Demo;

use field::Field;

/// Seeds of the test.
const SEEDS: u64 = 3;
/// Times that a seed comes to rest, and what happens before each.
const ROUNDS: usize = 5;
const STEPS: usize = 200;

#[test]
fn every_client_knows_what_there_is_through_either_frontend() -> Result<()> {
    let seeds = number("ROOKERY_SYNC").unwrap_or(SEEDS);
    let first = number("ROOKERY_SYNC_SEED").unwrap_or(1);
    let accounts = (2 * seeds).to_string();
    let demo = Demo::start(&["--no-sample-mail", "--accounts", &accounts])?;
    for (nth, seed) in (first..first + seeds).enumerate() {
        let began = std::time::Instant::now();
        let mut field = Field::new(&demo, seed, nth)?;
        // The last one has processes die.
        let is_hurt = seed % 3 == 0;
        if let Err(error) = play(&mut field, is_hurt) {
            println!("{}", field.conversations(&error));
            return Err(error.context(format!("seed {seed}")));
        }
        let n_resyncs: usize = field.sessions.iter().map(|session| session.n_resyncs).sum();
        println!(
            "seed {seed}: {:.1?}, {n_resyncs} returns, {} copies",
            began.elapsed(),
            field.facts.n_copies
        );
    }
    Ok(())
}

fn play(field: &mut Field<'_>, is_hurt: bool) -> Result<()> {
    for round in 0..ROUNDS {
        for step in 0..STEPS {
            match (is_hurt, step, round % 2) {
                (true, 40, 0) => field.kill_leader()?,
                (true, 40, _) => field.kill_frontend()?,
                _ => {}
            }
            field.step().with_context(|| format!("round {round}, step {step}"))?;
        }
        field.settle().with_context(|| format!("end of round {round}"))?;
        quiet::judge(field).with_context(|| format!("at rest after round {round}"))?;
    }
    Ok(())
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
