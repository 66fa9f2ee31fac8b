//! What a run is: everything about it follows from here.

use mailbox::ShardId;

use crate::dice::Dice;

/// A fault of the code, put in on purpose: the simulation has to find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The disk says "synced" and did not.
    AckBeforeSync,
    /// A body that does not match its digest is served.
    SkipChecksum,
    /// An expunge of the last message gives its UID free.
    ReuseUid,
    /// MOVE as COPY and EXPUNGE.
    NonAtomicMove,
    /// Each attempt of a command counts as another command.
    RetryWithoutId,
    /// Reads ask nobody whether somebody else leads.
    StaleReads,
    /// A replica forgets that it misses bodies, and votes and campaigns as if it had them.
    CampaignIncomplete,
    /// A disk that has fewer batches than it had is used as it is.
    TrustOldDisks,
    /// Some STOREs are acknowledged and never done.
    DropStores,
    /// Some expunges are.
    DropExpunges,
}

impl Bug {
    pub const ALL: [Self; 10] = [
        Self::AckBeforeSync,
        Self::SkipChecksum,
        Self::ReuseUid,
        Self::NonAtomicMove,
        Self::RetryWithoutId,
        Self::StaleReads,
        Self::CampaignIncomplete,
        Self::TrustOldDisks,
        Self::DropStores,
        Self::DropExpunges,
    ];

    /// The promises it breaks, one of which has to be named.
    pub fn breaks(self) -> &'static [&'static str] {
        match self {
            // Why the last two: a journal that misses some of what it said was synced refuses to start, and a
            // disk that misses all of it is told to be an older copy of itself.
            Self::AckBeforeSync => {
                &["NothingLost", "ReadsAreCurrent", "a process ended", "a disk looks old"]
            }
            Self::SkipChecksum => &["BytesEqual"],
            Self::ReuseUid => &["NumbersAscend"],
            Self::NonAtomicMove => &["MoveIsAtomic"],
            // A second MOVE finds nothing to move, and that is what the client is told.
            Self::RetryWithoutId => &["ExactlyOnce", "MoveIsAtomic", "NothingLost"],
            Self::StaleReads => {
                &["ReadsAreCurrent", "StaysExpunged", "LastFlagWins", "MoveIsAtomic"]
            }
            Self::CampaignIncomplete => &["EveryCopyIsWhole", "not within"],
            Self::TrustOldDisks => &["NothingLost", "ReadsAreCurrent", "NumbersAscend"],
            Self::DropStores => &["LastFlagWins"],
            Self::DropExpunges => &["StaysExpunged"],
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|bug| format!("{bug:?}") == name)
    }
}

/// What is asked of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Anything may break at any time; no promise may.
    Safety,
    /// In the end a majority is well and the others stay as they are: clients must get on.
    Liveness,
}

/// One run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub mode: Mode,
    pub n_nodes: usize,
    /// Replicas of each shard that vote.
    pub n_voters: usize,
    pub n_shards: u32,
    pub n_clients: u32,
    /// How long clients work and faults happen.
    pub busy_ms: u64,
    /// A write takes at most so long.
    pub sync_ms: u64,
    /// How long a client waits for one command or answer.
    pub patience_ms: u64,
    /// Whether the second frontend's clients only read: nothing tells it that a leader was deposed.
    pub readers: bool,
    /// Whether logs are cut, so that those who fell behind are given snapshots.
    pub checkpoints: bool,
    /// Whether they are cut at once: whoever was away for a moment needs one.
    pub hasty: bool,
    /// Whether disks are lost or rolled back, and replicas moved between nodes.
    pub changes: bool,
    pub bug: Option<Bug>,
}

impl Plan {
    pub fn of(seed: u64, bug: Option<Bug>) -> Self {
        let dice = Dice::new(seed ^ 0x0070_1a4e);
        let n_nodes = *dice.pick(&[3, 3, 3, 4, 5]);
        let forgets = bug == Some(Bug::CampaignIncomplete);
        let trusts = bug == Some(Bug::TrustOldDisks);
        let is_safety = dice.chance(700) || forgets || trusts;
        Self {
            seed,
            mode: if is_safety { Mode::Safety } else { Mode::Liveness },
            n_nodes,
            n_voters: if n_nodes == 5 && dice.chance(500) { 5 } else { 3 },
            n_shards: dice.range(1, 2) as u32,
            n_clients: dice.range(3, 5) as u32,
            busy_ms: dice.range(5_000, 9_000),
            sync_ms: dice.range(1, 6),
            readers: dice.chance(400),
            checkpoints: dice.chance(500) || forgets,
            // Why not else: then some replica lacks bodies nearly always, and counts as failed.
            hasty: is_safety && (dice.chance(250) || forgets),
            changes: dice.chance(600) || trusts,
            patience_ms: *dice.pick(&[800, 2_000, 6_000]),
            bug,
        }
    }

    pub fn nodes(&self) -> Vec<String> {
        (1..=self.n_nodes).map(|n| format!("n{n}")).collect()
    }

    pub fn frontends(&self) -> Vec<String> {
        vec!["f1".into(), "f2".into()]
    }

    pub fn shards(&self) -> Vec<ShardId> {
        (1..=self.n_shards).map(ShardId).collect()
    }

    /// How many nodes may be away with every shard still served.
    pub fn n_may_fail(&self) -> usize {
        (self.n_voters - 1) / 2
    }
}
