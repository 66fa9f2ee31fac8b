//! SORT (RFC 5256 3, RFC 5957): finds, then asks for the order.

use std::fmt::Write as _;

use mailbox::dialogue::{Question, Reply};
use mailbox::query::{self, SortBy};
use mailbox::{Answer, ModSeq, Query, Uid};

use super::find::Finding;
use crate::context::Context;
use crate::parse::{Parsed, Sort};
use crate::work::{Ending, Next, Work, misplaced};

/// Numbers written before what was written is sent.
const NUMBERS_AT_ONCE: usize = 4096;

/// Sorts.
struct Sorting {
    uid: bool,
    order: Vec<SortBy>,
    with_modseq: bool,
    finding: Finding,
    /// Still to be told, the next one last.
    left: Vec<Uid>,
    /// Where the next page begins.
    next: Option<u32>,
    /// When the first one was made.
    as_of: Option<ModSeq>,
    has_begun: bool,
}

pub(super) fn begin(cx: &mut Context, sort: Sort) -> Parsed<Box<dyn Work>> {
    if sort.with_modseq {
        cx.enable_condstore();
    }
    let finding = Finding::new(cx, sort.key)?;
    Ok(Box::new(Sorting {
        uid: sort.uid,
        order: sort.order,
        with_modseq: sort.with_modseq,
        finding,
        left: Vec::new(),
        next: None,
        as_of: None,
        has_begun: false,
    }))
}

impl Sorting {
    fn ask(&self, cx: &mut Context, from: u32) -> Next {
        let (of, uids) = (cx.selected().of, self.finding.found.clone());
        let (order, as_of) = (self.order.clone(), self.as_of);
        let sort = query::Sort { of, uids, order, from, as_of };
        Next::Ask(Question::Query(Query::Sort(sort)))
    }

    fn found(&mut self, cx: &mut Context) -> Next {
        cx.out.text("* SORT");
        self.has_begun = true;
        match self.finding.found.is_empty() {
            true => self.tell(cx),
            false => self.ask(cx, 0),
        }
    }

    fn tell(&mut self, cx: &mut Context) -> Next {
        let (out, selected, _) = cx.parts();
        let Some(selected) = selected else { return misplaced() };
        for _ in 0..NUMBERS_AT_ONCE {
            let Some(uid) = self.left.pop() else { break };
            let number = if self.uid { Some(uid.value()) } else { selected.view.seqnum(uid) };
            if let Some(number) = number {
                let _ = write!(out, " {number}");
            }
        }
        if !self.left.is_empty() {
            return Next::More;
        }
        if let Some(from) = self.next.take() {
            return self.ask(cx, from);
        }
        if let (true, Some(modseq)) = (self.with_modseq, self.finding.modseq) {
            let _ = write!(out, " (MODSEQ {modseq})");
        }
        out.text("\r\n");
        Next::Done(Ending::ok("done"))
    }
}

impl Work for Sorting {
    fn go_on(&mut self, cx: &mut Context, reply: Option<Reply>) -> Next {
        let question = match reply {
            None if self.has_begun => return self.tell(cx),
            None => self.finding.begin_for_another_look(cx),
            Some(Reply::Answer(Answer::Found(uids, modseq, next))) => {
                self.finding.take(cx, (uids, modseq, next))
            }
            Some(Reply::Answer(Answer::Sorted(mut uids, next, as_of))) => {
                uids.reverse();
                (self.left, self.next) = (uids, next);
                self.as_of = self.as_of.or(as_of);
                return self.tell(cx);
            }
            _ => return misplaced(),
        };
        match question {
            Some(question) => Next::Ask(question),
            None => self.found(cx),
        }
    }

    fn trouble(&mut self, cx: &mut Context, trouble: mailbox::dialogue::Trouble) -> Next {
        if self.has_begun {
            cx.out.text("\r\n");
        }
        Next::Done(crate::refuse::trouble(trouble))
    }

    fn refused(&mut self, cx: &mut Context, refusal: mailbox::Refusal) -> Next {
        if self.has_begun {
            cx.out.text("\r\n");
        }
        Next::Done(crate::refuse::refusal(&refusal))
    }
}
