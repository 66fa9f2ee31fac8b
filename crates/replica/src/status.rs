//! What a replica says of itself.

use std::collections::BTreeMap;
use std::ops::Range;

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
    /// How long ago another replica led this one; `None` if none did since it was started.
    pub led_age_ms: Option<u64>,
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
    /// Only when it leads: members whose rows were found to differ.
    pub n_differing: u64,
    /// Last entry in its newest checkpoint.
    pub checkpoint: u64,
    /// Last entry cut from its log.
    pub purged: u64,
    /// It does not run, but is being started again: its index may have to be built, which takes long.
    pub is_starting: bool,
    /// Why it does not run.
    pub failed: Option<String>,
}

/// A member that did not answer for so long may be down.
const SILENT_MS: u64 = 1_000;

/// Who heard nothing of a leader for so long is not led, whoever it takes for the leader: some twenty
/// heartbeats, and longer than an election.
const LED_WITHIN_MS: u64 = 3_000;

impl Status {
    /// Whether somebody leads the group as far as is known here: a leader that a majority answers, or that
    /// was heard lately.
    pub fn is_led(&self) -> bool {
        let lately = |age_ms: Option<u64>| age_ms.is_some_and(|age_ms| age_ms < LED_WITHIN_MS);
        match self.role {
            Role::Leader => self.voters.len() <= 1 || lately(self.quorum_age_ms),
            Role::Follower | Role::Learner => self.leader.is_some() && lately(self.led_age_ms),
            Role::Candidate | Role::Stopped => false,
        }
    }

    /// Of a leader: whether another member answered lately.
    pub fn answers(&self, id: u64) -> bool {
        self.silent_ms.get(&id).is_some_and(|ms| *ms < SILENT_MS)
    }

    /// Of a leader: what the slowest of those members has that answer, and whose last entry is one of these.
    pub(crate) fn slowest_within(&self, entries: Range<u64>) -> Option<u64> {
        let members = self.matched.iter();
        let slow = members.filter(|(id, at)| entries.contains(*at) && self.answers(**id));
        slow.map(|(_, at)| *at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_hears_nothing_of_a_leader_is_not_led() {
        let member = Member { node: "n1".into(), disk_id: [1; 16] };
        let voters = (1..=3).map(|id| (id, member.clone())).collect();
        let leader = Some((1, member));
        let follower = Status { role: Role::Follower, leader, voters, ..Status::default() };
        let heard = |ms| Status { led_age_ms: Some(ms), ..follower.clone() };
        assert!(!follower.is_led(), "it was just started, and nobody told it anything");
        assert!(heard(200).is_led());
        assert!(!heard(5_000).is_led(), "its leader is gone");
        let leads = |quorum_age_ms| Status { role: Role::Leader, quorum_age_ms, ..heard(0) };
        assert!(leads(Some(200)).is_led());
        assert!(!leads(Some(5_000)).is_led(), "its majority is gone");
        assert!(!leads(None).is_led());
    }

    #[test]
    fn the_slowest_is_one_that_answers_and_lacks_little() {
        let matched = BTreeMap::from([(1, 1_000), (2, 100), (3, 800), (4, 900)]);
        let silent_ms = BTreeMap::from([(2, 100), (3, SILENT_MS), (4, 100)]);
        let status = Status { role: Role::Leader, matched, silent_ms, ..Status::default() };
        assert_eq!(status.slowest_within(1..1_000), Some(100));
        assert_eq!(status.slowest_within(500..1_000), Some(900), "the third one is away");
        assert_eq!(status.slowest_within(901..1_000), None, "it was waited for already");
        assert_eq!(status.slowest_within(500..900), None, "it has all of them");
    }
}
