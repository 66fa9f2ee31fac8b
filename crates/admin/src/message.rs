//! One message: where its copies lie, and whether they are good.

use anyhow::{Context as _, Result, bail};
use api::admin::{COPIES_MAX, ChunkCopy, ReplicaCopies};
use api::placement::Placement;
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use mailbox::command::NamedMailbox;
use mailbox::query::Messages;
use mailbox::{Answer, Digest, MailboxName, Query, ShardId, Uid, UidSet};
use serde_json::{Value, json};

use crate::account::{Accounts, parse_address, trouble};
use crate::target::Target;

/// Separates the parts of a mailbox's name on the command line.
pub(crate) const SEPARATOR: char = '/';

/// What is known of a message.
pub struct MessageStatus {
    shard: ShardId,
    size: u64,
    digests: Vec<Digest>,
    copies: Vec<CopyStatus>,
}

/// One placed replica.
struct CopyStatus {
    node: String,
    replica_id: u64,
    disk: String,
    /// One for each chunk, or why there is no answer.
    chunks: Result<Vec<Option<ChunkCopy>>, String>,
}

/// Asks every replica of the message's shard.
pub async fn status(
    target: &Target,
    (account, mailbox, number): (&str, &str, u32),
) -> Result<MessageStatus> {
    let client = target.client().await?;
    let accounts = Accounts::new(&client);
    let place = accounts.place(&parse_address(account)?).await?;
    let name = MailboxName::parse(mailbox, SEPARATOR).context("that is no name of a mailbox")?;
    let ask = async |query| client.query(place, query).await.map_err(trouble);
    let named = NamedMailbox { account: place.account, name };
    let of = match ask(Query::Mailbox(named)).await? {
        Answer::Mailbox(found) => found.of,
        _ => bail!("{account} has no mailbox {mailbox}"),
    };
    let uid = Uid::new(number).context("UIDs begin with 1")?;
    let query = Messages {
        of,
        uids: UidSet::range(uid, uid),
        changed_since: None,
        metadata: false,
        chunks: true,
        expunged: true,
        only_envelope: false,
        recent_to: None,
    };
    let found = match ask(Query::Messages(query)).await? {
        Answer::Messages(found, _) => found.into_iter().next(),
        _ => None,
    };
    let found = found.with_context(|| format!("{mailbox} has no message {number}"))?;
    let body = found.body.context("its chunks were not told")?;
    let digests = body.chunks.iter().map(|chunk| chunk.digest).collect();
    // Order: who asked for the message was sent to wherever the account is.
    let shard = accounts.home_shard(place).await?;
    let mut status = MessageStatus { shard, size: found.size, digests, copies: Vec::new() };
    status.ask(target, &client.placement()).await?;
    Ok(status)
}

impl MessageStatus {
    async fn ask(&mut self, target: &Target, placement: &Placement) -> Result<()> {
        let admin = target.admin()?;
        let placed = placement.shard(self.shard).context("its shard is not placed")?;
        for replica in &placed.replicas {
            let mut chunks = Ok(Vec::new());
            for some in self.digests.chunks(COPIES_MAX) {
                let told = admin.copies(&replica.node, self.shard, some).await;
                let told = told.map_err(|error| error.to_string());
                let of_this = told.and_then(|told| of_replica(told, replica.replica_id));
                chunks = chunks.and_then(|mut chunks: Vec<_>| {
                    chunks.extend(of_this?);
                    Ok(chunks)
                });
            }
            self.copies.push(CopyStatus {
                node: replica.node.clone(),
                replica_id: replica.replica_id,
                disk: replica.disk_id.to_string(),
                chunks,
            });
        }
        Ok(())
    }

    /// Whether every placed replica has every chunk, and each was read and is right.
    pub fn is_good(&self) -> bool {
        let is_good = |copy: &CopyStatus| {
            let chunks = copy.chunks.as_deref().unwrap_or_default();
            chunks.len() == self.digests.len() && chunks.iter().all(good)
        };
        self.copies.iter().all(is_good)
    }

    /// For people.
    pub fn table(&self, now_ms: u64) -> String {
        let mut table = Table::new();
        table.load_preset(NOTHING);
        table.set_header([
            "chunk",
            "node",
            "replica",
            "disk",
            "segment",
            "offset",
            "last scrubbed",
            "now",
        ]);
        for copy in &self.copies {
            let (node, replica) = (copy.node.clone(), copy.replica_id.to_string());
            let chunks = match &copy.chunks {
                Ok(chunks) => chunks,
                Err(why) => {
                    let disk = short(&copy.disk);
                    let nothing = || "-".to_owned();
                    table.add_row([
                        "all".into(),
                        node,
                        replica,
                        disk,
                        nothing(),
                        nothing(),
                        nothing(),
                        format!("NO ANSWER: {why}"),
                    ]);
                    continue;
                }
            };
            for (digest, chunk) in self.digests.iter().zip(chunks) {
                let place = chunk.map(|chunk| chunk.place);
                let verified = chunk.and_then(|chunk| chunk.verified_at);
                table.add_row([
                    short(&digest.to_string()),
                    node.clone(),
                    replica.clone(),
                    short(&copy.disk),
                    place.map_or("-".into(), |(segment, _)| segment.to_string()),
                    place.map_or("-".into(), |(_, offset)| offset.to_string()),
                    verified.map_or("not yet".into(), |at| ago(now_ms.saturating_sub(at.0))),
                    words(chunk).into(),
                ]);
            }
        }
        let (n_good, n_all) = (self.n_good(), self.copies.len());
        let n_chunks = self.digests.len();
        format!(
            "shard {}, {} octets, {n_chunks} chunks; {n_good} of {n_all} copies are whole and good\n{table}",
            self.shard, self.size
        )
    }

    fn n_good(&self) -> usize {
        let is_good = |copy: &&CopyStatus| {
            copy.chunks
                .as_ref()
                .is_ok_and(|chunks| chunks.len() == self.digests.len() && chunks.iter().all(good))
        };
        self.copies.iter().filter(is_good).count()
    }

    /// For programs.
    pub fn to_json(&self) -> Value {
        let chunk = |(digest, chunk): (&Digest, &Option<ChunkCopy>)| {
            json!({
                "digest": digest.to_string(),
                "present": chunk.is_some(),
                "segment": chunk.map(|chunk| chunk.place.0),
                "offset": chunk.map(|chunk| chunk.place.1),
                "good": good(chunk),
                "verified_at_ms": chunk.and_then(|chunk| chunk.verified_at).map(|at| at.0),
            })
        };
        let copy = |copy: &CopyStatus| {
            let chunks = copy.chunks.as_ref().ok();
            json!({
                "node": copy.node,
                "replica": copy.replica_id,
                "disk": copy.disk,
                "error": copy.chunks.as_ref().err(),
                "chunks": chunks.map(|chunks| {
                    self.digests.iter().zip(chunks).map(chunk).collect::<Vec<_>>()
                }),
            })
        };
        json!({
            "shard": self.shard.0,
            "size_bytes": self.size,
            "good": self.is_good(),
            "n_good_copies": self.n_good(),
            "copies": self.copies.iter().map(copy).collect::<Vec<_>>(),
        })
    }
}

/// What was told of one replica.
pub(crate) fn of_replica(
    told: Vec<ReplicaCopies>,
    replica_id: u64,
) -> Result<Vec<Option<ChunkCopy>>, String> {
    let ours = told.into_iter().find(|one| one.replica_id == replica_id);
    ours.map(|one| one.copies).ok_or_else(|| "the replica does not run there".to_owned())
}

fn good(chunk: &Option<ChunkCopy>) -> bool {
    chunk.is_some_and(|chunk| chunk.is_good)
}

fn words(chunk: &Option<ChunkCopy>) -> &'static str {
    match chunk {
        None => "MISSING",
        Some(chunk) if chunk.is_good => "good",
        Some(_) => "DAMAGED",
    }
}

fn short(id: &str) -> String {
    id.chars().take(12).collect()
}

/// How long ago, roughly.
pub(crate) fn ago(ms: u64) -> String {
    match ms / 1000 {
        s @ 0..=119 => format!("{s} s ago"),
        s @ 120..=7199 => format!("{} min ago", s / 60),
        s @ 7200..=172_799 => format!("{} h ago", s / 3600),
        s => format!("{} days ago", s / 86_400),
    }
}
