//! Whole mailboxes: whether every copy of every body in them is there and right.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail};
use api::admin::{COPIES_MAX, ChunkCopy};
use api::client::Client;
use mailbox::command::{NamedMailbox, Place};
use mailbox::query::Messages;
use mailbox::{Answer, Digest, MailboxName, Query, ShardId, Uid, UidSet};

use crate::account::{Accounts, parse_address, trouble};
use crate::message::{SEPARATOR, of_replica};
use crate::target::Target;

/// How one replica keeps the bodies of some mailboxes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// Of which shard.
    pub shard: ShardId,
    /// Which.
    pub replica_id: u64,
    /// Name of its node.
    pub node: String,
    /// Chunks it should have; each was read there and compared with its digest.
    pub n_chunks: usize,
    /// Those it does not have.
    pub missing: Vec<Digest>,
    /// Those it has that are not what their digest says.
    pub damaged: Vec<Digest>,
}

/// Asks every replica of the account's shard for every chunk of these mailboxes. An error if one of them
/// does not answer.
pub async fn survey(target: &Target, account: &str, mailboxes: &[String]) -> Result<Vec<Survey>> {
    let client = target.client().await?;
    let place = Accounts::new(&client).place(&parse_address(account)?).await?;
    let mut wanted = BTreeSet::new();
    for mailbox in mailboxes {
        wanted.extend(chunks_of(&client, place, mailbox).await.context(mailbox.clone())?);
    }
    let wanted: Vec<Digest> = wanted.into_iter().collect();
    let admin = target.admin()?;
    let placement = client.placement();
    let placed = placement.shard(place.shard).context("its shard is not placed")?;
    let mut all = Vec::new();
    for replica in &placed.replicas {
        let mut one = Survey {
            shard: place.shard,
            replica_id: replica.replica_id,
            node: replica.node.clone(),
            n_chunks: wanted.len(),
            missing: Vec::new(),
            damaged: Vec::new(),
        };
        for some in wanted.chunks(COPIES_MAX) {
            let told = admin.copies(&replica.node, place.shard, some).await;
            let told = told.map_err(|error| error.to_string());
            let copies = told.and_then(|told| of_replica(told, replica.replica_id));
            let copies = copies.map_err(|why| {
                anyhow::anyhow!("replica {} on {}: {why}", replica.replica_id, replica.node)
            })?;
            one.note(some, &copies);
        }
        all.push(one);
    }
    Ok(all)
}

impl Survey {
    fn note(&mut self, asked: &[Digest], told: &[Option<ChunkCopy>]) {
        for (at, digest) in asked.iter().enumerate() {
            match told.get(at).copied().flatten() {
                None => self.missing.push(*digest),
                Some(copy) if !copy.is_good => self.damaged.push(*digest),
                Some(_) => {}
            }
        }
    }
}

/// Every chunk of every message in a mailbox.
async fn chunks_of(client: &Client, place: Place, mailbox: &str) -> Result<BTreeSet<Digest>> {
    let name = MailboxName::parse(mailbox, SEPARATOR).context("that is no name of a mailbox")?;
    let ask = async |query| client.query(place, query).await.map_err(trouble);
    let named = NamedMailbox { account: place.account, name };
    let of = match ask(Query::Mailbox(named)).await? {
        Answer::Mailbox(found) => found.of,
        _ => bail!("there is no such mailbox"),
    };
    let mut found = BTreeSet::new();
    let mut uids = UidSet::all();
    loop {
        let query = Messages {
            of,
            uids: uids.clone(),
            changed_since: None,
            metadata: false,
            chunks: true,
            expunged: false,
            only_envelope: false,
            recent_to: None,
        };
        let Answer::Messages(page, next) = ask(Query::Messages(query)).await? else {
            bail!("it cannot be listed");
        };
        for record in page {
            let body = record.body.context("its chunks were not told")?;
            let chunks = body.chunks.iter().chain(&record.metadata_chunks);
            found.extend(chunks.map(|chunk| chunk.digest));
        }
        let Some(next) = next else { return Ok(found) };
        uids = UidSet::range(next, Uid::LAST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_and_what_is_damaged_are_told_apart() {
        let copy = |is_good| Some(ChunkCopy { place: (1, 2), is_good, verified_at: None });
        let mut one = Survey {
            shard: ShardId(1),
            replica_id: 2,
            node: "n1".into(),
            n_chunks: 4,
            missing: Vec::new(),
            damaged: Vec::new(),
        };
        let asked = [1, 2, 3, 4].map(|n| Digest([n; 32]));
        one.note(&asked, &[copy(true), None, copy(false)]);
        assert_eq!(one.missing, [asked[1], asked[3]], "one was not answered at all");
        assert_eq!(one.damaged, [asked[2]]);
    }
}
