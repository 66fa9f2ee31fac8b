//! A bounded run of every fuzz target. `FUZZ_INPUTS=n` says how many inputs each gets; a failure names
//! its input by number, and `FUZZ_FROM=number FUZZ_INPUTS=1` plays it again.

use std::ops::Range;

use tests::fuzz::counting::Counting;
use tests::fuzz::{Target, run, targets};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Enough to find at once what a change broke, few enough for every run of the tests.
const INPUTS: u64 = 1000;

fn numbers() -> Range<u64> {
    let of = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let from = of("FUZZ_FROM").unwrap_or(0);
    from..from + of("FUZZ_INPUTS").unwrap_or(INPUTS)
}

fn play(name: &str) {
    let target = targets::ALL.iter().find(|target| target.name == name).expect("a target");
    println!("{name}: {:?}", run(target, numbers()));
}

#[test]
fn imap() {
    play("imap");
}

#[test]
fn sets() {
    play("sets");
}

#[test]
fn pop3() {
    play("pop3");
}

#[test]
fn lmtp() {
    play("lmtp");
}

#[test]
fn mime() {
    play("mime");
}

#[test]
fn journal() {
    play("journal");
}

#[test]
fn checkpoint() {
    play("checkpoint");
}

fn fails(run_it: fn(&[u8]), budget_bytes: usize) -> bool {
    let target = Target { name: "planted", run: run_it, budget_bytes, words: &[] };
    std::panic::catch_unwind(|| run(&target, 0..50)).is_err()
}

#[test]
fn a_planted_panic_and_a_planted_hoard_are_caught() {
    assert!(fails(|input| assert!(!input.contains(&0xff), "planted"), 1 << 20));
    assert!(fails(|input| drop(Vec::<u8>::with_capacity(input.len() << 20)), 1 << 20));
    assert!(!fails(|_| {}, 1 << 20));
}
