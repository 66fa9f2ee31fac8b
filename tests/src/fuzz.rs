//! Hostile input, made by changing good input a little: one target for each parser that reads what a
//! stranger or a damaged disk may have written.
//!
//! Enter at [`run`]. An input is made from the seeds and its number alone, so that a failure is played
//! again by its number. A target may refuse what it is given; it must not panic, take a second of the
//! processor, or hold more than its budget. `tests/fuzz/main.rs` does a bounded run of each, and
//! `cargo run --release -p tests --example fuzz -- 1000000` the long one.

pub mod counting;
mod mutate;
pub mod seeds;
pub mod targets;

use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mutate::Mutator;

/// Limit: processor time of one input.
const INPUT_WITHIN: Duration = Duration::from_secs(1);

/// An input that does not end at all is told of after this time by the clock.
const STUCK_AFTER: Duration = Duration::from_secs(60);

/// One parser.
pub struct Target {
    /// Also the name of its directory of seeds.
    pub name: &'static str,
    /// What it does with an input.
    pub run: fn(&[u8]),
    /// Limit: octets allocated at the same time for one input, the test's own store included.
    pub budget_bytes: usize,
    /// What matters to it, to be put in anywhere.
    pub words: &'static [&'static [u8]],
}

/// What a run saw.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// How many inputs.
    pub n_inputs: u64,
    /// Processor time of the slowest.
    pub slowest: Duration,
    /// Most octets any of them held.
    pub most_bytes: usize,
}

/// Feeds a target with inputs of these numbers. Panics with the number of one that it fails, and leaves
/// that input in a file.
pub fn run(target: &Target, numbers: std::ops::Range<u64>) -> Report {
    run_watched(target, numbers, STUCK_AFTER)
}

/// The same, with a patience of one's own for an input that does not end.
pub fn run_watched(
    target: &Target,
    numbers: std::ops::Range<u64>,
    stuck_after: Duration,
) -> Report {
    let mutator = Mutator { seeds: seeds::of(target), words: target.words };
    for seed in &mutator.seeds {
        (target.run)(seed);
    }
    let watched = Watched::start(target.name, stuck_after);
    let mut report = Report::default();
    for number in numbers {
        watched.now_at(number);
        let input = mutator.input(number);
        counting::start();
        let begun = processor_time();
        let result = catch_unwind(AssertUnwindSafe(|| (target.run)(&input)));
        let took = processor_time() - begun;
        let n_bytes = counting::peak();
        if result.is_err() || took > INPUT_WITHIN || n_bytes > target.budget_bytes {
            let path = std::env::temp_dir().join(format!("rookery-{}-{number}", target.name));
            let kept = std::fs::write(&path, &input);
            panic!(
                "{}: input {number} panicked ({}), took {took:?} or held {n_bytes} octets; it is \
                 in {} ({kept:?})",
                target.name,
                result.is_err(),
                path.display()
            );
        }
        report.n_inputs += 1;
        report.slowest = report.slowest.max(took);
        report.most_bytes = report.most_bytes.max(n_bytes);
    }
    report
}

/// What this thread has used of the processor: another test beside it makes nothing slow.
pub fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime(2) writes one timespec.
    let told = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(told, 0, "the thread has a clock");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Ends the process when an input does not end.
struct Watched {
    number: Arc<AtomicU64>,
}

const OVER: u64 = u64::MAX;

impl Watched {
    fn start(name: &'static str, stuck_after: Duration) -> Self {
        let number = Arc::new(AtomicU64::new(0));
        let watching = Arc::clone(&number);
        std::thread::spawn(move || {
            let mut before = watching.load(Ordering::Relaxed);
            loop {
                std::thread::park_timeout(stuck_after);
                let now = watching.load(Ordering::Relaxed);
                if now == OVER {
                    return;
                }
                if now == before {
                    // Why no macro: what a test prints goes with its process.
                    let said = format!("{name}: input {now} does not end\n");
                    let _ = std::io::stderr().write_all(said.as_bytes());
                    std::process::abort();
                }
                before = now;
            }
        });
        Self { number }
    }

    fn now_at(&self, number: u64) {
        self.number.store(number, Ordering::Relaxed);
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.number.store(OVER, Ordering::Relaxed);
    }
}
