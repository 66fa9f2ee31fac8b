//! What commands on names cost, and how much of them there may be.

mod support;

use std::cell::Cell;

use mailbox::*;
use support::*;

/// Rows, and how often they were looked into.
struct Counted<'s>(&'s Shard, Cell<usize>);

impl Source for Counted<'_> {
    fn row(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.1.set(self.1.get() + 1);
        self.0.rows.row(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) {
        self.1.set(self.1.get() + 1);
        self.0.rows.scan(from, to, visit);
    }
}

/// How often rows are looked into by a command, and what comes of it; it is not done.
fn looks(shard: &Shard, command: Command) -> (usize, Outcome) {
    let request = shard.clone().request(command);
    let counted = Counted(shard, Cell::new(0));
    let mut rows = Rows::new(&counted, shard.digest);
    let applied = apply(&mut rows, &Entry { time: LogTime(shard.now_ms), request }, &[]);
    (counted.1.get(), applied.outcome)
}

#[test]
fn a_rename_does_not_look_at_each_name_below() {
    let mut shard = Shard::with_account();
    shard.is_checked_seldom = true;
    for n in 0..1_000 {
        shard.create(&format!("a/b/{n}"));
    }
    for to in ["c", "a1", "c/d/e"] {
        let (n_looks, outcome) = looks(&shard, rename("a", to));
        assert_eq!(outcome, Outcome::Done);
        assert!(n_looks < 100, "{to}: {n_looks} looks");
    }
    // Three levels fit below 29 others, and not below 30.
    for (n_levels, is_done) in [(30, true), (31, false)] {
        let to: Vec<String> = (0..n_levels).map(|n| format!("x{n}")).collect();
        let (_, outcome) = looks(&shard, rename("a", &to.join("/")));
        assert_eq!(outcome == Outcome::Done, is_done, "{outcome:?}");
    }
}
