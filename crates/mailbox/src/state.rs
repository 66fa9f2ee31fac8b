//! The small hot row of a message: everything a listing needs, in a fixed layout that is read
//! without decoding the rest. The immutable rest lies in content and metadata rows.
//!
//! ```text
//! 0 version   1 system flags   2 MODSEQ   10 EMAILID   18 THREADID   26 size
//! 34 INTERNALDATE, seconds   42 zone, minutes   44 save date
//! 52 sent date, seconds   60 zone, minutes   62 Tail as CBOR, or nothing
//! ```

use std::collections::BTreeSet;

use minicbor::{Decode, Decoder, Encode, Encoder};

use crate::codec;
use crate::command::InternalDate;
use crate::flags::{Flags, Keyword, SystemFlags};
use crate::ids::{EmailId, LogTime, ModSeq, ThreadId};

/// One message in a mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub flags: Flags,
    /// 0 only in an extent: the extent's.
    pub modseq: u64,
    pub email: EmailId,
    pub thread: ThreadId,
    pub size: u64,
    pub internal_date: InternalDate,
    pub save_date: LogTime,
    /// The Date field, if it is a date.
    pub sent: Option<InternalDate>,
    pub uidl: Option<String>,
}

/// What most messages do not have.
#[derive(Encode, Decode)]
struct Tail {
    #[n(0)]
    keywords: BTreeSet<Keyword>,
    #[n(1)]
    uidl: Option<String>,
}

const FIXED: usize = 62;
/// Stands for no sent date.
const NO_DATE: i64 = i64::MIN;
/// The version of this layout.
const VERSION: u8 = 2;

impl State {
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut row = Vec::with_capacity(FIXED);
        row.extend_from_slice(&[VERSION, self.flags.system.0]);
        row.extend_from_slice(&self.modseq.to_be_bytes());
        row.extend_from_slice(&self.email.0.to_be_bytes());
        row.extend_from_slice(&self.thread.0.to_be_bytes());
        row.extend_from_slice(&self.size.to_be_bytes());
        row.extend_from_slice(&self.internal_date.unix_s.to_be_bytes());
        row.extend_from_slice(&self.internal_date.zone_minutes.to_be_bytes());
        row.extend_from_slice(&self.save_date.0.to_be_bytes());
        let sent = self.sent.unwrap_or(InternalDate { unix_s: NO_DATE, zone_minutes: 0 });
        row.extend_from_slice(&sent.unix_s.to_be_bytes());
        row.extend_from_slice(&sent.zone_minutes.to_be_bytes());
        debug_assert_eq!(row.len(), FIXED);
        if !self.flags.keywords.is_empty() || self.uidl.is_some() {
            let keywords = self.flags.keywords.clone();
            row.extend_from_slice(&codec::encode(&Tail { keywords, uidl: self.uidl.clone() }));
        }
        row
    }

    pub(crate) fn read(row: &[u8]) -> Self {
        Self::try_read(row).expect("rows are written by this crate and verified when read")
    }

    /// Whether these octets are a state.
    pub(crate) fn is_sound(row: &[u8]) -> bool {
        Self::try_read(row).is_some()
    }

    /// The system flags alone.
    pub(crate) fn system_flags(row: &[u8]) -> SystemFlags {
        SystemFlags(row[1])
    }

    /// The mod-sequence alone.
    pub(crate) fn modseq_of(row: &[u8]) -> u64 {
        u64_at(row, 2)
    }

    /// The mod-sequence, never 0 once settled or read through [`crate::message`].
    pub(crate) fn modseq(&self) -> ModSeq {
        ModSeq::new(self.modseq).unwrap_or(ModSeq::FIRST)
    }

    pub(crate) fn is_seen(&self) -> bool {
        self.flags.system.contains(SystemFlags::SEEN)
    }

    pub(crate) fn is_deleted(&self) -> bool {
        self.flags.system.contains(SystemFlags::DELETED)
    }

    fn try_read(row: &[u8]) -> Option<Self> {
        if row.len() < FIXED || row[0] != VERSION {
            return None;
        }
        let tail = match &row[FIXED..] {
            [] => Tail { keywords: BTreeSet::new(), uidl: None },
            tail => codec::decode(tail).ok()?,
        };
        Some(Self {
            flags: Flags { system: Self::system_flags(row), keywords: tail.keywords },
            modseq: Self::modseq_of(row),
            email: EmailId(u64_at(row, 10)),
            thread: ThreadId(u64_at(row, 18)),
            size: u64_at(row, 26),
            internal_date: date_at(row, 34),
            save_date: LogTime(u64_at(row, 44)),
            sent: Some(date_at(row, 52)).filter(|sent| sent.unix_s != NO_DATE),
            uidl: tail.uidl,
        })
    }
}

fn date_at(row: &[u8], at: usize) -> InternalDate {
    InternalDate {
        unix_s: u64_at(row, at).cast_signed(),
        zone_minutes: i16::from_be_bytes([row[at + 8], row[at + 9]]),
    }
}

fn u64_at(row: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(row[at..at + 8].try_into().expect("eight octets"))
}

impl<C> Encode<C> for State {
    fn encode<W: minicbor::encode::Write>(
        &self,
        encoder: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        encoder.bytes(&self.write())?;
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for State {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let row = decoder.bytes()?;
        Self::try_read(row).ok_or_else(|| minicbor::decode::Error::message("not a message state"))
    }
}
