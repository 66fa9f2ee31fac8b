//! The one step that is not Raft: an operator makes one replica the only voter of its group, because the
//! others are lost for good. What only they had is lost with them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mailbox::ShardId;

use crate::disk::Disk;
use crate::error::Error;
use crate::local::{Local, Mark};
use crate::raft::{Entry, LeaderId, LogId, Member, Membership, Payload, Vote};

/// What a replica that was forced to stand alone has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forced {
    /// The last entry of its log before the one that was written by force.
    pub last_log_index: u64,
    /// Bodies may be missing here, and nobody is left to ask for them.
    pub lacked_bodies: bool,
}

impl Disk {
    /// Writes into the log of a replica that is stopped that it is the only voter. All its entries are
    /// committed when it starts again, also those that no majority ever had.
    pub async fn force_alone(
        self: &Arc<Self>,
        replica: u64,
        shard: ShardId,
        member: Member,
    ) -> Result<Forced, Error> {
        let claim = self.claim(replica, shard).await?;
        let vote = claim.log.vote();
        let Some(last) = claim.log.ends().0 else {
            let reason = "it has no history".into();
            return Err(Error::Lost { replica, reason });
        };
        let term = vote.map_or(0, |vote| vote.leader_id.term).max(last.leader_id.term) + 1;
        let leader_id = LeaderId { term, node_id: replica };
        let members = BTreeMap::from([(replica, member)]);
        let membership = Membership::new(vec![BTreeSet::from([replica])], members);
        let membership = membership.map_err(|error| Error::Raft(error.to_string()))?;
        let log_id = LogId { leader_id, index: last.index + 1 };
        let entry = Entry { log_id, payload: Payload::Membership(membership) };
        // Durability: vote and entry are synced, in this order, before anybody starts on them.
        claim.log.force(Vote::new(term, replica), entry).await.map_err(Error::io("force"))?;
        self.trust(replica).await;
        let local = Local { disk: self.clone(), replica };
        let lacked_bodies = local.is_marked(Mark::Incomplete);
        if lacked_bodies {
            local.unmark(Mark::Incomplete).map_err(Error::io("mark whole"))?;
        }
        Ok(Forced { last_log_index: last.index, lacked_bodies })
    }
}
