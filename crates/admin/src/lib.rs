//! `rookery ctl`: what an operator does to a cluster. Enter at [`run`]; the demo and the drill use the
//! modules directly.

pub mod account;
pub mod cert;
pub mod cluster;
pub mod cluster_file;
mod disk;
pub mod explain;
mod follow;
pub mod group;
pub mod message;
mod node;
mod password;
pub mod process;
pub mod relocate;
pub mod rename;
mod shard;
mod show;
pub mod survey;
pub mod target;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};

use account::{AccountState, Accounts, Quota, hash_password, parse_address};
use cert::Role;
use group::Groups;
use mailbox::answer::GroupRecord;
use mailbox::{Address, ShardId};
use rename::Who;
use show::say;
use target::{Target, TargetArgs};

/// `rookery ctl`
#[derive(Args)]
pub struct Ctl {
    #[command(flatten)]
    target: TargetArgs,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// The cluster's certificates
    #[command(subcommand)]
    Cert(CertVerb),
    /// The cluster as a whole
    #[command(subcommand)]
    Cluster(ClusterVerb),
    /// Storage nodes: list, add, drain, undrain, remove
    #[command(subcommand)]
    Node(node::NodeVerb),
    /// Disks: list, retire, scrub
    #[command(subcommand)]
    Disk(disk::DiskVerb),
    /// Shards: list, add, move, recover
    #[command(subcommand)]
    Shard(shard::ShardVerb),
    /// Accounts
    #[command(subcommand)]
    Account(AccountVerb),
    /// Addresses of several accounts at once
    #[command(subcommand)]
    Group(GroupVerb),
    /// Single messages
    #[command(subcommand)]
    Message(MessageVerb),
    /// What would happen if a node died now; exit with 0 when nothing would be lost or stand still
    Explain {
        /// Its name
        node: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
enum MessageVerb {
    /// Show every copy of a message: where it lies, when it was last verified, and whether it is good
    /// now; exit with 0 when all are
    Status {
        /// Login of the account
        account: String,
        /// Mailbox, parts of its name separated by /
        mailbox: String,
        /// UID of the message
        uid: u32,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
enum CertVerb {
    /// Create the cluster's authority in DIR
    Authority {
        /// Where ca.pem and ca-key.pem go
        #[arg(long)]
        dir: PathBuf,
    },
    /// Issue the identity of one process
    Issue {
        /// What it is
        #[arg(long)]
        role: Role,
        /// Its name in the cluster
        #[arg(long)]
        name: String,
        /// The authority's directory
        #[arg(long)]
        authority: PathBuf,
        /// Where ca.pem, cert.pem and key.pem go
        #[arg(long)]
        out: PathBuf,
    },
    /// Issue a certificate for mail clients to see, for two years (tests; a provider uses a public one)
    Server {
        /// Names and addresses of the frontend
        #[arg(long, required = true, value_delimiter = ',')]
        host: Vec<String>,
        /// The authority's directory
        #[arg(long)]
        authority: PathBuf,
        /// Where ca.pem, cert.pem and key.pem go
        #[arg(long)]
        out: PathBuf,
    },
}

#[derive(Subcommand)]
enum ClusterVerb {
    /// Form a cluster, once, from nodes that are running
    Init {
        /// Their names, separated by commas
        #[arg(long, required = true, value_delimiter = ',')]
        nodes: Vec<String>,
        /// Data shards; more can be added later. The index of each replica may take 64 MiB of its node's
        /// memory
        #[arg(long, default_value_t = 16)]
        shards: u32,
        /// Copies of everything, on as many nodes
        #[arg(long, default_value_t = cluster::N_REPLICAS)]
        replicas: u32,
    },
    /// Show nodes, disks, shards, leaders and lag
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Exit with 0 when every shard has a leader
    Health {
        /// And every copy of everything is present on every placed replica
        #[arg(long)]
        whole: bool,
    },
    /// Change a setting of the cluster
    Set {
        /// Its name: replace_after_s, seconds a node may be away before its replicas are made anew
        name: String,
        /// Its value; without one it becomes what it is when nobody says
        value: Option<String>,
    },
}

#[derive(Subcommand)]
enum AccountVerb {
    /// Create an account; the password comes from standard input
    Add {
        /// Login and address
        name: String,
        #[command(flatten)]
        quota: QuotaArgs,
    },
    /// Set a password, from standard input
    Passwd {
        /// Login and address
        name: String,
    },
    /// Change login and address, also in groups; to the present login, it works again when it did not
    Rename {
        /// Present login; or the id that `list --json` shows, when no address leads to the account
        name: String,
        /// Future login
        new: String,
    },
    /// Give an account one more address; `*@domain` gets what is for nobody there
    Alias {
        /// Login and address
        name: String,
        /// The other address, or `*@domain`
        alias: String,
        /// Take it away instead
        #[arg(long)]
        remove: bool,
    },
    /// Move an account to another shard while it is used; repeated, a move that was begun is finished; to
    /// the shard where it is, one that was begun is called off
    Move {
        /// Login and address
        name: String,
        /// Number of the shard
        shard: u32,
    },
    /// Refuse logins, and mail with a temporary error
    Suspend {
        /// Login and address
        name: String,
        /// Let it work again
        #[arg(long)]
        resume: bool,
    },
    /// Set limits; what is not given is without limit
    Quota {
        /// Login and address
        name: String,
        #[command(flatten)]
        quota: QuotaArgs,
    },
    /// List all accounts
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one account
    Show {
        /// Login or alias
        name: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Delete an account with all its mail, at once and for good; what `suspend` does can be undone
    Delete {
        /// Login and address
        name: String,
    },
}

#[derive(Subcommand)]
enum GroupVerb {
    /// Let mail for an address go to these accounts and no others
    Set {
        /// The group's address, or `*@domain`
        address: String,
        /// Addresses of accounts
        #[arg(required = true)]
        members: Vec<String>,
    },
    /// List all groups
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show who is in a group
    Show {
        /// The group's address
        address: String,
    },
    /// Free a group's address; its members keep their mail
    Delete {
        /// The group's address
        address: String,
    },
}

#[derive(Args)]
struct QuotaArgs {
    /// Octets of all messages
    #[arg(long)]
    storage_bytes: Option<u64>,
    /// Number of messages
    #[arg(long)]
    messages: Option<u64>,
}

impl From<&QuotaArgs> for Quota {
    fn from(args: &QuotaArgs) -> Self {
        Self { storage_bytes: args.storage_bytes, n_messages: args.messages }
    }
}

/// Does what the command line says.
pub fn run(ctl: Ctl) -> Result<ExitCode> {
    if let Verb::Cert(verb) = &ctl.verb {
        certificates(verb)?;
        return Ok(ExitCode::SUCCESS);
    }
    let target = Target::of_args(&ctl.target)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("start runtime")?.block_on(async {
        match ctl.verb {
            Verb::Cert(_) => Ok(ExitCode::SUCCESS),
            Verb::Cluster(verb) => of_cluster(&target, verb).await,
            Verb::Node(verb) => node::run(&target, verb).await.map(|()| ExitCode::SUCCESS),
            Verb::Disk(verb) => disk::run(&target, verb).await.map(|()| ExitCode::SUCCESS),
            Verb::Shard(verb) => shard::run(&target, verb).await.map(|()| ExitCode::SUCCESS),
            Verb::Account(verb) => of_account(&target, verb).await,
            Verb::Message(MessageVerb::Status { account, mailbox, uid, json }) => {
                let status = message::status(&target, (&account, &mailbox, uid)).await?;
                show::message(&status, json)?;
                Ok(exit(status.is_good()))
            }
            Verb::Explain { node, json } => {
                let status = cluster::status(&target).await?;
                let explanation = explain::explain(status.of_all()?, &node)?;
                show::explanation(&explanation, json)?;
                Ok(exit(explanation.is_safe()))
            }
            Verb::Group(verb) => of_group(&target, verb).await,
        }
    })
}

fn exit(is_good: bool) -> ExitCode {
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn certificates(verb: &CertVerb) -> Result<()> {
    match verb {
        CertVerb::Authority { dir } => cert::create_authority(dir),
        CertVerb::Issue { role, name, authority, out } => {
            cert::issue_identity(authority, *role, name, out)
        }
        CertVerb::Server { host, authority, out } => cert::issue_server(authority, host, out),
    }
}

async fn of_cluster(target: &Target, verb: ClusterVerb) -> Result<ExitCode> {
    match verb {
        ClusterVerb::Init { nodes, shards, replicas } => {
            let (n_shards, n_replicas) = (shards, replicas);
            cluster::init(target, &cluster::InitRequest { nodes, n_shards, n_replicas }).await?;
            say("the cluster is formed");
        }
        ClusterVerb::Status { json } => show::status(&cluster::status(target).await?, json)?,
        ClusterVerb::Health { whole } => {
            if let Err(error) = cluster::health(target, whole).await {
                say(format_args!("not healthy: {error:#}"));
                return Ok(ExitCode::FAILURE);
            }
            say("healthy");
        }
        ClusterVerb::Set { name, value } => {
            target.admin()?.set(&name, value.as_deref()).await.context("set")?;
            let value = value.as_deref().unwrap_or("what it is when nobody says");
            say(format_args!("{name} is {value}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn of_account(target: &Target, verb: AccountVerb) -> Result<ExitCode> {
    let client = target.client().await?;
    let accounts = Accounts::new(&client);
    match verb {
        AccountVerb::Add { name, quota } => {
            let hash = hash_password(&password::read()?)?;
            accounts.add(&parse_address(&name)?, hash, (&quota).into()).await?;
        }
        AccountVerb::Passwd { name } => {
            let hash = hash_password(&password::read()?)?;
            accounts.set_password(&parse_address(&name)?, hash).await?;
        }
        AccountVerb::Rename { name, new } => {
            let (who, new) = (Who::parse(&name)?, parse_address(&new)?);
            regrouped(&accounts.rename(&who, &new).await?, &name, Some(&new));
        }
        AccountVerb::Alias { name, alias, remove } => {
            let (name, alias) = (parse_address(&name)?, parse_address(&alias)?);
            if remove {
                let changed = accounts.remove_alias(&name, &alias).await?;
                regrouped(&changed, alias.as_str(), None);
            } else {
                accounts.add_alias(&name, &alias).await?;
            }
        }
        AccountVerb::Move { name, shard } => {
            let moved = relocate::relocate(&client, &parse_address(&name)?, ShardId(shard)).await;
            relocated(&name, shard, &moved.context("move account")?);
        }
        AccountVerb::Suspend { name, resume } => {
            let state = if resume { AccountState::Active } else { AccountState::Suspended };
            accounts.set_state(&parse_address(&name)?, state).await?;
        }
        AccountVerb::Quota { name, quota } => {
            let quota = Quota::from(&quota);
            accounts.set_quota(&parse_address(&name)?, quota).await?;
            say(format_args!("{name} may have {}", show::limits(&quota)));
        }
        AccountVerb::List { json } => {
            let mut all = Vec::new();
            for shard in account::data_shards(&client) {
                all.extend(accounts.of_shard(shard).await?.into_iter().map(|one| (shard, one)));
            }
            all.sort_by(|a, b| a.1.name.cmp(&b.1.name));
            show::accounts(&all, json)?;
        }
        AccountVerb::Show { name, json } => {
            let name = parse_address(&name)?;
            let record = accounts.record(&name).await?;
            let shard = accounts.home_shard(accounts.place(&name).await?).await?;
            show::account(shard, &record, json)?;
        }
        AccountVerb::Delete { name } => {
            regrouped(&accounts.delete(&parse_address(&name)?).await?, &name, None);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Says what came of a move.
fn relocated(name: &str, shard: u32, moved: &relocate::Relocated) {
    if let Some(other) = moved.called_off {
        say(format_args!("{name} stays on shard {shard}: its move to shard {other} is called off"));
        for other in &moved.unreached {
            say(format_args!(
                "  shard {other} may keep what came there: repeat this when it answers"
            ));
        }
        return;
    }
    let (n_rows, mib, ms) = (moved.n_rows, moved.n_bytes >> 20, moved.frozen.as_millis());
    say(format_args!("{name} is on shard {shard}: {n_rows} rows and {mib} MiB were copied"));
    say(format_args!("  for {ms} ms its mail could be read and not changed"));
}

/// Says what became of the groups that an address was in.
fn regrouped(groups: &[GroupRecord], old: &str, new: Option<&Address>) {
    for GroupRecord { address, members } in groups {
        match new {
            _ if members.is_empty() => {
                say(format_args!("group {address} has no member left and is gone"))
            }
            Some(new) => say(format_args!("group {address} has {new} instead of {old}")),
            None => say(format_args!("group {address} has {old} no more")),
        }
    }
}

async fn of_group(target: &Target, verb: GroupVerb) -> Result<ExitCode> {
    let client = target.client().await?;
    let groups = Groups::new(&client);
    match verb {
        GroupVerb::Set { address, members } => {
            let members = members.iter().map(|member| parse_address(member));
            groups.set(&parse_address(&address)?, members.collect::<Result<_>>()?).await?;
        }
        GroupVerb::List { json } => show::groups(&groups.list().await?, json)?,
        GroupVerb::Show { address } => {
            for member in groups.members(&parse_address(&address)?).await? {
                say(member);
            }
        }
        GroupVerb::Delete { address } => groups.delete(&parse_address(&address)?).await?,
    }
    Ok(ExitCode::SUCCESS)
}
