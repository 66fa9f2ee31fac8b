//! Whether the state this replica woke up with is the one it had: its peers remember the highest
//! vote it gave and the last entry it acknowledged. A disk that was rolled back knows less than
//! they do, and must not vote on a history it has not got.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use api::peer::PeerError;
use bytes::Bytes;
use openraft::errors::Fatal;

use crate::core::Core;
use crate::handler::refused;
use crate::raft::{LogId, Member, StoredMembership, Types, Vote};
use crate::wire::{self, Seen, SeenAnswer, kind};

/// How long a peer may take to say what it saw, which it knows without its disk. Then all are asked again:
/// meanwhile this replica counts for nothing in its group, and the members may become others. Where a
/// request may take longer than usual, longer.
const ANSWER_MAX: Duration = Duration::from_millis(500);

fn answer_within(patience: Duration) -> Duration {
    patience.min(ANSWER_MAX).max(patience / 4)
}

/// What was seen of other replicas: by this one since it started, and what they themselves said they
/// had when it started.
///
/// Of a vote no log is noted: a disk keeps what came before the vote if it keeps the vote, and what
/// the voter had beyond its candidate's log is taken from it next.
#[derive(Default)]
pub(crate) struct Memory {
    seen: Mutex<BTreeMap<u64, Seen>>,
    /// Who asked for a vote before this replica could give one. The members it knows may be those of
    /// before: who would lead it now knows them better.
    askers: Mutex<BTreeMap<u64, Member>>,
}

/// Limit: askers that are remembered. A group has at most five voters, and twice as many in a change.
const ASKERS_MAX: usize = 10;

impl Memory {
    /// A replica showed this vote and acknowledged this entry under it, both synced there.
    pub fn note(&self, replica: u64, vote: Vote, log_id: Option<LogId>) {
        let mut memory = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = memory.entry(replica).or_default();
        if is_older(seen, vote, log_id) {
            *seen = Seen { vote: Some(vote), log_id };
        }
    }

    /// What was seen of one.
    pub fn of(&self, replica: u64) -> Seen {
        let memory = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        memory.get(&replica).cloned().unwrap_or_default()
    }

    /// Somebody asked for a vote that cannot be given yet.
    pub fn was_asked_by(&self, replica: u64, member: Member) {
        let mut askers = self.askers.lock().unwrap_or_else(PoisonError::into_inner);
        if askers.len() >= ASKERS_MAX && !askers.contains_key(&replica) {
            // Why the least: ids are never used again, and so it is the oldest.
            askers.pop_first();
        }
        askers.insert(replica, member);
    }

    fn askers(&self) -> BTreeMap<u64, Member> {
        self.askers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Whether `seen` lies before a state. A greater vote is a later state whatever the log: entries
/// may have been replaced under it.
fn is_older(seen: &Seen, vote: Vote, log_id: Option<LogId>) -> bool {
    match &seen.vote {
        None => true,
        Some(before) if before.leader_id == vote.leader_id => seen.log_id < log_id,
        Some(before) => before.leader_id < vote.leader_id,
    }
}

impl Seen {
    /// Whether a replica whose last acknowledgement this is, to the leader with this vote, has lost
    /// something if it does not know an entry of that leader.
    pub fn covers(&self, vote: &Vote, entry: &LogId) -> bool {
        let is_same = self.vote.is_some_and(|seen| seen.leader_id == vote.leader_id);
        is_same && self.log_id.is_some_and(|last| *entry <= last)
    }

    /// Whether it shows more than a replica with this vote and this last entry can have shown.
    fn is_beyond(&self, vote: Option<&Vote>, last: Option<LogId>) -> bool {
        match (&self.vote, vote) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(theirs), Some(vote)) if theirs.leader_id == vote.leader_id => self.log_id > last,
            (Some(theirs), Some(vote)) => theirs.leader_id > vote.leader_id,
        }
    }
}

/// What the peers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// A majority saw nothing newer.
    Confirmed,
    /// Too few answered yet.
    Open,
    /// Somebody saw more than is here.
    RolledBack,
}

impl Core {
    /// Whether a peer saw more of this replica than is here.
    pub fn has_lost(&self, seen: &Seen) -> bool {
        let log = &self.applying.log;
        seen.is_beyond(log.vote().as_ref(), log.ends().0)
    }

    /// Asks all peers what they saw of this replica, and notes what they have: those that ask this one
    /// later must not find that it forgot them when it was restarted.
    pub async fn confirm(&self) -> Verdict {
        if self.claim.disk.is_held(self.network.shard) {
            return Verdict::Open;
        }
        let Some(vote) = self.applying.log.vote() else {
            // Why confirmed: who never voted has never acknowledged anything either.
            return Verdict::Confirmed;
        };
        let last = self.applying.log.ends().0;
        let Ok(mut members) = self.members().await else { return Verdict::Open };
        let me = self.claim.replica;
        let mut asked = self.memory.askers();
        asked.extend(voters(&members));
        asked.remove(&me);
        let asking = asked.iter().map(|(id, member)| {
            let peer = self.network.peer(*id, member);
            async move {
                let patience = answer_within(peer.patience());
                let asked = peer.call(kind::SEEN, Bytes::new(), Vec::new(), patience).await;
                let meta = asked.map_err(|error| error.to_string())?.meta;
                let answer = wire::read_seen_answer(meta).map_err(|error| error.to_string())?;
                Ok::<_, String>((peer.id(), answer))
            }
        });
        let mut answered = BTreeSet::from([me]);
        for answer in futures_util::future::join_all(asking).await {
            let Ok((peer, SeenAnswer { seen, own, members: theirs })) = answer else { continue };
            if let Seen { vote: Some(vote), log_id } = own {
                self.memory.note(peer, vote, log_id);
            }
            if seen.is_beyond(Some(&vote), last) {
                return Verdict::RolledBack;
            }
            answered.insert(peer);
            if theirs.log_id() > members.log_id() {
                members = theirs;
            }
        }
        // Who is a member now and was not before is asked the next time.
        for (id, member) in voters(&members).filter(|(id, _)| !answered.contains(id)) {
            self.memory.was_asked_by(id, member);
        }
        // Why of the members of now: those of before may be gone, and never answer again.
        let n_voters = members.voter_ids().count();
        let n_answers = members.voter_ids().filter(|id| answered.contains(id)).count();
        if n_voters == 0 || n_answers > n_voters / 2 { Verdict::Confirmed } else { Verdict::Open }
    }

    /// What another replica is told that asks what was seen of it.
    pub async fn tell_seen(&self, replica: u64) -> Result<Bytes, PeerError> {
        let members = self.members().await.map_err(refused)?;
        let (seen, own) = (self.memory.of(replica), self.applying.log.shown());
        Ok(wire::put_seen_answer(&SeenAnswer { seen, own, members }))
    }

    /// Who the members are as far as this replica knows.
    pub async fn members(&self) -> Result<StoredMembership, Fatal<Types>> {
        // Why not the status: before openraft has told its metrics it knows of no voters.
        let effective = self.raft.with_raft_state(|state| {
            let effective = state.membership_state.effective();
            StoredMembership::new(*effective.log_id(), effective.membership().clone())
        });
        effective.await
    }
}

/// The voters, those of both sides while they change.
fn voters(members: &StoredMembership) -> impl Iterator<Item = (u64, Member)> {
    members.voter_ids().filter_map(|id| Some((id, members.get_node(&id)?.clone())))
}

#[cfg(test)]
mod tests {
    use openraft::raft::VoteRequest;

    use super::*;
    use crate::raft::{LeaderId, Membership};

    fn log_id(term: u64, index: u64) -> Option<LogId> {
        Some(LogId { leader_id: LeaderId { term, node_id: 1 }, index })
    }

    #[test]
    fn who_answers_tells_of_itself_and_of_the_members_and_older_builds_do_without() {
        let member = Member { node: "n1".into(), disk_id: [7; 16] };
        let group = Membership::new(vec![[5].into()], BTreeMap::from([(5, member.clone())]));
        let answer = SeenAnswer {
            seen: Seen { vote: Some(Vote::new(3, 1)), log_id: log_id(3, 9) },
            own: Seen { vote: Some(Vote::new(4, 1)), log_id: None },
            members: StoredMembership::new(log_id(3, 2), group.unwrap()),
        };
        assert_eq!(wire::read_seen_answer(wire::put_seen_answer(&answer)).unwrap(), answer);
        assert_eq!(voters(&answer.members).collect::<Vec<_>>(), [(5, member.clone())]);
        let told = wire::put_seen_answer(&answer);
        assert_eq!(wire::read_seen(told.clone()).unwrap(), answer.seen);
        let of_itself = wire::put_seen(&answer.seen).len() + wire::put_seen(&answer.own).len();
        let older = wire::read_seen_answer(told.slice(..of_itself)).unwrap();
        assert_eq!(older, SeenAnswer { members: StoredMembership::default(), ..answer.clone() });
        let oldest = wire::read_seen_answer(wire::put_seen(&answer.seen)).unwrap();
        assert_eq!(oldest, SeenAnswer { seen: answer.seen, ..SeenAnswer::default() });

        let request = VoteRequest::new(Vote::new(4, 1), log_id(3, 9));
        let (told, older) =
            (wire::put_pre_vote(&request, &member), wire::put_vote_request(&request));
        assert_eq!(wire::read_vote_request(told.clone()).unwrap(), request);
        assert_eq!(wire::read_pre_vote(told).unwrap(), (request.clone(), Some(member)));
        assert_eq!(wire::read_pre_vote(older).unwrap(), (request, None));
    }

    #[test]
    fn peers_may_take_longer_to_answer_where_the_times_are_longer() {
        assert_eq!(answer_within(crate::timing::Timing::default().peer), ANSWER_MAX);
        assert_eq!(answer_within(Duration::from_secs(12)), Duration::from_secs(3));
        assert_eq!(answer_within(Duration::from_millis(80)), Duration::from_millis(80));
    }

    #[test]
    fn as_many_askers_as_there_can_be_are_remembered() {
        let memory = Memory::default();
        for id in 0..30 {
            memory.was_asked_by(id, Member::default());
            memory.was_asked_by(id, Member::default());
        }
        assert!(memory.askers().into_keys().eq(20..30));
    }

    #[test]
    fn a_greater_vote_is_later_whatever_the_log() {
        let memory = Memory::default();
        memory.note(7, Vote::new(1, 1), log_id(1, 10));
        memory.note(7, Vote::new(1, 1), log_id(1, 9));
        assert_eq!(memory.of(7).log_id, log_id(1, 10));
        memory.note(7, Vote::new(2, 1), log_id(1, 8));
        assert_eq!(memory.of(7), Seen { vote: Some(Vote::new(2, 1)), log_id: log_id(1, 8) });
        memory.note(7, Vote::new(1, 1), log_id(1, 12));
        assert_eq!(memory.of(7).log_id, log_id(1, 8));
        assert_eq!(memory.of(8), Seen::default());
    }
}
