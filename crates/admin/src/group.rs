//! Groups: one address, several accounts. Each verb is safe to repeat.

use anyhow::{Result, bail};
use api::client::Client;
use mailbox::answer::GroupRecord;
use mailbox::command::{Command, SetGroup};
use mailbox::{Address, Answer, Query};

use crate::account::{Accounts, data_shards};

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
        for shard in data_shards(self.client) {
            let mut after = None;
            loop {
                match self.accounts.ask(shard, Query::Groups(after.take())).await? {
                    Answer::Groups(page, more) => {
                        after = page.last().map(|group| group.address.clone());
                        all.extend(page);
                        if !more || after.is_none() {
                            break;
                        }
                    }
                    other => bail!("list groups: unexpected answer {other:?}"),
                }
            }
        }
        all.sort_by(|a, b| a.address.cmp(&b.address));
        Ok(all)
    }

    /// Puts one address in the place of others wherever they are members, or none; groups that had one
    /// of them, as they are now. A group that nobody is left in is gone.
    pub(crate) async fn replace(
        &self,
        old: &[Address],
        new: Option<&Address>,
    ) -> Result<Vec<GroupRecord>> {
        let mut changed = Vec::new();
        for mut group in self.list().await? {
            let n_members = group.members.len();
            group.members.retain(|member| !old.contains(member));
            if group.members.len() == n_members {
                continue;
            }
            group.members.extend(new.filter(|new| !group.members.contains(new)).cloned());
            self.change(&group.address, group.members.clone()).await?;
            changed.push(group);
        }
        Ok(changed)
    }

    async fn change(&self, address: &Address, members: Vec<Address>) -> Result<()> {
        let group = SetGroup { address: address.clone(), members };
        let shard = self.accounts.directory_shard(address)?;
        self.accounts.done(shard, Command::SetGroup(group), "set group").await
    }
}
