//! What a replica says of itself.

use std::collections::BTreeMap;

use mailbox::RowDigest;

use crate::raft::Member;

/// What a replica does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// It follows without voting, or was never given members.
    #[default]
    Learner,
    /// It follows and votes.
    Follower,
    /// It asks for votes.
    Candidate,
    /// It leads.
    Leader,
    /// It does not run: stopped, or failed.
    Stopped,
}

/// How a replica is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// What it does.
    pub role: Role,
    /// Its term.
    pub term: u64,
    /// Whom it takes for the leader.
    pub leader: Option<(u64, Member)>,
    /// Last entry in its log.
    pub last_log_index: u64,
    /// Last entry it knows to be committed.
    pub committed: u64,
    /// Last entry it applied.
    pub applied: u64,
    /// Additive digest of its rows after `applied`.
    pub digest: RowDigest,
    /// Members that vote; during a change of members those of both sides.
    pub voters: BTreeMap<u64, Member>,
    /// Members that only follow.
    pub learners: BTreeMap<u64, Member>,
    /// A change of members is under way.
    pub is_joint: bool,
    /// Only when it leads: the last entry known to be in each other member's log.
    pub matched: BTreeMap<u64, u64>,
    /// Only when it leads: how long ago each other member last answered; without those that never did.
    pub silent_ms: BTreeMap<u64, u64>,
    /// Only when it leads: how long ago a majority last answered.
    pub quorum_age_ms: Option<u64>,
    /// Bodies may be missing here; it does not campaign.
    pub is_incomplete: bool,
    /// Bodies known to be missing, as far as they were counted.
    pub missing_chunks: u64,
    /// Their bytes.
    pub missing_bytes: u64,
    /// Bytes of rows and bodies that came from peers since the core began.
    pub received_bytes: u64,
    /// It may not vote before its peers confirmed its state, or it was readmitted.
    pub is_unconfirmed: bool,
    /// Last entry in its newest checkpoint.
    pub checkpoint: u64,
    /// Last entry cut from its log.
    pub purged: u64,
    /// Why it does not run.
    pub failed: Option<String>,
}

/// A member that did not answer for so long may be down.
const SILENT_MS: u64 = 1_000;

impl Status {
    /// Of a leader: whether another member answered lately.
    pub fn answers(&self, id: u64) -> bool {
        self.silent_ms.get(&id).is_some_and(|ms| *ms < SILENT_MS)
    }
}
