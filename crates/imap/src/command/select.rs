//! SELECT and EXAMINE (RFC 9051 6.3.2, RFC 7162 3.1.2).

use std::fmt::Write as _;

use mailbox::dialogue::{Question, Reply};
use mailbox::query::Uids;
use mailbox::{
    Answer, Command, MailboxInfo, Outcome, Query, Refusal, Uid, UidSet, command::NamedMailbox,
};

use crate::context::Context;
use crate::number_set::{intersect, uid_set};
use crate::parse::Select;
use crate::refuse;
use crate::selected::Selected;
use crate::work::{Ending, Next, Work, misplaced};

enum Step {
    Begin,
    Find,
    Watch,
    Uids,
    Claim,
}

/// Opens a mailbox: looks it up, watches it, learns its UIDs, claims `\Recent` if there is any.
pub(super) struct Selecting {
    select: Select,
    step: Step,
    info: Option<Box<MailboxInfo>>,
    opened: Option<Selected>,
}

impl Selecting {
    pub(super) fn new(select: Select) -> Self {
        Self { select, step: Step::Begin, info: None, opened: None }
    }

    fn ask_uids(&mut self, from: Uid) -> Next {
        let Some(opened) = &self.opened else { return misplaced() };
        self.step = Step::Uids;
        Next::Ask(Question::Query(Query::Uids(Uids { of: opened.of, from })))
    }

    fn found(&mut self, info: Box<MailboxInfo>) -> Next {
        if !info.selectable {
            return Next::Done(refuse::refusal(&Refusal::NotSelectable));
        }
        self.opened = Some(Selected::new(&info, self.select.read_only));
        self.step = Step::Watch;
        let of = info.of;
        self.info = Some(info);
        Next::Ask(Question::Watch(of))
    }

    fn uids(&mut self, cx: &mut Context, uids: &UidSet, next: Option<Uid>) -> Next {
        let (Some(opened), Some(info)) = (&mut self.opened, &self.info) else {
            return misplaced();
        };
        // What arrived since the mailbox was looked up is told as news.
        let then = uid_set(&[(1, info.uid_next.value() - 1)]);
        opened.view.append(&intersect(uids, &then));
        if let Some(next) = next.filter(|next| *next < info.uid_next) {
            return self.ask_uids(next);
        }
        if info.n_recent > 0 && !self.select.read_only {
            self.step = Step::Claim;
            return Next::Ask(Question::Command(Box::new(Command::ClaimRecent(info.of)), vec![]));
        }
        opened.claim_recent(info.first_recent, info.uid_next);
        self.open(cx)
    }

    fn open(&mut self, cx: &mut Context) -> Next {
        let (Some(opened), Some(info)) = (self.opened.take(), self.info.take()) else {
            return misplaced();
        };
        let out = &mut cx.out;
        opened.write_flags(out);
        opened.write_exists(out);
        let _ = write!(out, "* OK [UIDVALIDITY {}] UIDs are valid\r\n", info.uid_validity);
        let _ = write!(out, "* OK [UIDNEXT {}] next UID\r\n", info.uid_next);
        let _ = write!(out, "* OK [HIGHESTMODSEQ {}] highest\r\n", info.highest_modseq);
        let _ = write!(out, "* OK [MAILBOXID (M{})] object id\r\n", info.of.mailbox.0);
        cx.enabled.condstore |= self.select.condstore;
        cx.selected = Some(opened);
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
            (Step::Begin, None) => {
                // RFC 9051 6.3.2: whatever comes of it, the old mailbox is no longer selected.
                if cx.selected.take().is_some() {
                    cx.out.text("* OK [CLOSED] the mailbox before is closed\r\n");
                }
                self.step = Step::Find;
                let name = self.select.name.clone();
                let name = NamedMailbox { account: cx.account(), name };
                Next::Ask(Question::Query(Query::Mailbox(name)))
            }
            (Step::Find, Some(Reply::Answer(Answer::Mailbox(info)))) => self.found(info),
            (Step::Watch, Some(Reply::Done)) => self.ask_uids(Uid::FIRST),
            (Step::Uids, Some(Reply::Answer(Answer::Uids(uids, next)))) => {
                self.uids(cx, &uids, next)
            }
            (Step::Claim, Some(Reply::Outcome(Outcome::RecentFrom(from)))) => {
                if let (Some(opened), Some(info)) = (&mut self.opened, &self.info) {
                    opened.claim_recent(from, info.uid_next);
                }
                self.open(cx)
            }
            _ => misplaced(),
        }
    }

    /// A mailbox can be read while `\Recent` cannot be claimed.
    fn trouble(&mut self, cx: &mut Context, trouble: mailbox::dialogue::Trouble) -> Next {
        match self.step {
            Step::Claim => self.open(cx),
            _ => Next::Done(refuse::trouble(trouble)),
        }
    }
}
