//! Keeps the client's picture of the selected mailbox true: asks what changed since it was last
//! told, and tells it. Runs at the end of commands and during IDLE.

use mailbox::command::OfMailbox;
use mailbox::dialogue::{Question, Reply, Trouble};
use mailbox::query::{Messages, Vanished};
use mailbox::{Answer, MessageRecord, ModSeq, Query, Refusal, Uid, UidSet};

use crate::context::Context;
use crate::output::Output;
use crate::refuse;
use crate::selected::{Selected, Told};
use crate::work::{Ending, Next, Work};

/// What may be told at the end of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tell {
    /// Nothing.
    Nothing,
    /// What we heard of, but no expunges (RFC 9051 7.5.1).
    NoExpunges,
    /// What we heard of.
    Heard,
    /// All there is, heard of or not.
    All,
}

/// Expunges told in one go before what was written is sent.
const EXPUNGES_AT_ONCE: u64 = 2048;

#[derive(Debug)]
enum Step {
    Begin,
    /// Asked with what was heard of so far.
    Asked {
        heard: u64,
        first_page: Option<u64>,
    },
    /// Expunges not told yet, and what comes then.
    Expunges {
        left: UidSet,
        heard: u64,
        then: Then,
    },
}

/// What comes behind expunges that are told.
#[derive(Debug)]
enum Then {
    /// Messages that changed, ascending, and where to go on.
    Messages(Vec<MessageRecord>, Option<Uid>),
    /// The expunges behind this mod-sequence.
    More(ModSeq),
}

/// What was asked for together with a command: news of a mailbox of which this had been heard.
#[derive(Clone, Copy)]
pub(crate) struct Ahead {
    of: OfMailbox,
    heard: u64,
}

/// What came of that.
pub(crate) struct Early {
    pub(crate) ahead: Ahead,
    pub(crate) answer: Answer,
}

/// Tells what is new in the selected mailbox.
pub(crate) struct News {
    step: Step,
    tell: Tell,
    early: Option<Early>,
    told: UidSet,
}

impl News {
    /// `None` when there is nothing to tell.
    pub(crate) fn new(cx: &Context, tell: Tell, early: Option<Early>) -> Option<Self> {
        let selected = cx.selected.as_ref()?;
        // Why: the command may have selected another one.
        let early = early.filter(|early| early.ahead.of == selected.of);
        let told = UidSet::new();
        is_wanted(selected, tell).then_some(Self { step: Step::Begin, tell, early, told })
    }

    /// Messages of which flags were told.
    pub(crate) fn told(&self) -> &UidSet {
        &self.told
    }

    /// What would be asked now, to be asked together with a command.
    pub(crate) fn ahead(cx: &Context, tell: Tell) -> Option<(Ahead, Query)> {
        ahead(cx.selected.as_ref()?, tell)
    }

    fn done() -> Next {
        Next::Done(Ending::ok(""))
    }

    fn begin(&mut self, cx: &mut Context) -> Next {
        if let Some(Early { ahead, answer }) = self.early.take() {
            self.step = Step::Asked { heard: ahead.heard, first_page: None };
            return self.answered(cx, answer);
        }
        let Some(selected) = &cx.selected else { return Self::done() };
        self.step = Step::Asked { heard: selected.heard_modseq, first_page: None };
        Next::Ask(Question::Query(query(selected, self.tell)))
    }

    fn answered(&mut self, cx: &mut Context, answer: Answer) -> Next {
        match (&self.step, answer) {
            (Step::Asked { heard, .. }, Answer::News(gone, records, next, up_to)) => {
                let heard = *heard;
                let Some(selected) = &cx.selected else { return Self::done() };
                // Why only known ones: all in a range were asked about, and some may have been told by the
                // command that this ends.
                let gone = selected.view.known(&gone);
                let then = up_to.map_or(Then::Messages(records, next), Then::More);
                self.tell_expunges(cx, &gone, heard, then)
            }
            (Step::Asked { .. }, Answer::Messages(records, next)) => {
                self.tell_messages(cx, &records, next)
            }
            _ => Self::done(),
        }
    }

    fn tell_expunges(&mut self, cx: &mut Context, left: &UidSet, heard: u64, then: Then) -> Next {
        let (out, selected, enabled) = cx.parts();
        let Some(selected) = selected else { return Self::done() };
        let n_before = left.n_uids();
        let now: UidSet = left.iter().take(EXPUNGES_AT_ONCE as usize).collect();
        selected.expunge(out, enabled, &now);
        if n_before > now.n_uids() {
            let left = crate::number_set::subtract(left, &now);
            self.step = Step::Expunges { left, heard, then };
            return Next::More;
        }
        let (records, next) = match then {
            Then::Messages(records, next) => (records, next),
            Then::More(modseq) => {
                selected.vanished_modseq = selected.vanished_modseq.max(modseq.value());
                self.step = Step::Asked { heard, first_page: None };
                return Next::Ask(Question::Query(query(selected, self.tell)));
            }
        };
        // Why also what came meanwhile: expunges and the first page were read at the same moment.
        selected.vanished_modseq = selected.vanished_modseq.max(heard).max(greatest(&records));
        selected.unsure_of_expunges = false;
        self.step = Step::Asked { heard, first_page: None };
        self.tell_messages(cx, &records, next)
    }

    fn tell_messages(
        &mut self,
        cx: &mut Context,
        records: &[MessageRecord],
        next: Option<Uid>,
    ) -> Next {
        let Step::Asked { heard, first_page } = self.step else { return Self::done() };
        let (out, selected, enabled) = cx.parts();
        let Some(selected) = selected else { return Self::done() };
        let known_before = selected.view.last_uid();
        // Why with each page: the next one may not come, and the client counts by what it was told.
        if take_in(selected, records) {
            selected.write_exists(out, enabled);
            selected.told_beside = true;
        }
        for record in records.iter().filter(|record| record.uid.value() <= known_before) {
            if tell_flags(selected, out, enabled, record) {
                self.told.push(record.uid);
            }
        }
        // What changed after the first page was read has a greater mod-sequence than all in it.
        let first_page = first_page.unwrap_or_else(|| greatest(records));
        if let Some(next) = next {
            let rest = UidSet::range(next, Uid::LAST);
            self.step = Step::Asked { heard, first_page: Some(first_page) };
            return Next::Ask(Question::Query(Query::Messages(changed(selected, rest))));
        }
        selected.told_modseq = selected.told_modseq.max(heard).max(first_page);
        selected.heard_modseq = selected.heard_modseq.max(selected.told_modseq);
        selected.pass_own();
        selected.unsure_of_changes = false;
        selected.told_beside &= self.tell != Tell::All;
        Self::done()
    }
}

fn is_wanted(selected: &Selected, tell: Tell) -> bool {
    match tell {
        Tell::Nothing => false,
        Tell::NoExpunges => selected.has_changes(),
        Tell::Heard => selected.has_changes() || selected.has_expunges(),
        Tell::All => true,
    }
}

fn ahead(selected: &Selected, tell: Tell) -> Option<(Ahead, Query)> {
    if !is_wanted(selected, tell) {
        return None;
    }
    let query = query(selected, tell);
    Some((Ahead { of: selected.of, heard: selected.heard_modseq }, query))
}

fn query(selected: &Selected, tell: Tell) -> Query {
    let messages = changed(selected, UidSet::all());
    if tell != Tell::NoExpunges && (tell == Tell::All || selected.has_expunges()) {
        let vanished = Vanished {
            of: selected.of,
            since: selected.vanished_modseq,
            // Why not each run of them: a mailbox may have a million, and this is asked for each arrival.
            known: selected.view.span(),
            uid_validity: Some(selected.uid_validity),
        };
        return Query::News(vanished, messages, true);
    }
    Query::Messages(messages)
}

/// Messages that changed since that was told.
fn changed(selected: &Selected, uids: UidSet) -> Messages {
    Messages {
        of: selected.of,
        uids,
        changed_since: Some(selected.told_modseq),
        metadata: false,
        chunks: false,
        expunged: false,
        only_envelope: false,
        recent_to: selected.recent_to,
    }
}

/// The mailbox has come at least so far when these were read.
fn greatest(records: &[MessageRecord]) -> u64 {
    records.iter().map(|record| record.modseq.value()).max().unwrap_or(0)
}

/// New messages become known; whether there were any.
fn take_in(selected: &mut Selected, records: &[MessageRecord]) -> bool {
    let known = selected.view.last_uid();
    let arrivals = || records.iter().filter(move |record| record.uid.value() > known);
    let new: UidSet = arrivals().map(|record| record.uid).collect();
    let recent: UidSet =
        arrivals().filter(|record| record.recent).map(|record| record.uid).collect();
    selected.take_in(&new, &recent);
    !new.is_empty()
}

/// False if they are known.
fn tell_flags(
    selected: &mut Selected,
    out: &mut Output,
    enabled: crate::context::Enabled,
    record: &MessageRecord,
) -> bool {
    // Why the second: asked together with a command of our own, the answer has what that did.
    if selected.is_own(record.uid, record.modseq) || record.modseq.value() <= selected.told_modseq {
        return false;
    }
    let told = Told {
        uid: record.uid,
        flags: Some(&record.flags),
        modseq: record.modseq,
        // RFC 9051 7.5.2 and, with QRESYNC, RFC 7162 3.2.4 want it; with CONDSTORE it spares the client a
        // question.
        with_uid: enabled.rev2 || enabled.condstore,
    };
    selected.write_fetch_flags(out, enabled, &told);
    true
}

impl Work for News {
    fn go_on(&mut self, cx: &mut Context, reply: Option<Reply>) -> Next {
        match reply {
            Some(Reply::Answer(answer)) => self.answered(cx, answer),
            None => match std::mem::replace(&mut self.step, Step::Begin) {
                Step::Begin => self.begin(cx),
                Step::Expunges { left, heard, then } => self.tell_expunges(cx, &left, heard, then),
                Step::Asked { .. } => Self::done(),
            },
            _ => Self::done(),
        }
    }

    /// What cannot be found out now is told later.
    fn trouble(&mut self, cx: &mut Context, _: Trouble) -> Next {
        if let Some(selected) = &mut cx.selected {
            selected.unsure_of_changes = true;
            selected.unsure_of_expunges = true;
        }
        Self::done()
    }

    /// RFC 2180 3.3: who has a mailbox selected that is gone is sent away.
    fn refused(&mut self, _: &mut Context, refusal: Refusal) -> Next {
        refuse::farewell(&refusal).map_or_else(Self::done, Next::Bye)
    }
}

#[cfg(test)]
mod tests {
    use mailbox::{AccountId, MailboxId, MailboxInfo, MailboxName, UidValidity};

    use super::*;

    fn selected() -> Selected {
        let info = MailboxInfo {
            of: OfMailbox { account: AccountId([7; 16]), mailbox: MailboxId(1) },
            name: MailboxName::inbox(),
            selectable: true,
            has_children: false,
            subscribed: false,
            special_use: None,
            uid_validity: UidValidity(std::num::NonZeroU32::MIN),
            uid_next: Uid::FIRST,
            highest_modseq: ModSeq::FIRST,
            n_messages: 0,
            n_unseen: 0,
            n_deleted: 0,
            n_recent: 0,
            first_recent: Uid::FIRST,
            size_bytes: 0,
            deleted_bytes: 0,
            keywords: Vec::new(),
        };
        Selected::new(&info, false)
    }

    /// Every second UID, so many.
    fn runs(n: usize) -> UidSet {
        (0..n as u32).map(|k| Uid::new(2 * k + 1).expect("a UID")).collect()
    }

    #[test]
    fn what_is_known_in_many_runs_is_asked_about_as_one_range() {
        let mut selected = selected();
        selected.view.append(&runs(10_000));
        assert!(ahead(&selected, Tell::Heard).is_none(), "nothing was heard of");
        selected.unsure_of_expunges = true;
        let Some((_, Query::News(vanished, _, true))) = ahead(&selected, Tell::Heard) else {
            panic!("it is asked about with a command")
        };
        let last = Uid::new(19_999).expect("a UID");
        assert_eq!(vanished.known, UidSet::range(Uid::FIRST, last));
    }
}
