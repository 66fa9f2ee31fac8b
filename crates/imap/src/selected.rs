//! The selected mailbox as this session knows it, and how its changes are told.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use mailbox::command::OfMailbox;
use mailbox::flags::Keyword;
use mailbox::outcome::Expunged;
use mailbox::{
    Flags, MAILBOX_KEYWORDS_MAX, MailboxId, MailboxInfo, ModSeq, Uid, UidSet, UidValidity,
};

use crate::context::Enabled;
use crate::limits::OWN_CHANGES_MAX;
use crate::number_set::NumberSet;
use crate::output::Output;
use crate::respond::flags;
use crate::view::View;

/// The selected mailbox.
#[derive(Debug)]
pub(crate) struct Selected {
    pub(crate) of: OfMailbox,
    /// Becomes another one when the shard was forced back to what one replica had: no UID counts then.
    pub(crate) uid_validity: UidValidity,
    pub(crate) read_only: bool,
    pub(crate) view: View,
    /// `\Recent` in this session; may name messages that are gone.
    pub(crate) recent: UidSet,
    /// Who this session is where arrivals are told, if they are `\Recent` to no other then.
    pub(crate) recent_to: Option<u64>,
    /// `\Recent` ones below this one were told, and are not claimed for good.
    unclaimed: Option<Uid>,
    /// Arrivals and flag changes up to here were told.
    pub(crate) told_modseq: u64,
    /// Expunges up to here were told.
    pub(crate) vanished_modseq: u64,
    /// The greatest mod-sequence shown since the last tagged response.
    shown_modseq: u64,
    /// Whether the client was told that it saw more than it knows.
    lags: bool,
    /// The store's HIGHESTMODSEQ as last heard of.
    pub(crate) heard_modseq: u64,
    /// Whether arrivals or flag changes may have been without our hearing of them.
    pub(crate) unsure_of_changes: bool,
    /// Whether expunges may have been without our hearing of them.
    pub(crate) unsure_of_expunges: bool,
    /// Whether arrivals were told at the end of another command than NOOP and CHECK, and not in IDLE since.
    pub(crate) told_beside: bool,
    /// As the store last told by itself.
    notified_modseq: u64,
    /// What `$` stands for (RFC 5182).
    pub(crate) saved: UidSet,
    keywords: BTreeSet<Keyword>,
    own: Vec<(UidSet, ModSeq)>,
}

impl Selected {
    /// A mailbox of which nothing was told yet.
    pub(crate) fn new(info: &MailboxInfo, read_only: bool) -> Self {
        Self {
            of: info.of,
            uid_validity: info.uid_validity,
            read_only,
            view: View::default(),
            recent: UidSet::new(),
            recent_to: None,
            unclaimed: None,
            told_modseq: info.highest_modseq.value(),
            vanished_modseq: info.highest_modseq.value(),
            shown_modseq: 0,
            lags: false,
            heard_modseq: info.highest_modseq.value(),
            unsure_of_changes: false,
            unsure_of_expunges: false,
            told_beside: false,
            notified_modseq: info.highest_modseq.value(),
            saved: UidSet::new(),
            keywords: info.keywords.iter().cloned().collect(),
            own: Vec::new(),
        }
    }

    /// The store told that the mailbox changed. Told so again without a change in it, we look
    /// whether it is still there.
    pub(crate) fn notified(&mut self, highest_modseq: ModSeq) {
        let modseq = highest_modseq.value();
        if modseq <= self.notified_modseq {
            self.unsure_of_expunges = true;
        }
        self.notified_modseq = self.notified_modseq.max(modseq);
        self.heard(highest_modseq);
    }

    /// The mailbox has come at least so far.
    pub(crate) fn heard(&mut self, modseq: ModSeq) {
        self.heard_modseq = self.heard_modseq.max(modseq.value());
    }

    /// Whether arrivals or flag changes may wait to be told.
    pub(crate) fn has_changes(&self) -> bool {
        self.unsure_of_changes || self.heard_modseq > self.told_modseq
    }

    /// Whether expunges may wait to be told.
    pub(crate) fn has_expunges(&self) -> bool {
        self.unsure_of_expunges || self.heard_modseq > self.vanished_modseq
    }

    /// The UIDs of known messages that a client's set names. `Err` for a sequence number that no
    /// message has (RFC 9051 9: `seq-number`).
    pub(crate) fn resolve(&self, uid: bool, set: &NumberSet) -> Result<UidSet, &'static str> {
        if uid {
            return Ok(self.view.known(&self.named(set)));
        }
        let Some(ranges) = set.ranges(self.view.len()) else {
            return Ok(self.view.known(&self.saved));
        };
        if ranges.iter().any(|range| range.0 == 0 || range.1 > self.view.len()) {
            return Err("no such message");
        }
        Ok(self.view.at(&ranges))
    }

    /// The same for SEARCH, where a number that no message has matches nothing. Of UIDs that the client does
    /// not know some may be among them.
    pub(crate) fn matching(&self, set: &NumberSet) -> UidSet {
        match set.ranges(self.view.len()) {
            Some(ranges) => self.view.spans(&ranges),
            None => self.saved.clone(),
        }
    }

    /// The UIDs that a client's UID set names, known or not.
    pub(crate) fn named(&self, set: &NumberSet) -> UidSet {
        match set.ranges(self.view.last_uid()) {
            Some(ranges) => crate::number_set::uid_set(&ranges),
            None => self.saved.clone(),
        }
    }

    /// How many known messages are `\Recent`.
    pub(crate) fn n_recent(&self) -> u64 {
        self.view.known(&self.recent).n_uids()
    }

    /// `\Recent` from this UID on, up to another.
    pub(crate) fn claim_recent(&mut self, from: Uid, next: Uid) {
        if from < next {
            self.recent = crate::number_set::uid_set(&[(from.value(), next.value() - 1)]);
        }
    }

    /// The same where nobody could be asked. RFC 3501 2.3.2: who cannot know says so. They are claimed later.
    pub(crate) fn presume_recent(&mut self, from: Uid, next: Uid) {
        self.claim_recent(from, next);
        self.unclaimed = Some(next);
    }

    /// These messages came and are told now; some of them are `\Recent`.
    pub(crate) fn take_in(&mut self, new: &UidSet, recent: &UidSet) {
        self.view.append(new);
        self.recent = UidSet::from_ranges([self.recent.ranges(), recent.ranges()].concat());
        if let (Some((_, last)), false) = (recent.ranges().last(), self.read_only) {
            self.unclaimed = Uid::new(last.value().saturating_add(1));
        }
    }

    /// RFC 3501 2.3.2: what was `\Recent` here is not to be so in later sessions. Says so once.
    ///
    /// Why at the end of a session: an entry in the log for each arrival costs more than the delivery. Until
    /// then the store's memory has it.
    pub(crate) fn take_unclaimed(&mut self) -> Option<Uid> {
        self.unclaimed.take()
    }

    /// `FLAGS` and `PERMANENTFLAGS`, as they are from now on.
    pub(crate) fn write_flags(&self, out: &mut Output) {
        out.text("* FLAGS (");
        flags::write_known(out, &self.keywords);
        out.text(")\r\n");
        if self.read_only {
            out.text("* OK [PERMANENTFLAGS ()] read-only\r\n");
        } else {
            out.text("* OK [PERMANENTFLAGS (");
            flags::write_known(out, &self.keywords);
            // RFC 3501 7.1: `\*` says that new ones can be made.
            let more = if self.keywords.len() < MAILBOX_KEYWORDS_MAX { " \\*" } else { "" };
            out.text(more);
            out.text(")] flags that last\r\n");
        }
    }

    /// Tells of keywords the client has not heard of, before they are shown.
    pub(crate) fn note_keywords(&mut self, out: &mut Output, flags: &Flags) {
        let n_before = self.keywords.len();
        for keyword in &flags.keywords {
            if !self.keywords.contains(keyword) {
                self.keywords.insert(keyword.clone());
            }
        }
        if self.keywords.len() > n_before {
            self.write_flags(out);
        }
    }

    /// `* n FETCH (FLAGS ...)` of a message, with UID and MODSEQ where they belong.
    pub(crate) fn write_fetch_flags(
        &mut self,
        out: &mut Output,
        enabled: Enabled,
        told: &Told<'_>,
    ) {
        let Some(seqnum) = self.view.seqnum(told.uid) else { return };
        if let Some(flags) = told.flags {
            self.note_keywords(out, flags);
        }
        let _ = write!(out, "* {seqnum} FETCH (");
        let mut space = "";
        if told.with_uid {
            let _ = write!(out, "UID {}", told.uid);
            space = " ";
        }
        if let Some(flags) = told.flags {
            let _ = write!(out, "{space}FLAGS (");
            flags::write(out, flags, self.shows_recent(enabled, told.uid));
            out.text(")");
            space = " ";
        }
        if enabled.condstore {
            let _ = write!(out, "{space}MODSEQ ({})", told.modseq);
            self.shown(told.modseq);
        }
        out.text(")\r\n");
    }

    /// `EXISTS`, and `RECENT` where there is such a thing, as they are now.
    pub(crate) fn write_exists(&self, out: &mut Output, enabled: Enabled) {
        let _ = write!(out, "* {} EXISTS\r\n", self.view.len());
        if !enabled.rev2 {
            let _ = write!(out, "* {} RECENT\r\n", self.n_recent());
        }
    }

    /// Whether a message is shown as `\Recent`.
    pub(crate) fn shows_recent(&self, enabled: Enabled, uid: Uid) -> bool {
        !enabled.rev2 && self.recent.contains(uid)
    }

    /// Up to which mod-sequence everything was told.
    pub(crate) fn told_up_to(&self) -> u64 {
        self.told_modseq.min(self.vanished_modseq)
    }

    /// The client sees this mod-sequence.
    pub(crate) fn shown(&mut self, modseq: ModSeq) {
        self.shown_modseq = self.shown_modseq.max(modseq.value());
    }

    /// RFC 7162 6: at a tagged response a client takes the greatest mod-sequence it saw for how far it
    /// was told everything. Where that is not so it is told how far it is, and again when all is told.
    pub(crate) fn take_lag(&mut self, enabled: Enabled) -> Option<u64> {
        let shown = std::mem::take(&mut self.shown_modseq);
        // Why not the other: who only asks for changes does not learn from them what is gone.
        let told = if enabled.qresync { self.told_up_to() } else { self.told_modseq };
        let lagged = std::mem::replace(&mut self.lags, shown > told);
        (enabled.condstore && (self.lags || lagged)).then_some(told)
    }

    /// Messages are gone: tells it and forgets them.
    pub(crate) fn expunge(&mut self, out: &mut Output, enabled: Enabled, uids: &UidSet) {
        let mut n_gone = 0;
        if enabled.qresync {
            let known = self.view.known(uids);
            if !known.is_empty() {
                let _ = write!(out, "* VANISHED {known}\r\n");
            }
            return self.view.remove(&known);
        }
        for (first, last) in self.view.seqnums(uids) {
            // Each message told of moves those behind it forward by one.
            for _ in first..=last {
                let _ = write!(out, "* {} EXPUNGE\r\n", first - n_gone);
            }
            n_gone += last - first + 1;
        }
        self.view.remove(uids);
    }

    /// This session itself put messages into a mailbox: RFC 9051 6.3.12 wants them told at once.
    pub(crate) fn note_arrivals(&mut self, mailbox: MailboxId) {
        self.unsure_of_changes |= mailbox == self.of.mailbox;
    }

    /// This session itself expunged these, and they were told.
    pub(crate) fn note_expunged(&mut self, expunged: &Expunged) {
        if expunged.uids.is_empty() {
            // Why: then it is somebody else's.
            self.heard(expunged.highest_modseq);
        } else {
            self.note_own(UidSet::new(), expunged.highest_modseq);
        }
    }

    /// This session itself took messages out, and that was told; with the same mod-sequence they, or what
    /// replaces them, came to a mailbox.
    pub(crate) fn note_taken(&mut self, to: Option<MailboxId>, modseq: ModSeq) {
        match to {
            Some(to) if to != self.of.mailbox => self.note_own(UidSet::new(), modseq),
            // Why: what came to this very mailbox is not told yet.
            _ => self.heard(modseq),
        }
    }

    /// A change of this session's own was answered: it need not be told again.
    ///
    /// Invariant: the mod-sequence is of a command of this session, and all that the command did in
    /// this mailbox was told, but for flags of `uids`, which the client knows.
    pub(crate) fn note_own(&mut self, uids: UidSet, modseq: ModSeq) {
        if modseq.value() <= self.told_modseq {
            return;
        }
        if !self.pass(modseq) {
            self.heard(modseq);
            if self.own.len() < OWN_CHANGES_MAX {
                self.own.push((uids, modseq));
            }
        }
    }

    /// Whether this state of a message came of a change of this session's own.
    pub(crate) fn is_own(&self, uid: Uid, modseq: ModSeq) -> bool {
        self.own.iter().any(|(uids, of)| *of == modseq && uids.contains(uid))
    }

    /// More was told: own changes up to there are no longer of interest, and those that follow at once
    /// need not be asked about.
    pub(crate) fn pass_own(&mut self) {
        let mut own = std::mem::take(&mut self.own);
        own.retain(|(_, modseq)| modseq.value() > self.told_modseq && !self.pass(*modseq));
        self.own = own;
    }

    /// Takes a change of this session's own for told, if nothing of anybody else's lies between.
    fn pass(&mut self, modseq: ModSeq) -> bool {
        if modseq.value() != self.told_modseq + 1 {
            return false;
        }
        if self.vanished_modseq == self.told_modseq {
            self.vanished_modseq += 1;
        }
        self.told_modseq += 1;
        self.heard_modseq = self.heard_modseq.max(self.told_modseq);
        true
    }
}

/// What a message's `FETCH` tells.
pub(crate) struct Told<'a> {
    pub(crate) uid: Uid,
    pub(crate) flags: Option<&'a Flags>,
    pub(crate) modseq: ModSeq,
    pub(crate) with_uid: bool,
}
