//! Clients: deliver, read, flag, move, copy and expunge at random, and write down what they saw.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drill::{Event, Operation, Placed, Record, Reply, Target, Verdict, View, ViewedMessage};
use mailbox::command::{
    Append, AppendMessage, Copy, CreateAccount, Deliver, Expunge, Move, OfMailbox, Quota, Store,
};
use mailbox::query::Messages;
use mailbox::{
    AccountId, Address, Answer, Bodies, Command, Digest, FlagChange, Flags, MailboxId, MailboxInfo,
    MailboxName, MessageRecord, NewMessage, Outcome, Query, ShardId, Source, StoredChunk,
    SystemFlags, Uid, UidSet, UploadId,
};

use crate::dice::Dice;
use crate::frontend::{Frontend, Trouble};
use crate::plan::Bug;

/// Bodies read per look.
const BODIES_PER_LOOK: usize = 3;
/// How often a look is repeated because the mailbox changed meanwhile.
const LOOKS_MAX: usize = 3;
const FLAGS: [(&str, SystemFlags); 4] = [
    ("\\Seen", SystemFlags::SEEN),
    ("\\Answered", SystemFlags::ANSWERED),
    ("\\Flagged", SystemFlags::FLAGGED),
    ("\\Draft", SystemFlags::DRAFT),
];

/// An account with its two mailboxes.
#[derive(Clone, Debug)]
pub struct Account {
    pub name: String,
    pub shard: ShardId,
    pub id: AccountId,
    pub mailboxes: BTreeMap<String, MailboxId>,
}

impl Account {
    /// The account kept by a shard.
    pub fn of(shard: ShardId) -> Self {
        let name = format!("u{shard}@example.test");
        Self { name, shard, id: AccountId([shard.0 as u8; 16]), mailboxes: BTreeMap::new() }
    }

    /// Creates it and learns its mailboxes; tried until it works.
    pub async fn create(mut self, frontend: &Frontend) -> Self {
        let name = Address::parse(&self.name).expect("an address").0;
        let archive = MailboxName::new(["Archive"]).expect("a name");
        let command = Command::CreateAccount(CreateAccount {
            account: self.id,
            name,
            password_hash: String::new(),
            quota: Quota::default(),
            subscribe: None,
            mailboxes: vec![(archive, None)],
        });
        while self.mailboxes.is_empty() {
            drop(frontend.command(self.shard, command.clone(), Vec::new()).await);
            let asked = frontend.query(self.shard, Query::Mailboxes(self.id)).await;
            if let Ok(Answer::Mailboxes(found, _)) = asked {
                self.mailboxes =
                    found.iter().map(|info| (info.name.join('/'), info.of.mailbox)).collect();
            }
        }
        self
    }

    fn of_mailbox(&self, name: &str) -> OfMailbox {
        OfMailbox { account: self.id, mailbox: self.mailboxes[name] }
    }

    /// Looks into a mailbox; flags, numbers, and the octets of some messages.
    pub async fn look(
        &self,
        frontend: &Frontend,
        name: &str,
        n_bodies: usize,
        dice: &Dice,
    ) -> Result<View, Trouble> {
        let of = self.of_mailbox(name);
        let mut info = self.info(frontend, of).await?;
        for n in 1.. {
            let Answer::Messages(found, None) = frontend.query(self.shard, everything(of)).await?
            else {
                return Err(Trouble::Unavailable);
            };
            let after = self.info(frontend, of).await?;
            let is_one_state = after.highest_modseq == info.highest_modseq;
            info = after;
            if is_one_state || n == LOOKS_MAX {
                let mut view = View {
                    uid_validity: info.uid_validity.0.get(),
                    uid_next: Some(info.uid_next.value()),
                    // Why: what was read in between is of one state only if nothing changed.
                    highest_modseq: is_one_state.then(|| info.highest_modseq.value()),
                    complete: true,
                    messages: found.iter().map(viewed).collect(),
                };
                let mut chosen: Vec<usize> = (0..found.len()).collect();
                while chosen.len() > n_bodies {
                    chosen.swap_remove(dice.range(0, chosen.len() as u64 - 1) as usize);
                }
                for at in chosen {
                    let digest = self.octets(frontend, &found[at]).await?;
                    view.messages[at].digest = Some(digest);
                }
                return Ok(view);
            }
        }
        Err(Trouble::Unavailable)
    }

    async fn info(&self, frontend: &Frontend, of: OfMailbox) -> Result<MailboxInfo, Trouble> {
        match frontend.query(self.shard, Query::Mailboxes(self.id)).await? {
            Answer::Mailboxes(all, _) => {
                all.into_iter().find(|info| info.of == of).ok_or(Trouble::Unavailable)
            }
            _ => Err(Trouble::Unavailable),
        }
    }

    /// Reads a message whole.
    async fn octets(
        &self,
        frontend: &Frontend,
        message: &MessageRecord,
    ) -> Result<String, Trouble> {
        let mut hasher = blake3::Hasher::new();
        for chunk in message.body.iter().flat_map(|body| &body.chunks) {
            hasher.update(&frontend.chunk(self.shard, *chunk).await?.bytes);
        }
        Ok(short(&hasher))
    }
}

/// How many bodies the rows of a shard speak of and that are not there.
pub fn n_missing_bodies(shard: ShardId, rows: &dyn Source, bodies: &dyn Bodies) -> usize {
    let account = Account::of(shard).id;
    let Answer::Mailboxes(all, _) = mailbox::answer(rows, bodies, &Query::Mailboxes(account))
    else {
        return 0;
    };
    let missing_in = |of: OfMailbox| match mailbox::answer(rows, bodies, &everything(of)) {
        Answer::Messages(found, _) => {
            let bodies_of = found.iter().flat_map(|message| &message.body);
            let chunks = bodies_of.flat_map(|body| &body.chunks);
            chunks.filter(|chunk| bodies.chunk(chunk).is_none()).count()
        }
        _ => 0,
    };
    all.iter().map(|info| missing_in(info.of)).sum()
}

fn everything(of: OfMailbox) -> Query {
    Query::Messages(Messages {
        of,
        uids: UidSet::all(),
        changed_since: None,
        metadata: true,
        chunks: true,
        expunged: false,
        only_envelope: false,
        recent_to: None,
    })
}

fn short(hasher: &blake3::Hasher) -> String {
    hasher.finalize().to_hex()[..16].to_owned()
}

fn names(flags: &Flags) -> BTreeSet<String> {
    let set = FLAGS.iter().filter(|(_, flag)| flags.system.contains(*flag));
    set.map(|(name, _)| (*name).to_owned()).collect()
}

fn viewed(message: &MessageRecord) -> ViewedMessage {
    let subject = message.metadata.as_ref().and_then(|data| data.envelope.subject.clone());
    ViewedMessage {
        uid: message.uid.value(),
        token: subject.map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default(),
        digest: None,
        flags: Some(names(&message.flags)),
        modseq: Some(message.modseq.value()),
    }
}

/// One client: does one thing at a time.
pub struct Client {
    pub id: u32,
    pub frontend: Arc<Frontend>,
    pub account: Account,
    pub dice: Dice,
    /// What it knows to be there.
    known: BTreeMap<String, BTreeMap<u32, String>>,
    n_sent: u32,
}

type Answered = Result<Reply, Verdict>;

impl Client {
    pub fn new(id: u32, frontend: Arc<Frontend>, account: Account, dice: Dice) -> Self {
        Self { id, frontend, account, dice, known: BTreeMap::new(), n_sent: 0 }
    }

    /// Works until the time is over.
    pub async fn work(mut self) {
        while !self.frontend.world.is_over() {
            let idle_ms = self.dice.range(1, 60);
            tokio::time::sleep(Duration::from_millis(idle_ms)).await;
            let mailbox = if self.dice.chance(700) { "INBOX" } else { "Archive" };
            let only_reads = self.frontend.world.plan.readers && self.frontend.name == "f2";
            match self.dice.range(0, 99) {
                _ if only_reads => self.read(mailbox).await,
                0..=34 => self.deliver().await,
                35..=59 => self.read(mailbox).await,
                60..=74 => self.store(mailbox).await,
                75..=86 => self.carry(mailbox, true).await,
                87..=90 => self.carry(mailbox, false).await,
                _ => self.expunge(mailbox).await,
            }
        }
    }

    async fn command(
        &self,
        command: Command,
        chunks: Vec<StoredChunk>,
    ) -> Result<Outcome, Verdict> {
        match self.frontend.command(self.account.shard, command, chunks).await {
            Ok(Outcome::Refused(why)) => Err(Verdict::Refused { why: format!("{why:?}") }),
            Ok(outcome) => Ok(outcome),
            Err(Trouble::Unavailable) => Err(Verdict::Refused { why: "unavailable".into() }),
            Err(Trouble::Unknown) => Err(Verdict::Unknown { why: "outcome lost".into() }),
        }
    }

    fn note(&self, start_us: u64, operation: Operation, answered: Answered) {
        let verdict = match answered {
            Ok(reply) => Verdict::Acknowledged { reply },
            Err(verdict) => verdict,
        };
        let world = &self.frontend.world;
        let (client, account, end_us) = (self.id, self.account.name.clone(), world.moment());
        let event = Event { client, account, start_us, end_us, operation, verdict };
        world.record(Record::Event(event));
    }

    /// LMTP, or APPEND with flags.
    async fn deliver(&mut self) {
        self.n_sent += 1;
        let token = format!("c{}t{}", self.id, self.n_sent);
        let (message, chunks, digest) = self.compose(&token);
        let flags = match self.dice.chance(300) {
            true => Flags { system: self.dice.pick(&FLAGS).1, keywords: BTreeSet::new() },
            false => Flags::default(),
        };
        let inbox = self.account.of_mailbox("INBOX");
        let command = if flags == Flags::default() {
            let account = self.account.id;
            Command::Deliver(Deliver { account, detail: None, message, internal_date: None })
        } else {
            let message = AppendMessage { message, flags: flags.clone(), internal_date: None };
            let (account, mailbox) = (inbox.account, inbox.mailbox);
            Command::Append(Append {
                account,
                mailbox,
                messages: vec![message],
                replaces: None,
                name: None,
            })
        };
        let start = self.frontend.world.moment();
        let answered = self.command(command, chunks).await.map(|outcome| match outcome {
            Outcome::Appended(appended) => Reply::Placed(Placed {
                uid_validity: appended.uid_validity.0.get(),
                uids: appended.uids.iter().map(Uid::value).collect(),
                sources: Vec::new(),
            }),
            _ => Reply::Done,
        });
        if let Ok(Reply::Placed(placed)) = &answered {
            for uid in &placed.uids {
                self.known.entry("INBOX".into()).or_default().insert(*uid, token.clone());
            }
        }
        let (mailbox, flags) = ("INBOX".into(), names(&flags));
        self.note(start, Operation::Deliver { mailbox, token, digest, flags }, answered);
    }

    /// A message with its token, some of whose octets other messages have too.
    fn compose(&self, token: &str) -> (NewMessage, Vec<StoredChunk>, String) {
        let head = format!("From: a@example.test\r\nSubject: {token}\r\n\r\n");
        let mut state = self.dice.next();
        let n_own = if self.dice.chance(100) { 30_000 } else { self.dice.range(0, 600) };
        let own = (0..n_own).map(|_| b'a' + (crate::entropy::next(&mut state) % 26) as u8);
        let first: Bytes = head.into_bytes().into_iter().chain(own).collect();
        let mut pieces = vec![first];
        if self.dice.chance(400) {
            let shared = vec![b'A' + self.dice.range(0, 3) as u8; 2_000];
            pieces.push(shared.into());
        }
        let raw: Vec<u8> = pieces.concat();
        let metadata = (&mime::scan(&raw)).into();
        let chunks: Vec<StoredChunk> = pieces.into_iter().map(StoredChunk::raw).collect();
        let refs: Vec<_> = chunks.iter().map(|chunk| chunk.chunk).collect();
        let digest = Digest::of_chunks(&refs);
        let message = NewMessage {
            chunks: refs,
            digest,
            size: raw.len() as u64,
            metadata,
            upload: None,
            metadata_chunks: Vec::new(),
        };
        let mut hasher = blake3::Hasher::new();
        hasher.update(&raw);
        (message, chunks, short(&hasher))
    }

    async fn read(&mut self, mailbox: &str) {
        let start = self.frontend.world.moment();
        let looked = self.account.look(&self.frontend, mailbox, BODIES_PER_LOOK, &self.dice).await;
        if let Ok(view) = &looked {
            let seen = view.messages.iter().map(|seen| (seen.uid, seen.token.clone()));
            self.known.insert(mailbox.into(), seen.collect());
        }
        let refused = |_| Verdict::Refused { why: "unavailable".into() };
        let operation = Operation::Read { mailbox: mailbox.into() };
        self.note(start, operation, looked.map(Reply::Viewed).map_err(refused));
    }

    /// Some message it knows of.
    fn target(&self, mailbox: &str) -> Option<(Target, UidSet)> {
        let known = self.known.get(mailbox).filter(|known| !known.is_empty())?;
        let at = self.dice.range(0, known.len() as u64 - 1) as usize;
        let (uid, token) = known.iter().nth(at)?;
        let mut uids = UidSet::new();
        uids.push(Uid::new(*uid)?);
        Some((Target { uid: *uid, token: token.clone() }, uids))
    }

    async fn store(&mut self, mailbox: &str) {
        let Some((target, uids)) = self.target(mailbox) else { return };
        let (name, system) = *self.dice.pick(&FLAGS);
        let flags = Flags { system, keywords: BTreeSet::new() };
        let (change, how) = match self.dice.range(0, 3) {
            0 => (FlagChange::Replace(flags), drill::FlagChange::Replace),
            1 => (FlagChange::Remove(flags), drill::FlagChange::Remove),
            _ => (FlagChange::Add(flags), drill::FlagChange::Add),
        };
        let OfMailbox { account, mailbox: id } = self.account.of_mailbox(mailbox);
        let command =
            Command::Store(Store { account, mailbox: id, uids, change, unchanged_since: None });
        let start = self.frontend.world.moment();
        let answered = match self.drops(Bug::DropStores) {
            true => Ok(Reply::Changed { uids: vec![target.uid] }),
            false => self.command(command, Vec::new()).await.map(|outcome| match outcome {
                Outcome::Stored(stored) => {
                    Reply::Changed { uids: stored.messages.iter().map(|m| m.uid.value()).collect() }
                }
                _ => Reply::Done,
            }),
        };
        let (mailbox, flags) = (mailbox.into(), BTreeSet::from([name.to_owned()]));
        let operation = Operation::Store { mailbox, targets: vec![target], change: how, flags };
        self.note(start, operation, answered);
    }

    /// MOVE or COPY to the other mailbox.
    async fn carry(&mut self, from: &str, is_move: bool) {
        let Some((target, uids)) = self.target(from) else { return };
        let to = if from == "INBOX" { "Archive" } else { "INBOX" };
        let (account, source) = (self.account.id, self.account.of_mailbox(from).mailbox);
        let into = self.account.of_mailbox(to).mailbox;
        let is_split = is_move && self.frontend.world.plan.bug == Some(Bug::NonAtomicMove);
        let staging = UploadId([self.dice.next() as u8; 16]);
        let copy = Copy {
            account,
            from: source,
            to: into,
            uids: uids.clone(),
            staging,
            to_name: None,
            whole: false,
            further: false,
        };
        let command = match is_move && !is_split {
            true => Command::Move(Move {
                account,
                from: source,
                to: into,
                uids: uids.clone(),
                to_name: None,
            }),
            false => Command::Copy(copy),
        };
        let start = self.frontend.world.moment();
        let mut answered = self.command(command, Vec::new()).await;
        if is_split && answered.is_ok() {
            let expunge = Expunge { account, mailbox: source, uids, only_deleted: false };
            let expunged = self.command(Command::Expunge(expunge), Vec::new()).await;
            answered = expunged.and(answered);
        }
        let answered = answered.map(|outcome| match outcome {
            Outcome::Copied(copied) => Reply::Placed(Placed {
                uid_validity: copied.uid_validity.0.get(),
                uids: copied.target.iter().map(Uid::value).collect(),
                sources: copied.source.iter().map(Uid::value).collect(),
            }),
            _ => Reply::Done,
        });
        if is_move {
            self.forget(from, target.uid);
        }
        let (from, to, targets) = (from.into(), to.into(), vec![target]);
        let operation = match is_move {
            true => Operation::Move { from, to, targets },
            false => Operation::Copy { from, to, targets },
        };
        self.note(start, operation, answered);
    }

    async fn expunge(&mut self, mailbox: &str) {
        let Some((target, uids)) = self.target(mailbox) else { return };
        let OfMailbox { account, mailbox: id } = self.account.of_mailbox(mailbox);
        let command = Command::Expunge(Expunge { account, mailbox: id, uids, only_deleted: false });
        let start = self.frontend.world.moment();
        let answered = match self.drops(Bug::DropExpunges) {
            true => Ok(Reply::Changed { uids: vec![target.uid] }),
            false => self.command(command, Vec::new()).await.map(|outcome| match outcome {
                Outcome::Expunged(expunged) => {
                    Reply::Changed { uids: expunged.uids.iter().map(Uid::value).collect() }
                }
                _ => Reply::Done,
            }),
        };
        self.forget(mailbox, target.uid);
        let (mailbox, targets) = (mailbox.into(), vec![target]);
        self.note(start, Operation::Expunge { mailbox, targets }, answered);
    }

    /// Whether a bug that is planted strikes now.
    fn drops(&self, bug: Bug) -> bool {
        self.frontend.world.plan.bug == Some(bug) && self.dice.chance(200)
    }

    fn forget(&mut self, mailbox: &str, uid: u32) {
        if let Some(known) = self.known.get_mut(mailbox) {
            known.remove(&uid);
        }
    }
}
