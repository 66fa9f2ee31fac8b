//! openraft's own tests of log store and state machine, over real files.

#![allow(clippy::unwrap_used)]

use std::sync::{Arc, RwLock};

use mailbox::{ChunkRef, Digest, Rows, ShardId, Source};
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tokio::sync::{broadcast, watch};

use crate::disk::{Claim, Disk, DiskOptions};
use crate::local::Local;
use crate::log::Log;
use crate::machine::{Machine, MachineApplied};
use crate::raft::Types;
use crate::state::{Applier, Applying};

struct Nothing;

impl Machine for Nothing {
    fn apply(&self, _: &mut Rows<'_>, _: &[u8], _: &[ChunkRef]) -> MachineApplied {
        MachineApplied::default()
    }

    fn is_chunk_live(&self, _: &dyn Source, _: &Digest) -> bool {
        true
    }
}

struct Builder;

/// Keeps the files until the test is over.
struct Guard(#[allow(dead_code)] Claim, #[allow(dead_code)] tempfile::TempDir);

impl StoreBuilder<Types, Log, Applier, Guard> for Builder {
    async fn build(&self) -> Result<(Guard, Log, Applier), StorageError<Types>> {
        let dir = tempfile::tempdir().unwrap();
        Disk::format(dir.path()).unwrap();
        let journal = journal::Options {
            segment_bytes: 1 << 20,
            reserve_segments: 0,
            ..journal::Options::default()
        };
        let options = DiskOptions { journal, ..DiskOptions::default() };
        let disk = Disk::open(dir.path(), options).unwrap();
        let claim = disk.claim(0, ShardId(1)).await.unwrap();
        let local = Local { disk, replica: 0 };
        let (store, checkpoints) = local.open(&claim.log).await.unwrap();
        let log = claim.log.clone();
        let applying = Applying {
            machine: Arc::new(Nothing),
            log: log.clone(),
            store: RwLock::new(store),
            checkpoints,
            local,
            changes: broadcast::Sender::new(1),
            next_index: watch::Sender::new(0),
            samples: Default::default(),
        };
        Ok((Guard(claim, dir), log, Applier(Arc::new(applying))))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn openraft_is_content_with_log_and_state() {
    Suite::test_all(Builder).await.unwrap();
}
