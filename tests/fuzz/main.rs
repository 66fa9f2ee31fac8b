//! A bounded run of every fuzz target. `FUZZ_INPUTS=n` says how many inputs each gets; a failure names
//! its input by number, and `FUZZ_FROM=number FUZZ_INPUTS=1` plays it again.

use std::ops::Range;
use std::process::{Command, Stdio};
use std::time::Duration;

use tests::fuzz::counting::Counting;
use tests::fuzz::{Target, processor_time, run, run_watched, targets};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Enough to find at once what a change broke, few enough for every run of the tests.
const INPUTS: u64 = 1000;

/// Processor time: more than any input may take.
const TOIL: Duration = Duration::from_millis(1200);

/// Set in the process that hangs.
const HANGS: &str = "ROOKERY_TEST_HANGS";

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
fn a_planted_panic_a_planted_hoard_and_planted_toil_are_caught() {
    assert!(fails(|input| assert!(!input.contains(&0xff), "planted"), 1 << 20));
    assert!(fails(toil, 1 << 20));
    assert!(fails(|input| drop(Vec::<u8>::with_capacity(input.len() << 20)), 1 << 20));
    assert!(!fails(|_| {}, 1 << 20));
}

/// Works for longer than any input may, and comes to an end.
fn toil(input: &[u8]) {
    let begun = processor_time();
    while input.contains(&0xff) && processor_time() - begun < TOIL {}
}

#[test]
fn a_planted_hang_is_named_and_ends_the_process() {
    if std::env::var_os(HANGS).is_some() {
        let hang = |input: &[u8]| {
            while input.contains(&0xff) {
                std::thread::park();
            }
        };
        let target = Target { name: "planted", run: hang, budget_bytes: 1 << 20, words: &[] };
        run_watched(&target, 0..50, Duration::from_millis(200));
        return;
    }
    let mut again = Command::new(std::env::current_exe().expect("this test has a file"));
    again.args(["a_planted_hang_is_named_and_ends_the_process", "--exact"]).env(HANGS, "1");
    let done = again.stdin(Stdio::null()).output().expect("it runs");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(!done.status.success(), "nobody noticed that it hangs");
    let is_named = said.contains("planted: input ") && said.contains(" does not end\n");
    assert!(is_named, "{said}");
}
