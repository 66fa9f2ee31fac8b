//! SEARCH (RFC 9051 6.4.4, RFC 3501 7.2.5, RFC 4731, RFC 5182, RFC 7162 3.1.5).

use std::fmt::Write as _;

use mailbox::dialogue::{Question, Reply, Trouble};
use mailbox::query::Messages;
use mailbox::{Answer, Query, Refusal, Uid, UidSet};

use super::find::Finding;
use crate::context::Context;
use crate::parse::{Parsed, Returned, Search};
use crate::refuse;
use crate::work::{Ending, Next, Work, misplaced};

/// Numbers written before what was written is sent.
const NUMBERS_AT_ONCE: usize = 4096;

enum Step {
    Ask,
    /// Only MIN or MAX is wanted: their mod-sequences are.
    Ends,
    /// Ranges of numbers still to be written.
    Tell(Vec<(u32, u32)>),
}

/// Searches, page by page, then tells.
struct Searching {
    uid: bool,
    returned: Option<Returned>,
    with_modseq: bool,
    step: Step,
    finding: Finding,
}

pub(super) fn begin(cx: &mut Context, search: Search) -> Parsed<Box<dyn Work>> {
    if search.with_modseq {
        cx.enable_condstore();
    }
    if let Some(fault) = search.refused {
        forget(cx, search.returned);
        return Err(fault);
    }
    let finding = match Finding::new(cx, search.key) {
        Ok(finding) => finding,
        Err(fault) => {
            forget(cx, search.returned);
            return Err(fault);
        }
    };
    Ok(Box::new(Searching {
        uid: search.uid,
        returned: search.returned,
        with_modseq: search.with_modseq,
        step: Step::Ask,
        finding,
    }))
}

/// RFC 5182 2.1: what failed saves nothing.
fn forget(cx: &mut Context, returned: Option<Returned>) {
    if returned.is_some_and(|returned| returned.save) {
        cx.selected().saved = UidSet::new();
    }
}

/// The least and the greatest of a set.
fn ends(uids: &UidSet) -> Option<(Uid, Uid)> {
    Some((uids.ranges().first()?.0, uids.ranges().last()?.1))
}

impl Searching {
    /// All is found.
    fn finish(&mut self, cx: &mut Context) -> Next {
        let Some(returned) = self.returned else {
            cx.out.text("* SEARCH");
            return self.begin_telling(cx);
        };
        let only_ends = !returned.all && !returned.count && (returned.min || returned.max);
        if only_ends && let Some((first, last)) = ends(&self.finding.found) {
            let first = returned.min.then_some(first);
            let last = returned.max.then_some(last);
            let wanted: UidSet = first.into_iter().chain(last).collect();
            if returned.save {
                cx.selected().saved = wanted.clone();
            }
            if self.with_modseq {
                return self.ask_ends(cx, wanted);
            }
        } else if returned.save {
            // RFC 5182 2.1
            cx.selected().saved = self.finding.found.clone();
        }
        self.begin_extended(cx)
    }

    /// RFC 4731 3.2: with MIN and MAX alone, their mod-sequences count.
    fn ask_ends(&mut self, cx: &mut Context, uids: UidSet) -> Next {
        self.step = Step::Ends;
        Next::Ask(Question::Query(Query::Messages(Messages {
            of: cx.selected().of,
            uids,
            changed_since: None,
            metadata: false,
            chunks: false,
            expunged: true,
            only_envelope: false,
            recent_to: None,
        })))
    }

    /// ESEARCH but for its list of numbers.
    fn begin_extended(&mut self, cx: &mut Context) -> Next {
        let returned = self.returned.unwrap_or_default();
        let tells = returned.min || returned.max || returned.all || returned.count;
        if !tells {
            // RFC 5182 2.1: to save alone has no response.
            return Next::Done(Ending::ok("saved"));
        }
        let tag = cx.tag.clone();
        let ends = ends(&self.finding.found).map(|ends| self.numbers(cx, ends));
        let out = &mut cx.out;
        out.text("* ESEARCH (TAG ");
        out.string(tag.as_bytes());
        out.text(if self.uid { ") UID" } else { ")" });
        if let (true, Some((first, _))) = (returned.min, ends) {
            let _ = write!(out, " MIN {first}");
        }
        if let (true, Some((_, last))) = (returned.max, ends) {
            let _ = write!(out, " MAX {last}");
        }
        if returned.count {
            let _ = write!(out, " COUNT {}", self.finding.found.n_uids());
        }
        if returned.all && ends.is_some() {
            out.text(" ALL ");
            return self.begin_telling(cx);
        }
        if let (true, true, Some(modseq)) = (self.with_modseq, ends.is_some(), self.finding.modseq)
        {
            let _ = write!(out, " MODSEQ {modseq}");
        }
        out.text("\r\n");
        Next::Done(Ending::ok("done"))
    }

    fn numbers(&self, cx: &mut Context, (first, last): (Uid, Uid)) -> (u32, u32) {
        let view = &cx.selected().view;
        let number = |uid: Uid| if self.uid { Some(uid.value()) } else { view.seqnum(uid) };
        (number(first).unwrap_or(0), number(last).unwrap_or(0))
    }

    fn begin_telling(&mut self, cx: &mut Context) -> Next {
        let mut numbers: Vec<_> = match self.uid {
            true => {
                self.finding.found.ranges().iter().map(|(a, b)| (a.value(), b.value())).collect()
            }
            false => cx.selected().view.seqnums(&self.finding.found),
        };
        // Taken from its end.
        numbers.reverse();
        self.step = Step::Tell(numbers);
        self.tell(cx, true)
    }

    fn tell(&mut self, cx: &mut Context, mut is_first: bool) -> Next {
        let Step::Tell(left) = &mut self.step else { return misplaced() };
        let out = &mut cx.out;
        for _ in 0..NUMBERS_AT_ONCE {
            let Some((first, last)) = left.last_mut() else { break };
            if self.returned.is_some() {
                let comma = if is_first { "" } else { "," };
                let _ = match first == last {
                    true => write!(out, "{comma}{first}"),
                    false => write!(out, "{comma}{first}:{last}"),
                };
                left.pop();
            } else {
                let _ = write!(out, " {first}");
                if first == last {
                    left.pop();
                } else {
                    *first += 1;
                }
            }
            is_first = false;
        }
        if !left.is_empty() {
            return Next::More;
        }
        if let (true, Some(modseq)) = (self.with_modseq, self.finding.modseq) {
            // The last of ESEARCH as well: the RFC leaves the order free, its examples have this one.
            let _ = match self.returned {
                Some(_) => write!(out, " MODSEQ {modseq}"),
                None => write!(out, " (MODSEQ {modseq})"),
            };
        }
        out.text("\r\n");
        Next::Done(Ending::ok("done"))
    }
}

impl Work for Searching {
    fn go_on(&mut self, cx: &mut Context, reply: Option<Reply>) -> Next {
        match (&self.step, reply) {
            (Step::Ask, None) => match self.finding.begin(cx) {
                Some(question) => Next::Ask(question),
                None => self.finish(cx),
            },
            (Step::Ask, Some(Reply::Answer(Answer::Found(uids, modseq, next)))) => {
                match self.finding.take(cx, (uids, modseq, next)) {
                    Some(question) => Next::Ask(question),
                    None => self.finish(cx),
                }
            }
            (Step::Ends, Some(Reply::Answer(Answer::Messages(records, _)))) => {
                self.finding.modseq = records.iter().map(|record| record.modseq).max();
                self.begin_extended(cx)
            }
            (Step::Tell(_), None) => self.tell(cx, false),
            _ => misplaced(),
        }
    }

    fn trouble(&mut self, cx: &mut Context, trouble: Trouble) -> Next {
        forget(cx, self.returned);
        Next::Done(refuse::trouble(trouble))
    }

    fn refused(&mut self, cx: &mut Context, refusal: Refusal) -> Next {
        forget(cx, self.returned);
        Next::Done(refuse::refusal(&refusal))
    }
}
