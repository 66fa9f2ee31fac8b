//! Thunderbird without a screen, as its user drives it. Skipped, which is said, where it is not installed.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, anyhow};
use tests::demo::{Demo, rookery};
use tests::skip::has_program;

#[test]
fn thunderbird_reads_sends_sorts_and_syncs_while_a_leader_and_a_frontend_die() -> Result<()> {
    if !has_program("thunderbird") || !has_program("python3") {
        return Ok(());
    }
    let demo = Demo::start(&["--no-sample-mail", "--accounts", "2", "--shards", "1"])?;
    let home = tempfile::tempdir()?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster").join("thunderbird.py");
    let mut user = Command::new("python3");
    user.arg(script).arg(demo.cluster_file()).arg(rookery()).arg(home.path());
    // The script has deadlines, for each step and for all of them, and ends what it started.
    let output = user.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let result = if output.status.success() { Ok(()) } else { Err(anyhow!("{said}")) };
    demo.explain(result)
}
