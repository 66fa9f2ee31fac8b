//! The wires between processes that have an address each, in a network of the test's own: packets from
//! one to another vanish, as in a dead cable.

use anyhow::{Context as _, Result, ensure};

use crate::inside::system;
use crate::skip::skipped;

/// Its name among the packet filters.
const TABLE: &str = "rookery_test";

/// All wires.
pub struct Wires(());

impl Wires {
    /// All whole. `None`, and says why, where packets cannot be filtered.
    pub fn whole() -> Option<Self> {
        let hook = "{ type filter hook input priority 0; }";
        let made = system("nft", &["add", "table", "inet", TABLE])
            .and_then(|_| system("nft", &["add", "chain", "inet", TABLE, "cut", hook]));
        if let Err(error) = made {
            skipped(format!("wires cannot be cut here: {error:#}"));
            return None;
        }
        Some(Self(()))
    }

    /// Packets from one address to another vanish from now on.
    pub fn cut(&self, from: &str, to: &str) -> Result<()> {
        let rule = ["ip", "saddr", from, "ip", "daddr", to, "counter", "drop"];
        system("nft", &[&["add", "rule", "inet", TABLE, "cut"][..], &rule].concat())?;
        Ok(())
    }

    /// Mends all; how many packets vanished.
    pub fn mend(&self) -> Result<u64> {
        let told = system("nft", &["list", "chain", "inet", TABLE, "cut"])?;
        let counts = told.split("counter packets ").skip(1);
        let counts = counts.filter_map(|rest| rest.split(' ').next()?.parse::<u64>().ok());
        let n_vanished = counts.sum();
        system("nft", &["flush", "chain", "inet", TABLE, "cut"]).context("mend")?;
        ensure!(n_vanished > 0, "no packet went over the wires that were cut: {told}");
        Ok(n_vanished)
    }
}
