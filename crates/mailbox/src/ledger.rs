//! One command's view of one account: the hot rows, loaded once and written once at the end. A
//! command that is refused drops its ledger, so a verb decides everything before it writes rows
//! of its own.

use std::collections::{BTreeMap, BTreeSet};

use crate::chunk::Digest;
use crate::command::{AccountState, OfMailbox, Quota};
use crate::flags::{Flags, KEYWORDS_MAX, SystemFlags};
use crate::ids::{AccountId, LogTime, MailboxId, ModSeq, Uid, UidValidity};
use crate::outcome::{Change, Refusal};
use crate::row::{self, AccountRow, ChunkRow, KeywordsRow, MailboxRow, ShardRow, UsageRow};
use crate::rows::{Rows, Source};
use crate::table;

/// Limit: different keywords in one mailbox; each is told in every FLAGS response.
pub const MAILBOX_KEYWORDS_MAX: usize = 256;
/// Limit: 63 bits (RFC 7162 3.1).
const MODSEQ_MAX: u64 = i64::MAX as u64;

/// A row and what it was when it was loaded.
struct Kept<T> {
    row: T,
    was: Option<T>,
    /// Its octets, if it was there.
    seen: Option<Vec<u8>>,
}

/// See the module's head.
pub(crate) struct Ledger<'r, 'a> {
    pub rows: &'r mut Rows<'a>,
    /// Log time.
    pub now: LogTime,
    pub account: AccountId,
    pub usage: UsageRow,
    usage_was: UsageRow,
    usage_seen: Option<Vec<u8>>,
    quota: Quota,
    mailboxes: BTreeMap<MailboxId, Kept<MailboxRow>>,
    keywords: BTreeMap<MailboxId, Kept<KeywordsRow>>,
    chunks: BTreeMap<Digest, (u32, i64)>,
    modseq: Option<ModSeq>,
    touched: BTreeSet<MailboxId>,
    upload_bytes: i64,
    /// Octets and messages that go with this command: there is room for as much instead.
    going: (u64, u64),
    n_writes_before: usize,
}

impl<'r, 'a> Ledger<'r, 'a> {
    /// For a command: the account must be there and in use.
    pub(crate) fn open(
        rows: &'r mut Rows<'a>,
        now: LogTime,
        account: AccountId,
    ) -> Result<Self, Refusal> {
        let row = account_row(rows, account)?;
        if row.state == AccountState::Suspended {
            return Err(Refusal::Suspended);
        }
        Ok(Self { quota: row.quota, ..Self::reopen(rows, now, account) })
    }

    /// For housekeeping: whatever the state of the account, and without quota.
    pub(crate) fn reopen(rows: &'r mut Rows<'a>, now: LogTime, account: AccountId) -> Self {
        let (usage, usage_seen) = row::load_seen::<UsageRow>(rows, &table::usage(account));
        let usage = usage.unwrap_or_default();
        let n_writes_before = rows.n_writes();
        Self {
            rows,
            now,
            account,
            usage_was: usage.clone(),
            usage,
            usage_seen,
            quota: Quota::default(),
            mailboxes: BTreeMap::new(),
            keywords: BTreeMap::new(),
            chunks: BTreeMap::new(),
            modseq: None,
            touched: BTreeSet::new(),
            upload_bytes: 0,
            going: (0, 0),
            n_writes_before,
        }
    }

    /// Writes what changed, and tells which mailboxes did.
    pub(crate) fn close(self) -> Vec<Change> {
        let Self { rows, account, .. } = self;
        for (digest, (raw_len, change)) in self.chunks {
            change_chunk(rows, account, &digest, raw_len, change);
        }
        for (id, kept) in &self.keywords {
            if kept.was.as_ref() != Some(&kept.row) && !kept.row.keywords.is_empty() {
                let key = table::keywords(account, *id);
                row::save_over(rows, key, kept.seen.as_deref(), &kept.row);
            }
        }
        for (id, kept) in &self.mailboxes {
            if kept.was.as_ref() != Some(&kept.row) {
                let key = table::mailbox(account, *id);
                row::save_over(rows, key, kept.seen.as_deref(), &kept.row);
            }
        }
        if self.usage != self.usage_was {
            let key = table::usage(account);
            row::save_over(rows, key, self.usage_seen.as_deref(), &self.usage);
        }
        if self.upload_bytes != 0 {
            let mut shard: ShardRow = row::load(rows, &table::shard()).unwrap_or_default();
            shard.upload_bytes = shard.upload_bytes.saturating_add_signed(self.upload_bytes);
            row::save(rows, table::shard(), &shard);
        }
        let change = |id: &MailboxId| Change {
            of: OfMailbox { account, mailbox: *id },
            highest_modseq: self.mailboxes[id].row.highest_modseq,
        };
        self.touched.iter().map(change).collect()
    }

    /// Rows written so far, those that wait for [`Ledger::close`] included.
    pub(crate) fn n_writes(&self) -> usize {
        self.rows.n_writes() - self.n_writes_before + self.chunks.len() + self.mailboxes.len() + 2
    }

    /// A mailbox that can be selected.
    pub(crate) fn mailbox(&mut self, id: MailboxId) -> Result<&mut MailboxRow, Refusal> {
        self.any_mailbox(id).filter(|row| !row.deleted).ok_or(Refusal::NoSuchMailbox)
    }

    /// A mailbox, deleted or not.
    pub(crate) fn any_mailbox(&mut self, id: MailboxId) -> Option<&mut MailboxRow> {
        use std::collections::btree_map::Entry;
        match self.mailboxes.entry(id) {
            Entry::Occupied(entry) => Some(&mut entry.into_mut().row),
            Entry::Vacant(entry) => {
                let key = table::mailbox(self.account, id);
                let (row, seen) = row::load_seen::<MailboxRow>(self.rows, &key);
                let row = row?;
                Some(&mut entry.insert(Kept { was: Some(row.clone()), row, seen }).row)
            }
        }
    }

    /// A mailbox known to be there, since this command loaded it.
    pub(crate) fn loaded(&mut self, id: MailboxId) -> &mut MailboxRow {
        &mut self.mailboxes.get_mut(&id).expect("the verb loaded the mailbox").row
    }

    /// Adds a mailbox.
    pub(crate) fn insert_mailbox(&mut self, id: MailboxId, row: MailboxRow) {
        let seen = self.rows.row(&table::mailbox(self.account, id));
        self.mailboxes.insert(id, Kept { row, was: None, seen });
    }

    /// Removes the row of a mailbox at once.
    pub(crate) fn forget_mailbox(&mut self, id: MailboxId) {
        self.mailboxes.remove(&id);
        self.touched.remove(&id);
        self.rows.remove(&table::mailbox(self.account, id));
    }

    /// The mod-sequence of this command.
    pub(crate) fn modseq(&mut self) -> Result<ModSeq, Refusal> {
        if let Some(modseq) = self.modseq {
            return Ok(modseq);
        }
        let next = self.usage.modseq + 1;
        let modseq = ModSeq::new(next).filter(|_| next <= MODSEQ_MAX).ok_or(Refusal::Exhausted)?;
        self.usage.modseq = next;
        self.modseq = Some(modseq);
        Ok(modseq)
    }

    /// A message of this mailbox came, went or changed with this mod-sequence.
    pub(crate) fn touch(&mut self, id: MailboxId, modseq: ModSeq) {
        self.loaded(id).highest_modseq = modseq;
        self.touched.insert(id);
    }

    /// Others should look at this mailbox though its mod-sequence is the same.
    pub(crate) fn announce(&mut self, id: MailboxId) {
        self.touched.insert(id);
    }

    /// Whether this mailbox has UIDs left for so many messages.
    pub(crate) fn check_uids(&mut self, id: MailboxId, n_messages: usize) -> Result<(), Refusal> {
        let left = (Uid::LAST.value() - self.mailbox(id)?.uid_next.value()) as usize;
        if n_messages <= left { Ok(()) } else { Err(Refusal::Exhausted) }
    }

    /// Whether the account may have so much more.
    pub(crate) fn check_quota(&self, bytes: u64, n_messages: u64) -> Result<(), Refusal> {
        let used = (self.usage.storage_bytes, self.usage.n_messages);
        let (going_bytes, going_messages) = self.going;
        let more = (bytes.saturating_sub(going_bytes), n_messages.saturating_sub(going_messages));
        has_room(self.quota, used, more)
    }

    /// A message of so many octets will go with this command: only the difference counts.
    pub(crate) fn will_go(&mut self, bytes: u64) {
        self.going = (self.going.0 + bytes, self.going.1 + 1);
    }

    /// UIDVALIDITY of so many new mailboxes: the first of them.
    pub(crate) fn uid_validities(&mut self, n: u32) -> Result<UidValidity, Refusal> {
        let (first, last) = self.next_uid_validities(n)?;
        row::save(self.rows, table::uid_validity(self.account), &last);
        Ok(first)
    }

    /// Whether there are UIDVALIDITYs for so many mailboxes.
    pub(crate) fn check_uid_validities(&self, n: u32) -> Result<(), Refusal> {
        self.next_uid_validities(n).map(|_| ())
    }

    fn next_uid_validities(&self, n: u32) -> Result<(UidValidity, u32), Refusal> {
        let key = table::uid_validity(self.account);
        let last = row::load::<u32>(self.rows, &key).unwrap_or(0);
        // Why: log time never goes back, so one clock that leapt beyond 2106 would use all of them up.
        let seconds = u32::try_from(self.now.0 / 1000).unwrap_or(0);
        let first = last.checked_add(1).ok_or(Refusal::Exhausted)?.max(seconds);
        let last = first.checked_add(n.saturating_sub(1)).ok_or(Refusal::Exhausted)?;
        Ok((UidValidity(first.try_into().expect("one more than another")), last))
    }

    /// The flags as this mailbox spells them; new keywords are noted, and refused where it has too many.
    pub(crate) fn spell(&mut self, id: MailboxId, flags: &Flags) -> Result<Flags, Refusal> {
        let spelled = self.spell_fitting(id, flags)?;
        if spelled.keywords.len() < flags.keywords.len() {
            return Err(Refusal::Limit("keywords of a mailbox".into()));
        }
        Ok(spelled)
    }

    /// The same of a message that comes: keywords too many are left behind, since it must not stay outside
    /// for a label.
    pub(crate) fn spell_fitting(&mut self, id: MailboxId, flags: &Flags) -> Result<Flags, Refusal> {
        let system = SystemFlags(flags.system.0 & SystemFlags::ALL.0);
        if flags.keywords.is_empty() {
            return Ok(Flags { system, keywords: BTreeSet::new() });
        }
        if flags.keywords.len() > KEYWORDS_MAX {
            return Err(Refusal::Limit("keywords of a message".into()));
        }
        let kept = self.keywords.entry(id).or_insert_with(|| {
            let key = table::keywords(self.account, id);
            let (was, seen) = row::load_seen::<KeywordsRow>(self.rows, &key);
            Kept { row: was.clone().unwrap_or_default(), was, seen }
        });
        let known = &mut kept.row.keywords;
        let keywords = flags.keywords.iter().filter_map(|keyword| {
            if let Some(known) = known.get(keyword) {
                return Some(known.clone());
            }
            let fits = known.len() < MAILBOX_KEYWORDS_MAX;
            (fits && known.insert(keyword.clone())).then(|| keyword.clone())
        });
        Ok(Flags { system, keywords: keywords.collect() })
    }

    /// References to a chunk come or go.
    pub(crate) fn refer(&mut self, digest: Digest, raw_len: u32, change: i64) {
        self.chunks.entry(digest).or_insert((raw_len, 0)).1 += change;
    }

    /// Octets in open uploads come or go.
    pub(crate) fn change_upload_bytes(&mut self, change: i64) {
        self.upload_bytes += change;
    }
}

/// Whether a quota leaves room for so many more octets and messages.
pub(crate) fn has_room(quota: Quota, used: (u64, u64), more: (u64, u64)) -> Result<(), Refusal> {
    let exceeds = |used: u64, more: u64, limit: Option<u64>| {
        more > 0 && limit.is_some_and(|limit| used.saturating_add(more) > limit)
    };
    let over =
        exceeds(used.0, more.0, quota.storage_bytes) || exceeds(used.1, more.1, quota.n_messages);
    if over { Err(Refusal::OverQuota) } else { Ok(()) }
}

/// The row of an account that is not on its way out.
pub(crate) fn account_row(rows: &dyn Source, account: AccountId) -> Result<AccountRow, Refusal> {
    row::load::<AccountRow>(rows, &table::account(account))
        .filter(|row| row.state != AccountState::Deleting)
        .ok_or(Refusal::NoSuchAccount)
}

fn change_chunk(
    rows: &mut Rows<'_>,
    account: AccountId,
    digest: &Digest,
    raw_len: u32,
    change: i64,
) {
    if change == 0 {
        return;
    }
    let key = table::chunk(digest, account);
    let (row, seen) = row::load_seen::<ChunkRow>(rows, &key);
    let mut row = row.unwrap_or(ChunkRow { n_references: 0, raw_len });
    row.n_references = row
        .n_references
        .checked_add_signed(change)
        .expect("a chunk is not released more often than it was referred to");
    if row.n_references == 0 {
        rows.remove(&key);
    } else {
        row::save_over(rows, key, seen.as_deref(), &row);
    }
}
