//! SELECT and EXAMINE (RFC 9051 6.3.2, RFC 7162 3.1.2, 3.2.5).

use std::fmt::Write as _;

use mailbox::command::NamedMailbox;
use mailbox::dialogue::{Question, Reply, Trouble};
use mailbox::query::{Messages, Uids, Vanished};
use mailbox::{Answer, Command, MailboxInfo, MessageRecord, Outcome, Query, Refusal, Uid, UidSet};

use super::list;
use crate::context::Context;
use crate::number_set::{intersect, subtract, uid_set};
use crate::parse::{Resync, Select};
use crate::refuse;
use crate::selected::{Selected, Told};
use crate::work::{Ending, Next, Work, misplaced};

enum Step {
    Begin,
    Listen,
    Open,
    Watch,
    Uids,
    Claim,
    /// The mailbox is open; what is gone since the client was last here is being found out.
    Vanished,
    /// Likewise what changed.
    Changed,
}

/// Opens a mailbox: listens for changes, looks the mailbox up with its UIDs, claims `\Recent` if there
/// is any, and tells a client that comes back what it missed. Because it listens before it looks,
/// nothing that happens meanwhile is missed.
pub(super) struct Selecting {
    select: Select,
    step: Step,
    info: Option<Box<MailboxInfo>>,
    opened: Option<Selected>,
    /// Where to go on with its UIDs.
    rest: Option<Uid>,
    /// Its first unseen message, where that is known.
    unseen: Option<Uid>,
    /// What the client that comes back may know, and may have missed changes of. Why not only what is still
    /// there: in a mailbox full of gaps that is megabytes in the question for each page.
    known: UidSet,
}

impl Selecting {
    pub(super) fn new(select: Select) -> Self {
        let known = UidSet::new();
        let (info, opened, rest, unseen) = (None, None, None, None);
        Self { select, step: Step::Begin, info, opened, rest, unseen, known }
    }

    fn listen(&mut self, cx: &mut Context) -> Next {
        // RFC 9051 6.3.2: whatever comes of it, the old mailbox is no longer selected.
        if cx.selected.take().is_some() {
            cx.out.text("* OK [CLOSED] the mailbox before is closed\r\n");
        }
        self.step = Step::Listen;
        Next::Ask(Question::Listen(cx.account()))
    }

    fn ask_open(&mut self, cx: &Context) -> Next {
        self.step = Step::Open;
        let name = match &self.select.given {
            Ok(given) => NamedMailbox { account: cx.account(), name: given.name.clone() },
            Err(fault) => return Next::Done(refuse::fault(*fault)),
        };
        // RFC 9051 E: UNSEEN is no more.
        Next::Ask(Question::Query(Query::Open(name, !cx.enabled.rev2)))
    }

    fn found(&mut self, info: Box<MailboxInfo>, uids: &UidSet, rest: Option<Uid>) -> Next {
        if !info.selectable {
            return Next::Done(refuse::refusal(&Refusal::NotSelectable));
        }
        let mut opened = Selected::new(&info, self.select.read_only);
        opened.view.append(uids);
        self.opened = Some(opened);
        self.rest = rest;
        self.step = Step::Watch;
        let of = info.of;
        self.info = Some(info);
        Next::Ask(Question::Watch(of))
    }

    fn ask_uids(&mut self, from: Uid) -> Next {
        let Some(opened) = &self.opened else { return misplaced() };
        self.step = Step::Uids;
        Next::Ask(Question::Query(Query::Uids(Uids { of: opened.of, from })))
    }

    fn more_uids(&mut self, cx: &mut Context, uids: &UidSet, next: Option<Uid>) -> Next {
        let (Some(opened), Some(info)) = (&mut self.opened, &self.info) else {
            return misplaced();
        };
        // What arrived since the mailbox was looked up is told as news.
        let then = uid_set(&[(1, info.uid_next.value() - 1)]);
        opened.view.append(&intersect(uids, &then));
        // Why: what left it since was perhaps not among these UIDs any more.
        opened.unsure_of_expunges = true;
        self.rest = next.filter(|next| *next < info.uid_next);
        self.go_on_opening(cx)
    }

    fn go_on_opening(&mut self, cx: &mut Context) -> Next {
        if let Some(next) = self.rest {
            return self.ask_uids(next);
        }
        // RFC 9051 E 15: \Recent is no more, so nobody has to be asked whose it is.
        if cx.enabled.rev2 {
            return self.open(cx);
        }
        let (Some(opened), Some(info)) = (&mut self.opened, &self.info) else {
            return misplaced();
        };
        if info.n_recent > 0 && !self.select.read_only {
            self.step = Step::Claim;
            // Why no more: what came since is told as news.
            let claim = Command::ClaimRecent(info.of, Some(info.uid_next));
            return Next::Ask(Question::Command(Box::new(claim), vec![]));
        }
        opened.claim_recent(info.first_recent, info.uid_next);
        self.open(cx)
    }

    fn open(&mut self, cx: &mut Context) -> Next {
        let (Some(mut opened), Some(info)) = (self.opened.take(), self.info.take()) else {
            return misplaced();
        };
        // RFC 3501 6.3.2: EXAMINE takes \Recent from nobody.
        let takes_recent = !self.select.read_only && !cx.enabled.rev2;
        opened.recent_to = takes_recent.then(|| cx.recent_to());
        if let Ok(given) = &self.select.given {
            list::write_selected(cx, &info, given);
        }
        let (out, _, enabled) = cx.parts();
        opened.write_flags(out);
        opened.write_exists(out, enabled);
        // RFC 3501 6.3.1
        if let Some(seqnum) = self.unseen.and_then(|uid| opened.view.seqnum(uid)) {
            let _ = write!(out, "* OK [UNSEEN {seqnum}] first unseen\r\n");
        }
        let _ = write!(out, "* OK [UIDVALIDITY {}] UIDs are valid\r\n", info.uid_validity);
        let _ = write!(out, "* OK [UIDNEXT {}] next UID\r\n", info.uid_next);
        let _ = write!(out, "* OK [HIGHESTMODSEQ {}] highest\r\n", info.highest_modseq);
        let _ = write!(out, "* OK [MAILBOXID (M{})] object id\r\n", info.of.mailbox.0);
        cx.enabled.condstore |= self.select.condstore;
        cx.selected = Some(opened);
        match self.select.qresync.take() {
            Some(resync) if info.uid_validity.0.get() == resync.uid_validity => {
                self.ask_vanished(cx, &resync, info.uid_next)
            }
            _ => self.end(),
        }
    }

    /// RFC 7162 3.2.5: what the client missed since it was last here.
    fn ask_vanished(&mut self, cx: &mut Context, resync: &Resync, next: Uid) -> Next {
        let selected = cx.selected();
        let below = uid_set(&[(1, next.value() - 1)]);
        self.known = match &resync.known {
            Some(set) => intersect(&selected.named(set), &below),
            None => below,
        };
        let (of, since, known) = (selected.of, resync.modseq, self.known.clone());
        selected.told_modseq = since.min(selected.told_modseq);
        self.step = Step::Vanished;
        Next::Ask(Question::Query(Query::Vanished(Vanished {
            of,
            since,
            known,
            uid_validity: Some(selected.uid_validity),
        })))
    }

    fn vanished(&mut self, cx: &mut Context, gone: &UidSet) -> Next {
        let there = cx.selected().view.uids();
        let gone = subtract(&intersect(gone, &self.known), &there);
        if !gone.is_empty() {
            let _ = write!(cx.out, "* VANISHED (EARLIER) {gone}\r\n");
        }
        self.ask_changed(cx)
    }

    fn ask_changed(&mut self, cx: &mut Context) -> Next {
        let (of, since) = (cx.selected().of, cx.selected().told_modseq);
        self.step = Step::Changed;
        Next::Ask(Question::Query(Query::Messages(Messages {
            of,
            uids: self.known.clone(),
            changed_since: Some(since),
            metadata: false,
            chunks: false,
            expunged: false,
            only_envelope: false,
            recent_to: None,
        })))
    }

    fn changed(&mut self, cx: &mut Context, records: &[MessageRecord], next: Option<Uid>) -> Next {
        let (out, selected, enabled) = cx.parts();
        let Some(selected) = selected else { return misplaced() };
        for record in records {
            let told = Told {
                uid: record.uid,
                flags: Some(&record.flags),
                modseq: record.modseq,
                with_uid: true,
            };
            selected.write_fetch_flags(out, enabled, &told);
        }
        match next {
            Some(next) => {
                self.known = self.known.starting_at(next);
                self.ask_changed(cx)
            }
            None => {
                selected.told_modseq = selected.vanished_modseq;
                self.end()
            }
        }
    }

    fn end(&self) -> Next {
        let (code, text) = match self.select.read_only {
            true => ("READ-ONLY", "examined"),
            false => ("READ-WRITE", "selected"),
        };
        Next::Done(Ending::ok(text).code(code))
    }
}

impl Work for Selecting {
    fn go_on(&mut self, cx: &mut Context, reply: Option<Reply>) -> Next {
        match (&self.step, reply) {
            (Step::Begin, None) => self.listen(cx),
            (Step::Listen, Some(Reply::Done)) => self.ask_open(cx),
            (Step::Open, Some(Reply::Answer(Answer::Opened(info, uids, rest, unseen)))) => {
                self.unseen = unseen;
                self.found(info, &uids, rest)
            }
            (Step::Watch, Some(Reply::Done)) => self.go_on_opening(cx),
            (Step::Uids, Some(Reply::Answer(Answer::Uids(uids, next)))) => {
                self.more_uids(cx, &uids, next)
            }
            (Step::Claim, Some(Reply::Outcome(Outcome::RecentFrom(from)))) => {
                if let (Some(opened), Some(info)) = (&mut self.opened, &self.info) {
                    opened.claim_recent(from.max(info.first_recent), info.uid_next);
                }
                self.open(cx)
            }
            (Step::Vanished, Some(Reply::Answer(Answer::Vanished(gone)))) => {
                self.vanished(cx, &gone)
            }
            (Step::Changed, Some(Reply::Answer(Answer::Messages(records, next)))) => {
                self.changed(cx, &records, next)
            }
            _ => misplaced(),
        }
    }

    /// A mailbox can be read while `\Recent` cannot be claimed.
    fn trouble(&mut self, cx: &mut Context, trouble: Trouble) -> Next {
        match self.step {
            Step::Claim => {
                if let (Some(opened), Some(info)) = (&mut self.opened, &self.info) {
                    opened.presume_recent(info.first_recent, info.uid_next);
                }
                self.open(cx)
            }
            _ => {
                cx.selected = None;
                Next::Done(refuse::trouble(trouble))
            }
        }
    }

    fn refused(&mut self, cx: &mut Context, refusal: Refusal) -> Next {
        cx.selected = None;
        Next::Done(refuse::refusal(&refusal))
    }
}
