//! Accounts: the operator's verbs. Each is safe to repeat: a half-done one is completed.

use anyhow::{Context as _, Result, bail};
use api::client::Client;
use api::placement::META_SHARD;
use argon2::Argon2;
use argon2::password_hash::{PasswordHasher as _, SaltString};
use mailbox::answer::{AccountRecord, GroupRecord};
use mailbox::command::{
    AccountChange, ChangeAccount, ClaimAddress, Command, CreateAccount, Place, ReleaseAddress,
    SpecialUse,
};
use mailbox::dialogue::Trouble;
use mailbox::{AccountId, Address, Answer, MailboxName, Moving, Outcome, Query, Refusal, ShardId};

use crate::group::Groups;
use crate::relocate::is_leaving;

pub use mailbox::command::{AccountState, Quota};

/// The operator's hand on accounts.
pub struct Accounts<'a> {
    pub(crate) client: &'a Client,
}

/// Limit: shards that an account left, one after the other, since its address was looked up.
const HOPS_MAX: u32 = 4;

/// Mailboxes an account begins with, by the names that clients look for (RFC 6154).
const DEFAULT_MAILBOXES: &[(&str, SpecialUse)] = &[
    ("Archive", SpecialUse::Archive),
    ("Drafts", SpecialUse::Drafts),
    ("Junk", SpecialUse::Junk),
    ("Sent", SpecialUse::Sent),
    ("Trash", SpecialUse::Trash),
];

/// A PHC string (argon2id, default costs of OWASP's first choice as the package has them).
pub fn hash_password(password: &[u8]) -> Result<String> {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).ok().context("no randomness")?;
    let salt = SaltString::encode_b64(&salt).map_err(|error| anyhow::anyhow!("salt: {error}"))?;
    let hash = Argon2::default().hash_password(password, &salt);
    Ok(hash.map_err(|error| anyhow::anyhow!("hash password: {error}"))?.to_string())
}

/// An address as operators write it: without detail.
pub fn parse_address(text: &str) -> Result<Address> {
    match Address::parse(text) {
        Ok((address, None)) => Ok(address),
        Ok((_, Some(_))) => bail!("{text}: an account's address has no +detail"),
        Err(error) => bail!("{text}: {error}"),
    }
}

impl<'a> Accounts<'a> {
    /// Works through this client.
    pub fn new(client: &'a Client) -> Self {
        Self { client }
    }

    /// Creates an account; a half-created one of the same name is completed.
    pub async fn add(&self, name: &Address, password_hash: String, quota: Quota) -> Result<Place> {
        refuse_catch_all(name)?;
        let place = self.claim_new(name).await?;
        let mailboxes = DEFAULT_MAILBOXES.iter().filter_map(|(leaf, special_use)| {
            Some((MailboxName::new([leaf])?, Some(*special_use)))
        });
        let create = CreateAccount {
            account: place.account,
            name: name.clone(),
            password_hash,
            quota,
            mailboxes: mailboxes.collect(),
            subscribe: Some(true),
        };
        match self.tell(place.shard, Command::CreateAccount(create)).await? {
            Outcome::Done => {}
            Outcome::Refused(Refusal::Taken) => {
                bail!("{name} is half deleted: `ctl account delete {name}` frees it")
            }
            other => bail!("create account: {}", words(&other)),
        }
        self.claim_again(name, place).await?;
        Ok(place)
    }

    /// Claims the name of an account that was just created once more: as long as it was not there, `delete`
    /// could free it.
    async fn claim_again(&self, name: &Address, place: Place) -> Result<()> {
        let claim = Command::ClaimAddress(ClaimAddress { address: name.clone(), place });
        let leads_here = match self.tell(self.directory_shard(name)?, claim).await? {
            Outcome::Done => true,
            // Why: the account may have moved meanwhile, and its address with it.
            Outcome::Refused(Refusal::Taken) => self.leads_to(name, place.account).await?,
            other => bail!("claim {name} again: {}", words(&other)),
        };
        let record = self.record_at(&place).await?;
        let has_this_name = record.is_some_and(|record| record.name == *name);
        match (leads_here, has_this_name) {
            (true, true) => Ok(()),
            (false, true) => {
                let delete = Command::DeleteAccount(place.account);
                self.done_at(&place, delete, "delete what was created").await?;
                bail!("{name} went to somebody else meanwhile: what was created is deleted again")
            }
            (_, false) => {
                self.release(name, place.account).await?;
                bail!("{name} was deleted or renamed meanwhile")
            }
        }
    }

    /// A new password.
    pub async fn set_password(&self, name: &Address, password_hash: String) -> Result<()> {
        self.change(name, AccountChange::PasswordHash(password_hash)).await
    }

    /// New limits.
    pub async fn set_quota(&self, name: &Address, quota: Quota) -> Result<()> {
        self.change(name, AccountChange::Quota(quota)).await
    }

    /// Suspends or resumes.
    pub async fn set_state(&self, name: &Address, state: AccountState) -> Result<()> {
        self.change(name, AccountChange::State(state)).await
    }

    /// One more address.
    pub async fn add_alias(&self, name: &Address, alias: &Address) -> Result<()> {
        let place = Place { alias: true, ..self.place(name).await? };
        if self.record(name).await?.name == *alias {
            bail!("{alias} is the account's name already");
        }
        self.claim(alias, place, "claim alias").await?;
        self.change_at(&place, AccountChange::AddAlias(alias.clone())).await
    }

    /// One address less. Groups that had it have the account's name; they are given back.
    pub async fn remove_alias(&self, name: &Address, alias: &Address) -> Result<Vec<GroupRecord>> {
        let place = self.place(name).await?;
        let record = self.record(name).await?;
        if record.name == *alias {
            bail!("{alias} is the account's name: rename the account instead");
        }
        let leads_here = self.leads_to(alias, place.account).await?;
        // Why both: one that was half removed is in the directory alone.
        if !leads_here && !record.aliases.contains(alias) {
            bail!("{} has no alias {alias}", record.name);
        }
        let mut changed = Vec::new();
        if leads_here {
            let groups = Groups::new(self.client);
            changed = groups.replace(std::slice::from_ref(alias), Some(&record.name)).await?;
        }
        self.change_at(&place, AccountChange::RemoveAlias(alias.clone())).await?;
        self.release(alias, place.account).await?;
        Ok(changed)
    }

    /// Deletes an account with all its mail and addresses, and frees the address of one that was half
    /// created or half deleted. Gives back the groups that it was in.
    pub async fn delete(&self, name: &Address) -> Result<Vec<GroupRecord>> {
        let place = self.place(name).await?;
        self.refuse_leaving(name, place).await?;
        let record = self.record_at(&place).await?;
        let last = match &record {
            Some(record) if record.name != *name => vec![record.name.clone(), name.clone()],
            _ => vec![name.clone()],
        };
        let mut aliases = record.as_ref().map_or(Vec::new(), |record| record.aliases.clone());
        aliases.retain(|alias| !last.contains(alias));
        let mut all = Vec::new();
        for address in aliases.iter().chain(&last) {
            if self.leads_to(address, place.account).await? {
                all.push(address.clone());
            }
        }
        let changed = Groups::new(self.client).replace(&all, None).await?;
        // Why the aliases first: without the account nothing tells which they are. The name that was
        // given goes last, since it is how this is gone on with.
        for alias in &aliases {
            self.release(alias, place.account).await?;
        }
        if record.is_some() {
            self.done_at(&place, Command::DeleteAccount(place.account), "delete account").await?;
        }
        for address in &last {
            self.release(address, place.account).await?;
        }
        // Why: what was half created may have been completed before its name was freed.
        if record.is_none() && self.record_at(&place).await?.is_some() {
            self.done_at(&place, Command::DeleteAccount(place.account), "delete account").await?;
            self.release(name, place.account).await?;
        }
        Ok(changed)
    }

    /// What is known of one account.
    pub async fn record(&self, name: &Address) -> Result<AccountRecord> {
        let place = self.place(name).await?;
        self.record_at(&place).await?.with_context(|| half_done(name))
    }

    /// Everything known of all accounts of a shard.
    pub async fn of_shard(&self, shard: ShardId) -> Result<Vec<AccountRecord>> {
        let mut all: Vec<AccountRecord> = Vec::new();
        loop {
            let after = all.last().map(|record| record.account);
            match self.ask(shard, Query::Accounts(after)).await? {
                Answer::Accounts(page, more) => {
                    let more = more && !page.is_empty();
                    all.extend(page);
                    if !more {
                        return Ok(all);
                    }
                }
                other => bail!("list accounts: unexpected answer {other:?}"),
            }
        }
    }

    /// Where an account lives.
    pub async fn place(&self, name: &Address) -> Result<Place> {
        self.find(name).await?.with_context(|| format!("no account {name}"))
    }

    /// The shard that an account is on. Why not the one its address leads to: a move that broke off after the
    /// account left has not said so there.
    pub(crate) async fn home_shard(&self, place: Place) -> Result<ShardId> {
        let mut shard = place.shard;
        for _ in 0..HOPS_MAX {
            match self.moving(shard, place.account).await? {
                Some(Moving::Left { to }) => shard = to.shard,
                _ => break,
            }
        }
        Ok(shard)
    }

    async fn claim_new(&self, name: &Address) -> Result<Place> {
        let mut id = [0; 16];
        getrandom::fill(&mut id).ok().context("no randomness")?;
        let shards = data_shards(self.client);
        let index = usize::from(id[0]) * 256 + usize::from(id[1]);
        let shard = *shards.get(index % shards.len().max(1)).context("no shard to put it on")?;
        let place = Place { account: AccountId(id), shard, epoch: 1, alias: false };
        let claim = Command::ClaimAddress(ClaimAddress { address: name.clone(), place });
        match self.tell(self.directory_shard(name)?, claim).await? {
            Outcome::Done => return Ok(place),
            Outcome::Refused(Refusal::Taken) => {}
            other => bail!("claim {name}: {}", words(&other)),
        }
        let taken = self.place(name).await?;
        if self.record_at(&taken).await?.is_some() {
            bail!("{name} exists already");
        }
        let place = Place { alias: false, ..taken };
        if taken.alias {
            self.claim(name, place, "claim name").await?;
        }
        Ok(place)
    }

    /// Why beforehand: the shard would refuse it until nobody waits any more.
    async fn refuse_leaving(&self, name: &Address, place: Place) -> Result<()> {
        let mut shard = place.shard;
        for _ in 0..HOPS_MAX {
            match self.moving(shard, place.account).await? {
                Some(Moving::Left { to }) => shard = to.shard,
                Some(Moving::Leaving { to, .. }) => return Err(is_leaving(name, shard, to)),
                _ => break,
            }
        }
        Ok(())
    }

    /// How far an account is on its way from or to a shard.
    pub(crate) async fn moving(
        &self,
        shard: ShardId,
        account: AccountId,
    ) -> Result<Option<Moving>> {
        match self.ask(shard, Query::Moving(account)).await? {
            Answer::Moving(moving) => Ok(moving),
            other => bail!("look for a move: unexpected answer {other:?}"),
        }
    }

    pub(crate) async fn record_at(&self, place: &Place) -> Result<Option<AccountRecord>> {
        match self.client.query(*place, Query::Account(place.account)).await.map_err(trouble)? {
            Answer::Account(record) => Ok(Some(*record)),
            Answer::Refused(Refusal::NoSuchAccount) => Ok(None),
            other => bail!("show account: unexpected answer {other:?}"),
        }
    }

    async fn change(&self, name: &Address, change: AccountChange) -> Result<()> {
        let place = self.place(name).await?;
        self.change_at(&place, change).await
    }

    pub(crate) async fn change_at(&self, place: &Place, change: AccountChange) -> Result<()> {
        let change = ChangeAccount { account: place.account, change };
        self.done_at(place, Command::ChangeAccount(change), "change account").await
    }

    pub(crate) async fn claim(&self, address: &Address, place: Place, verb: &str) -> Result<()> {
        let claim = ClaimAddress { address: address.clone(), place };
        self.done(self.directory_shard(address)?, Command::ClaimAddress(claim), verb).await
    }

    /// The address is not this account's any more; somebody else may have it already.
    pub(crate) async fn release(&self, address: &Address, account: AccountId) -> Result<()> {
        let release = ReleaseAddress { address: address.clone(), account };
        let release = Command::ReleaseAddress(release);
        match self.tell(self.directory_shard(address)?, release).await? {
            Outcome::Done | Outcome::Refused(Refusal::Taken) => Ok(()),
            other => bail!("release address: {}", words(&other)),
        }
    }

    /// Whether it is this account's address. Why: its record may name one that it gave up.
    pub(crate) async fn leads_to(&self, address: &Address, account: AccountId) -> Result<bool> {
        let query = Query::Resolve(address.clone());
        let answer = self.ask(self.directory_shard(address)?, query).await?;
        Ok(matches!(answer, Answer::Place(Some(place)) if place.account == account))
    }

    /// Where the account lives that has an address.
    pub(crate) async fn find(&self, address: &Address) -> Result<Option<Place>> {
        let query = Query::Resolve(address.clone());
        match self.ask(self.directory_shard(address)?, query).await? {
            Answer::Place(place) => Ok(place),
            Answer::Group(_) => bail!("{address} is a group: see `ctl group`"),
            other => bail!("look up {address}: unexpected answer {other:?}"),
        }
    }

    pub(crate) fn directory_shard(&self, address: &Address) -> Result<ShardId> {
        let shard = self.client.placement().directory_shard(address.directory_slot());
        shard.context("no cluster was formed yet: `rookery ctl cluster init`")
    }

    pub(crate) async fn done(&self, shard: ShardId, command: Command, verb: &str) -> Result<()> {
        match self.tell(shard, command).await? {
            Outcome::Done => Ok(()),
            other => bail!("{verb}: {}", words(&other)),
        }
    }

    /// Wherever the account moved to.
    async fn done_at(&self, place: &Place, command: Command, verb: &str) -> Result<()> {
        match self.client.command(*place, command, Vec::new()).await.map_err(trouble)? {
            Outcome::Done => Ok(()),
            other => bail!("{verb}: {}", words(&other)),
        }
    }

    pub(crate) async fn tell(&self, shard: ShardId, command: Command) -> Result<Outcome> {
        self.client.command_shard(shard, command).await.map_err(trouble)
    }

    pub(crate) async fn ask(&self, shard: ShardId, query: Query) -> Result<Answer> {
        self.client.query_shard(shard, query).await.map_err(trouble)
    }
}

/// An account's name is one address.
pub(crate) fn refuse_catch_all(name: &Address) -> Result<()> {
    if name.is_catch_all() {
        bail!("{name} stands for a whole domain: make it an account's alias or a group");
    }
    Ok(())
}

/// An operator's words for an address that leads to no account.
pub(crate) fn half_done(name: &Address) -> String {
    format!(
        "{name} is half created or half deleted: `ctl account add {name}` completes the one, \
         `ctl account delete {name}` the other"
    )
}

/// The shards that keep accounts.
pub fn data_shards(client: &Client) -> Vec<ShardId> {
    let placement = client.placement();
    placement.shards.iter().map(|shard| shard.shard).filter(|id| *id != META_SHARD).collect()
}

/// An operator's words for what the store could not do.
pub(crate) fn trouble(trouble: Trouble) -> anyhow::Error {
    anyhow::anyhow!(match trouble {
        Trouble::Unavailable =>
            "no majority answered: see `ctl cluster status` for the nodes that are away",
        Trouble::Unknown => "no answer came in time: it may have been done; look before repeating",
        Trouble::Full => "the disks are full: add space or a node",
        Trouble::Damaged => "no good copy could be read: see `ctl cluster status`",
        Trouble::TooLarge => "too large",
        Trouble::Overloaded => "the store is overloaded: try again later",
    })
}

pub(crate) fn words(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Refused(Refusal::Taken) => "taken by another account or group".into(),
        Outcome::Refused(Refusal::Limit(what)) => format!("too many {what}"),
        Outcome::Refused(Refusal::NoSuchAccount) => "no such account".into(),
        Outcome::Refused(refusal) => format!("refused: {refusal:?}"),
        other => format!("unexpected outcome {other:?}"),
    }
}
