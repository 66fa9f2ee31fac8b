//! A test, or a part of one, that cannot run here says so where a person sees it.

use std::fmt::Display;
use std::io::Write as _;

/// How such a line begins.
const SKIPPED: &str = "skipped: ";

/// Says why on standard error. Why not by a macro: what a test that passes prints is kept from everybody.
pub fn skipped(reason: impl Display) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    say(&format!("{SKIPPED}{test}: {reason}"));
}

/// Says again what another process of a test skipped.
pub(crate) fn pass_on(said: &str) {
    said.lines().filter(|line| line.starts_with(SKIPPED)).for_each(say);
}

fn say(line: &str) {
    // Whom nobody hears skips all the same.
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// Whether a program can be run by its name here; says so if not.
pub fn has_program(name: &str) -> bool {
    let found =
        std::process::Command::new("sh").args(["-c", &format!("command -v {name}")]).output();
    let is_there = found.is_ok_and(|found| found.status.success());
    if !is_there {
        skipped(format!("{name} is not installed"));
    }
    is_there
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Set in the process that skips.
    const IS_INSIDE: &str = "ROOKERY_TEST_SKIPS";

    #[test]
    fn a_test_that_passes_is_heard_when_it_skips() {
        if std::env::var_os(IS_INSIDE).is_some() {
            println!("kept back");
            skipped("the moon is full");
            return;
        }
        let test = "skip::tests::a_test_that_passes_is_heard_when_it_skips";
        let mut again = Command::new(std::env::current_exe().unwrap());
        let done = again.args([test, "--exact"]).env(IS_INSIDE, "1").output().unwrap();
        let heard = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
        assert!(done.status.success() && heard.contains("1 passed"), "{heard}");
        let line = heard.lines().find(|line| line.starts_with(SKIPPED));
        assert!(line.is_some_and(|line| line.ends_with(": the moon is full")), "{heard}");
        assert!(!heard.contains("kept back"), "nothing is kept back here: {heard}");
    }
}
