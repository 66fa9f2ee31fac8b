//! Identities and counters. Numbers that could be mixed up are types of their own.

use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};

use minicbor::{Decode, Encode};

/// One account for ever: immutable, random, never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct AccountId(#[cbor(with = "minicbor::bytes")] pub [u8; 16]);

/// A frontend's session with one shard, opened through that shard's log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct SessionId(#[cbor(with = "minicbor::bytes")] pub [u8; 16]);

/// One message on its way in, piece by piece.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct UploadId(#[cbor(with = "minicbor::bytes")] pub [u8; 16]);

/// Writes 16 bytes as 32 hexadecimal digits.
fn hex(bytes: &[u8; 16], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Debug for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl fmt::Debug for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, f)
    }
}

impl std::str::FromStr for AccountId {
    type Err = ();

    /// Reads what `Display` writes.
    fn from_str(text: &str) -> Result<Self, ()> {
        let mut id = [0; 16];
        if text.len() != 32 || !text.is_ascii() {
            return Err(());
        }
        for (i, byte) in id.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| ())?;
        }
        Ok(Self(id))
    }
}

/// A Raft group of accounts. 0 is the meta group, data shards begin at 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct ShardId(#[n(0)] pub u32);

/// One mailbox within its account; survives RENAME, never reused (RFC 8474 MAILBOXID).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct MailboxId(#[n(0)] pub u64);

/// One immutable message content within its account (RFC 8474 EMAILID); COPY keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct EmailId(#[n(0)] pub u64);

/// One conversation within its account (RFC 8474 THREADID).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct ThreadId(#[n(0)] pub u64);

/// RFC 9051 2.3.1.1: strictly ascending within a mailbox, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Uid(#[n(0)] pub NonZeroU32);

/// RFC 9051 2.3.1.1: changes when the UIDs of a name start anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct UidValidity(#[n(0)] pub NonZeroU32);

/// RFC 7162 3.1: one counter per account, at most 63 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct ModSeq(#[n(0)] pub NonZeroU64);

/// Milliseconds since 1970 as the leader's clock put them into the log; never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct LogTime(#[n(0)] pub u64);

impl ModSeq {
    /// RFC 7162 3.1: 63 bits.
    pub const LAST: Self = Self(match NonZeroU64::new(i64::MAX as u64) {
        Some(modseq) => modseq,
        None => NonZeroU64::MAX,
    });
}

impl MailboxId {
    /// In a [`Change`](crate::Change): anything in the account may have changed. No mailbox has it.
    pub const EVERY: Self = Self(u64::MAX);
}

impl Uid {
    /// The first UID a mailbox gives out.
    pub const FIRST: Self = Self(NonZeroU32::MIN);
    /// The greatest UID there can be.
    pub const LAST: Self = Self(NonZeroU32::MAX);

    /// `None` for 0, which is no UID.
    pub fn new(uid: u32) -> Option<Self> {
        NonZeroU32::new(uid).map(Self)
    }

    /// The bare number.
    pub fn value(self) -> u32 {
        self.0.get()
    }
}

impl ModSeq {
    /// The lowest mod-sequence there can be.
    pub const FIRST: Self = Self(NonZeroU64::MIN);

    /// `None` for 0, which is no mod-sequence.
    pub fn new(modseq: u64) -> Option<Self> {
        NonZeroU64::new(modseq).map(Self)
    }

    /// The bare number.
    pub fn value(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for UidValidity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for ModSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
