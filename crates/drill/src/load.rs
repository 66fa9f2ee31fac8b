//! Clients at work on a cluster that somebody else hurts, judged as in a drill: for tests with faults
//! that no node can do to itself.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use admin::cluster_file::ClusterFile;
use anyhow::{Context as _, Result, ensure};
use tokio::runtime::Runtime;

use crate::args;
use crate::availability::{Availability, availability};
use crate::check::{Violation, check};
use crate::dice::Dice;
use crate::history::{Fault, Record};
use crate::recorder::Recorder;
use crate::run::{Ground, at_work, last_looks, name_canaries, warm};
use crate::work::{Canary, Crew, Pace};

/// A running load. Blocks, for callers without a runtime of their own.
pub struct Load {
    runtime: Runtime,
    ground: Ground,
    canaries: Vec<Canary>,
    crew: Crew,
    recorder: Arc<Recorder>,
}

/// What the clients of a load saw, and what the judge says.
pub struct Judged {
    /// Broken promises.
    pub violations: Vec<Violation>,
    /// How clients were served.
    pub availability: Availability,
}

impl Load {
    /// Makes canary accounts on the cluster of a `cluster.json` and puts clients to work; returns when
    /// each of them works. What they see is written to `history` at once.
    pub fn begin(file: &Path, seed: u64, n_canaries: u32, history: &Path) -> Result<Self> {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().context("start runtime")?;
        let recorder = Arc::new(Recorder::begin(Some(history))?);
        let dice = Dice::new(seed);
        let (ground, canaries, crew) = runtime.block_on(async {
            let ground = args::of_file(&ClusterFile::read(file)?, args::CANARY_DOMAIN)?;
            let (names, password) = name_canaries(&dice, n_canaries, &ground.domain);
            let canaries = ground.cluster.create_canaries(&names, &password).await?;
            let crew = Crew::start(&ground.site, &canaries, &recorder, Pace::Steady, &dice)?;
            warm(&crew, &recorder).await?;
            anyhow::Ok((ground, canaries, crew))
        })?;
        Ok(Self { runtime, ground, canaries, crew, recorder })
    }

    /// What time it is in the history, in microseconds.
    pub fn now_us(&self) -> u64 {
        self.recorder.now_us()
    }

    /// Notes what was done to the cluster since then.
    pub fn hurt(&self, name: String, start_us: u64) {
        let end_us = self.now_us();
        self.recorder.record(Record::Fault(Fault { name, start_us, end_us }));
    }

    /// Waits until each client got so many more operations done.
    pub fn progress(&self, n_operations: u64, patience: Duration) -> Result<()> {
        let members = &self.crew.members;
        self.runtime.block_on(at_work(members, &self.recorder, n_operations, patience))
    }

    /// Waits until every copy of everything is where it belongs.
    pub fn whole(&self, patience: Duration) -> Result<()> {
        self.runtime.block_on(self.ground.cluster.whole(patience))
    }

    /// Lets the clients finish, waits until all replicas are level, has all copies verified, reads
    /// everything, and judges.
    pub fn end(self, patience: Duration) -> Result<Judged> {
        let Self { runtime, ground, canaries, crew, recorder } = self;
        ensure!(crew.stop() == 0, "a client of the load panicked");
        runtime.block_on(async {
            let states = ground.cluster.rest(patience).await?;
            states.into_iter().for_each(|state| recorder.record(Record::Replica(state)));
            let (cluster, mailboxes) = (&ground.cluster, &ground.site.mailboxes);
            let copies = cluster.healed_copies(&canaries, mailboxes, patience).await?;
            copies.into_iter().for_each(|one| recorder.record(Record::Copies(one)));
            last_looks(&ground.site, &canaries, &recorder).context("read everything")?;
            ground.cluster.remove_canaries(&canaries).await
        })?;
        let history = recorder.take_history();
        Ok(Judged { violations: check(&history), availability: availability(&history) })
    }
}
