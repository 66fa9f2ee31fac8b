//! Disks that are slow, hang, fail or lie when something is synced: a small library in C, built by the test
//! and preloaded into the processes of a demo, does to them what a control file says.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::inside::system;
use crate::skip::skipped;

const SOURCE: &str = include_str!("failing_sync.c");
/// EIO: what a disk says that cannot write any more.
const INPUT_OUTPUT_ERROR: u32 = 5;

/// What is done to who syncs files below one directory.
pub struct FailingSync {
    control: PathBuf,
    library: PathBuf,
}

impl FailingSync {
    /// Builds the library in this directory. `None`, and says why, where there is no compiler.
    pub fn build(dir: &Path) -> Result<Option<Self>> {
        let (source, library) = (dir.join("failing_sync.c"), dir.join("failing_sync.so"));
        fs::write(&source, SOURCE)?;
        let (from, to) = (source.to_string_lossy(), library.to_string_lossy());
        let built = system("cc", &["-shared", "-fPIC", "-O2", "-o", &to, &from, "-ldl"]);
        if let Err(error) = built {
            skipped(format!("no library to preload: {error:#}"));
            return Ok(None);
        }
        Ok(Some(Self { control: dir.join("sync"), library }))
    }

    /// What the environment of the processes needs.
    pub fn env(&self) -> Vec<(String, String)> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        vec![
            ("LD_PRELOAD".into(), text(&self.library)),
            ("ROOKERY_TEST_SYNC".into(), text(&self.control)),
        ]
    }

    /// Every sync below this directory takes so much longer.
    pub fn delay(&self, under: &Path, ms: u64) -> Result<()> {
        self.say(&format!("delay {ms} {}", under.display()))
    }

    /// No sync below this directory ends.
    pub fn hang(&self, under: &Path) -> Result<()> {
        self.say(&format!("hang 0 {}", under.display()))
    }

    /// Every sync below this directory fails.
    pub fn fail(&self, under: &Path) -> Result<()> {
        self.say(&format!("fail {INPUT_OUTPUT_ERROR} {}", under.display()))
    }

    /// Every sync below this directory succeeds and does nothing.
    pub fn lie(&self, under: &Path) -> Result<()> {
        self.say(&format!("lie 0 {}", under.display()))
    }

    /// Everything is well again.
    pub fn heal(&self) -> Result<()> {
        Ok(fs::remove_file(&self.control)?)
    }

    /// Replaced as a whole: who reads sees the old or the new one.
    fn say(&self, what: &str) -> Result<()> {
        let beside = self.control.with_extension("new");
        fs::write(&beside, format!("{what}\n"))?;
        Ok(fs::rename(&beside, &self.control)?)
    }
}
