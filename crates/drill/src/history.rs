//! What the clients of a mail store did and saw. One JSON object per line, so that a history can be
//! written while it happens, kept, and judged again.
//!
//! All times are microseconds of one clock that never goes back. Every message carries a token that
//! is written once: two messages with the same token are two copies of one message.

use std::collections::BTreeSet;
use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize};

/// One line of a stored history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Record {
    /// A client did something.
    Event(Event),
    /// A client lost its connection.
    Disconnect {
        /// Whose.
        client: u32,
        /// When.
        at_us: u64,
    },
    /// A client waited to be told of something new.
    Idle {
        /// Which.
        client: u32,
        /// In whose account.
        account: String,
        /// What it watched.
        mailbox: String,
        /// It waited from here.
        start_us: u64,
        /// It was told here, or gave up.
        end_us: u64,
        /// Which of both.
        is_told: bool,
    },
    /// The store was hurt.
    Fault(Fault),
    /// After everything came to rest, this is what a mailbox held.
    Final {
        /// Whose mailbox.
        account: String,
        /// Which mailbox.
        mailbox: String,
        /// Its content, complete.
        view: View,
    },
    /// After everything came to rest, this is what a replica held.
    Replica(ReplicaState),
    /// After everything came to rest, this is how a replica kept the bodies of one account.
    Copies(Copies),
}

/// Something done to the store, for the reader of a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What was done and to whom.
    pub name: String,
    /// When it began.
    pub start_us: u64,
    /// When it was taken back; the same as `start_us` for a crash.
    pub end_us: u64,
}

/// The rows of a replica in one number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaState {
    /// Of which shard.
    pub shard: u32,
    /// Which replica; never reused.
    pub replica: u64,
    /// Index of the last applied entry.
    pub applied: u64,
    /// Digest over all rows.
    pub digest: String,
}

/// The bodies of an account's messages as one replica has them. Each was read and verified there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copies {
    /// Whose messages.
    pub account: String,
    /// Of which shard.
    pub shard: u32,
    /// Which replica.
    pub replica: u64,
    /// Name of its node.
    pub node: String,
    /// Chunks that it should have.
    pub n_chunks: usize,
    /// Digests of those it does not have.
    pub missing: Vec<String>,
    /// Digests of those whose octets are others.
    pub damaged: Vec<String>,
}

/// One operation of one client, from just before it was asked until just after it was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Who; a client does one thing at a time.
    pub client: u32,
    /// In whose account.
    pub account: String,
    /// Before this nothing of it can have happened.
    pub start_us: u64,
    /// When the answer was there, or the client gave up.
    pub end_us: u64,
    /// What was asked.
    pub operation: Operation,
    /// What came of it.
    pub verdict: Verdict,
}

/// What a client asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub enum Operation {
    /// LMTP, and APPEND.
    Deliver {
        /// Where to.
        mailbox: String,
        /// Written into the message, and into no other.
        token: String,
        /// Of the octets as they must come back.
        digest: String,
        /// Flags it begins with.
        flags: BTreeSet<String>,
    },
    /// STORE
    Store {
        /// Where.
        mailbox: String,
        /// Which.
        targets: Vec<Target>,
        /// How.
        change: FlagChange,
        /// Which flags.
        flags: BTreeSet<String>,
    },
    /// MOVE
    Move {
        /// Where from.
        from: String,
        /// Where to.
        to: String,
        /// Which, by their UIDs in `from`.
        targets: Vec<Target>,
    },
    /// COPY
    Copy {
        /// Where from.
        from: String,
        /// Where to.
        to: String,
        /// Which, by their UIDs in `from`.
        targets: Vec<Target>,
    },
    /// EXPUNGE, and POP3's QUIT after DELE.
    Expunge {
        /// Where.
        mailbox: String,
        /// Which.
        targets: Vec<Target>,
    },
    /// SELECT and FETCH, or POP3's LIST and RETR.
    Read {
        /// What.
        mailbox: String,
    },
}

impl Operation {
    /// The mailboxes it is about.
    pub(crate) fn mailboxes(&self) -> impl Iterator<Item = &str> {
        let (one, other) = match self {
            Self::Deliver { mailbox, .. }
            | Self::Store { mailbox, .. }
            | Self::Expunge { mailbox, .. }
            | Self::Read { mailbox } => (mailbox, None),
            Self::Move { from, to, .. } | Self::Copy { from, to, .. } => (from, Some(to)),
        };
        std::iter::once(one).chain(other).map(String::as_str)
    }
}

/// A message as a client knows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Target {
    /// In the mailbox of the operation.
    pub uid: u32,
    /// Read from the message earlier.
    pub token: String,
}

/// What STORE does with flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlagChange {
    /// These and no others.
    Replace,
    /// These too.
    Add,
    /// No more these.
    Remove,
}

/// What came of an operation, as far as the client can know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// The store took it on.
    Acknowledged {
        /// What it said.
        reply: Reply,
    },
    /// The store said that it was not and will not be done.
    Refused {
        /// Its words.
        why: String,
    },
    /// No answer, or one that leaves it open: it may be done, now or later.
    Unknown {
        /// What was seen.
        why: String,
    },
}

/// What the store said when it took an operation on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// Nothing more than that; all targets count as done.
    Done,
    /// These of the targets were there and were changed; the others were not there.
    Changed {
        /// By their UIDs in the mailbox of the operation.
        uids: Vec<u32>,
    },
    /// APPENDUID: one UID. COPYUID: what became what.
    Placed(Placed),
    /// What was read.
    Viewed(View),
}

/// UIDs as APPENDUID and COPYUID tell them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    /// Of the mailbox they were put into.
    pub uid_validity: u32,
    /// In the order of `targets`.
    pub uids: Vec<u32>,
    /// UIDs they had in `from`; empty for a delivery.
    pub sources: Vec<u32>,
}

/// What a mailbox held when it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// UIDVALIDITY
    pub uid_validity: u32,
    /// UIDNEXT, if told.
    pub uid_next: Option<u32>,
    /// HIGHESTMODSEQ, if told.
    pub highest_modseq: Option<u64>,
    /// Whether every message is listed; otherwise absence means nothing.
    pub complete: bool,
    /// What was seen, ascending by UID.
    pub messages: Vec<ViewedMessage>,
}

/// One message of a [`View`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewedMessage {
    /// Its UID.
    pub uid: u32,
    /// Read from the message.
    pub token: String,
    /// Of its octets, if they were read.
    pub digest: Option<String>,
    /// Its flags, if they were asked for; without `\Recent`.
    pub flags: Option<BTreeSet<String>>,
    /// Its MODSEQ, if told.
    pub modseq: Option<u64>,
}

/// Why a stored history cannot be judged.
#[derive(Debug, thiserror::Error)]
pub enum ReadHistoryError {
    /// The file could not be read.
    #[error("read: {0}")]
    Io(#[from] io::Error),
    /// A line is no record.
    #[error("line {line}: {source}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// A whole history, in the order it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// All of it.
    pub records: Vec<Record>,
}

impl History {
    /// Reads one record per line; empty lines are skipped.
    pub fn read(from: impl BufRead) -> Result<Self, ReadHistoryError> {
        let mut records = Vec::new();
        for (n, line) in from.lines().enumerate() {
            let line = line?;
            if !line.trim().is_empty() {
                let record = serde_json::from_str(&line)
                    .map_err(|source| ReadHistoryError::Line { line: n + 1, source })?;
                records.push(record);
            }
        }
        Ok(Self { records })
    }

    /// Writes one record per line.
    pub fn write(&self, mut to: impl Write) -> io::Result<()> {
        for record in &self.records {
            serde_json::to_writer(&mut to, record)?;
            to.write_all(b"\n")?;
        }
        Ok(())
    }

    /// Everything clients did.
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.records.iter().filter_map(|record| match record {
            Record::Event(event) => Some(event),
            _ => None,
        })
    }

    /// How replicas kept bodies in the end.
    pub fn copies(&self) -> impl Iterator<Item = &Copies> {
        self.records.iter().filter_map(|record| match record {
            Record::Copies(copies) => Some(copies),
            _ => None,
        })
    }

    /// What replicas held in the end.
    pub fn replicas(&self) -> impl Iterator<Item = &ReplicaState> {
        self.records.iter().filter_map(|record| match record {
            Record::Replica(state) => Some(state),
            _ => None,
        })
    }
}
