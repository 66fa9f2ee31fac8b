//! When checkpoints are written, logs are cut and segments are freed.

use std::time::Duration;

/// Limits of what gathers up between two rounds of upkeep. The defaults are for real disks; tests
/// set them low, so that all of it happens within seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upkeep {
    /// A delta is due after so many bytes of row changes,
    pub delta_bytes: usize,
    /// or so many entries,
    pub delta_entries: u64,
    /// or when the journal cannot be given up over so many bytes because of the replica.
    pub pinned_bytes: u64,
    /// Deltas after which some of them become one, or where they are as large as the base, all become a new
    /// base.
    pub n_deltas: usize,
    /// Entries kept below a checkpoint, so that a follower a little behind needs no snapshot,
    pub keep_entries: u64,
    /// and for a member that is away.
    pub keep_entries_away: u64,
    /// Who is sent a checkpoint finds the log from there on when it has it, however many entries that are,
    /// unless the journal cannot be given up over more than so many bytes because of it.
    pub fed_pinned_bytes: u64,
    /// Checkpoints, purges and repair are thought about this often.
    pub look_every: Duration,
    /// Dead segments are looked for this often, and more often where little is free.
    pub collect_every: Duration,
}

impl Default for Upkeep {
    fn default() -> Self {
        Self {
            delta_bytes: 64 << 20,
            delta_entries: 200_000,
            pinned_bytes: 4 << 30,
            n_deltas: 8,
            keep_entries: 10_000,
            keep_entries_away: 200_000,
            // What comes to a disk in an hour at 18 MiB/s; 25 Mbit/s bring a checkpoint of 10 GiB meanwhile.
            fed_pinned_bytes: 64 << 30,
            look_every: Duration::from_secs(1),
            collect_every: Duration::from_secs(300),
        }
    }
}
