//! `rookery ctl account rename`: an account gets another login and primary address, or its own anew.

use anyhow::{Context as _, Result, bail};
use mailbox::answer::{AccountRecord, GroupRecord};
use mailbox::command::{AccountChange, Place};
use mailbox::{AccountId, Address, Answer, Query, Refusal};

use crate::account::{Accounts, data_shards, half_done, parse_address, refuse_catch_all};
use crate::group::Groups;

/// Of an account that never moved.
const FIRST_EPOCH: u64 = 1;

/// How an operator names an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// Its login.
    Address(Address),
    /// Its identity, which leads to it when no address does.
    Id(AccountId),
}

impl Who {
    /// As operators write it: an address, or the id that `ctl account list --json` shows.
    pub fn parse(text: &str) -> Result<Self> {
        match text.parse() {
            Ok(id) => Ok(Self::Id(id)),
            Err(()) => parse_address(text).map(Self::Address),
        }
    }
}

impl Accounts<'_> {
    /// A new login and primary address. The old one stops to exist at the end, so that at every moment
    /// at least one of the two reaches the account; groups that had it have the new one, and are given
    /// back. The name it has already becomes its login anew, if the directory said something else.
    pub async fn rename(&self, who: &Who, new: &Address) -> Result<Vec<GroupRecord>> {
        refuse_catch_all(new)?;
        let place = match who {
            Who::Address(name) => self.place(name).await?,
            Who::Id(account) => self.search(*account).await?,
        };
        let record = self.record_at(&place).await?.with_context(|| match who {
            Who::Address(name) => half_done(name),
            Who::Id(account) => format!("no account {account}"),
        })?;
        let old = match who {
            Who::Address(name) => name,
            Who::Id(_) => &record.name,
        };
        check(old, new, &place, &record)?;
        self.claim(new, Place { alias: false, ..place }, "claim name").await?;
        if record.name != *new {
            self.change_at(&place, AccountChange::Name(new.clone())).await?;
        }
        if record.aliases.contains(new) {
            self.change_at(&place, AccountChange::RemoveAlias(new.clone())).await?;
        }
        // Why: a name that stays is never released.
        if old == new {
            return Ok(Vec::new());
        }
        let mut changed = Vec::new();
        if self.leads_to(old, place.account).await? {
            let groups = Groups::new(self.client);
            changed = groups.replace(std::slice::from_ref(old), Some(new)).await?;
            self.release(old, place.account).await?;
        }
        Ok(changed)
    }

    /// Where an account lives that no address may lead to.
    async fn search(&self, account: AccountId) -> Result<Place> {
        let (mut found, mut epoch) = (None, FIRST_EPOCH);
        for shard in data_shards(self.client) {
            match self.ask(shard, Query::Account(account)).await? {
                Answer::Account(_) => found = Some(shard),
                // Why: an older epoch than its other addresses have would lose against them.
                Answer::Refused(Refusal::Moved(to)) => epoch = epoch.max(to.epoch),
                _ => {}
            }
        }
        let shard = found.with_context(|| format!("no account {account}"))?;
        Ok(Place { account, shard, epoch, alias: false })
    }
}

/// Whether the account's login is what is to be changed, or a rename to this name was begun.
fn check(old: &Address, new: &Address, place: &Place, record: &AccountRecord) -> Result<()> {
    let name = &record.name;
    if old == name {
        return Ok(());
    }
    if place.alias || record.aliases.contains(old) {
        bail!(
            "{old} is an alias of {name}: rename {name}, or take the alias away with \
             `ctl account alias {name} {old} --remove`"
        );
    }
    if name != new {
        bail!("{old} was half renamed to {name}: `ctl account rename {old} {name}` completes that");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use mailbox::ShardId;
    use mailbox::command::{AccountState, Quota};

    use super::*;

    fn address(local: &str) -> Address {
        parse_address(&format!("{local}@example.test")).unwrap()
    }

    #[test]
    fn an_account_is_named_by_its_address_or_its_id() {
        let id = AccountId([0xa5; 16]);
        assert_eq!(Who::parse(&id.to_string()).unwrap(), Who::Id(id));
        assert_eq!(Who::parse("Ann@Example.test").unwrap(), Who::Address(address("ann")));
        assert!(Who::parse("ann").is_err());
    }

    #[test]
    fn only_a_login_is_renamed() {
        let account = AccountId([1; 16]);
        let record = AccountRecord {
            account,
            name: address("ann"),
            aliases: vec![address("alias")],
            password_hash: String::new(),
            state: AccountState::Active,
            quota: Quota::default(),
            storage_bytes: 0,
            n_messages: 0,
        };
        let place = |alias| Place { account, shard: ShardId(1), epoch: 1, alias };
        let refused = |old: &str, new: &str, alias| {
            let checked = check(&address(old), &address(new), &place(alias), &record);
            checked.err().map(|error| error.to_string())
        };
        assert_eq!(refused("ann", "bob", false), None);
        // What locked itself out is let in again by its own name.
        assert_eq!(refused("ann", "ann", true), None);
        for (old, alias) in [("alias", true), ("alias", false), ("other", true)] {
            for new in ["bob", "ann"] {
                let said = refused(old, new, alias).unwrap();
                assert!(said.contains("is an alias of ann@example.test: rename ann@"), "{said}");
            }
        }
        // A rename that was broken off is completed, and made to no third name.
        assert_eq!(refused("before", "ann", false), None);
        let said = refused("before", "bob", false).unwrap();
        assert!(said.contains("rename before@example.test ann@example.test"), "{said}");
    }
}
