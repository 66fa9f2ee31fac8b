//! Groups: one address, several accounts. Each verb is safe to repeat.

use anyhow::{Result, bail};
use api::client::Client;
use futures_util::future::try_join_all;
use mailbox::answer::GroupRecord;
use mailbox::command::{Command, SetGroup};
use mailbox::{Address, Answer, Outcome, Query, Refusal, ShardId};

use crate::account::{Accounts, data_shards, words};

/// Limit: how often a group is read anew because somebody else changed it meanwhile.
const ATTEMPTS_MAX: u32 = 20;

/// Limit: shards that are asked at once: who deletes an account waits for all of them.
const SHARDS_AT_ONCE: usize = 16;

/// The operator's hand on groups.
pub struct Groups<'a> {
    client: &'a Client,
    accounts: Accounts<'a>,
}

impl<'a> Groups<'a> {
    /// Works through this client.
    pub fn new(client: &'a Client) -> Self {
        Self { client, accounts: Accounts::new(client) }
    }

    /// Makes the address a group of exactly these. Each must be an account's address now: a group is
    /// no member of another, and mail is not sent elsewhere.
    pub async fn set(&self, address: &Address, members: Vec<Address>) -> Result<()> {
        for member in &members {
            self.accounts.place(member).await?;
        }
        self.change(address, members).await
    }

    /// Frees the address.
    pub async fn delete(&self, address: &Address) -> Result<()> {
        self.members(address).await?;
        self.change(address, Vec::new()).await
    }

    /// Who is in it.
    pub async fn members(&self, address: &Address) -> Result<Vec<Address>> {
        let shard = self.accounts.directory_shard(address)?;
        match self.accounts.ask(shard, Query::Resolve(address.clone())).await? {
            Answer::Group(members) => Ok(members),
            Answer::Place(Some(_)) => bail!("{address} is an account's address, not a group"),
            Answer::Place(None) => bail!("no group {address}"),
            other => bail!("look up {address}: unexpected answer {other:?}"),
        }
    }

    /// All groups, by address.
    pub async fn list(&self) -> Result<Vec<GroupRecord>> {
        let mut all: Vec<GroupRecord> = Vec::new();
        for some in data_shards(self.client).chunks(SHARDS_AT_ONCE) {
            let listing: Vec<_> = some.iter().map(|shard| self.of_shard(*shard)).collect();
            all.extend(try_join_all(listing).await?.into_iter().flatten());
        }
        all.sort_by(|a, b| a.address.cmp(&b.address));
        Ok(all)
    }

    async fn of_shard(&self, shard: ShardId) -> Result<Vec<GroupRecord>> {
        let mut all: Vec<GroupRecord> = Vec::new();
        loop {
            let after = all.last().map(|group| group.address.clone());
            match self.accounts.ask(shard, Query::Groups(after)).await? {
                Answer::Groups(page, more) => {
                    let more = more && !page.is_empty();
                    all.extend(page);
                    if !more {
                        return Ok(all);
                    }
                }
                other => bail!("list groups: unexpected answer {other:?}"),
            }
        }
    }

    /// Puts one address in the place of others wherever they are members, or none; groups that had one
    /// of them, as they are now. A group that nobody is left in is gone.
    pub(crate) async fn replace(
        &self,
        old: &[Address],
        new: Option<&Address>,
    ) -> Result<Vec<GroupRecord>> {
        let mut changed = Vec::new();
        for group in self.list().await? {
            changed.extend(self.replace_in(group, old, new).await?);
        }
        Ok(changed)
    }

    /// The group afterwards, if one of them was in it.
    async fn replace_in(
        &self,
        mut group: GroupRecord,
        old: &[Address],
        new: Option<&Address>,
    ) -> Result<Option<GroupRecord>> {
        let shard = self.accounts.directory_shard(&group.address)?;
        for _ in 0..ATTEMPTS_MAX {
            let Some(members) = replaced(&group.members, old, new) else { return Ok(None) };
            let expected = Some(std::mem::replace(&mut group.members, members.clone()));
            let set = SetGroup { address: group.address.clone(), members, expected };
            match self.accounts.tell(shard, Command::SetGroup(set)).await? {
                Outcome::Done => return Ok(Some(group)),
                // Somebody else changed it since it was read.
                Outcome::Refused(Refusal::Taken) => {}
                other => bail!("set group: {}", words(&other)),
            }
            match self.accounts.ask(shard, Query::Resolve(group.address.clone())).await? {
                Answer::Group(members) => group.members = members,
                Answer::Place(_) => return Ok(None),
                other => bail!("look up {}: unexpected answer {other:?}", group.address),
            }
        }
        bail!("group {} was changed by others all the time: try again", group.address)
    }

    async fn change(&self, address: &Address, members: Vec<Address>) -> Result<()> {
        let group = SetGroup { address: address.clone(), members, expected: None };
        let shard = self.accounts.directory_shard(address)?;
        self.accounts.done(shard, Command::SetGroup(group), "set group").await
    }
}

/// The members with one address in the place of others, or none; `None` if none of them is there.
fn replaced(members: &[Address], old: &[Address], new: Option<&Address>) -> Option<Vec<Address>> {
    let mut left = members.to_vec();
    left.retain(|member| !old.contains(member));
    if left.len() == members.len() {
        return None;
    }
    left.extend(new.filter(|new| !left.contains(new)).cloned());
    Some(left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::parse_address;

    #[test]
    fn one_address_takes_the_place_of_others_once() {
        let addresses = |locals: &[&str]| -> Vec<Address> {
            let address = |local: &&str| parse_address(&format!("{local}@example.test")).unwrap();
            locals.iter().map(address).collect()
        };
        let ann = &addresses(&["ann"]).remove(0);
        let (old, group) = (addresses(&["old", "alias"]), addresses(&["bob", "old", "alias"]));
        assert_eq!(replaced(&group, &old, Some(ann)), Some(addresses(&["bob", "ann"])));
        assert_eq!(replaced(&group, &old, None), Some(addresses(&["bob"])));
        let both = addresses(&["ann", "old"]);
        assert_eq!(replaced(&both, &old, Some(ann)), Some(addresses(&["ann"])));
        assert_eq!(replaced(&addresses(&["bob"]), &old, Some(ann)), None);
    }
}
