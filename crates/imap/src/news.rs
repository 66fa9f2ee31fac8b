//! Keeps the client's picture of the selected mailbox true: asks what changed since it was last
//! told, and tells it. Runs at the end of commands and during IDLE.

use mailbox::dialogue::{Question, Reply, Trouble};
use mailbox::query::{Messages, Vanished};
use mailbox::{Answer, MessageRecord, Query, Refusal, Uid, UidSet};

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
    Vanished { heard: u64 },
    Expunges { left: UidSet, heard: u64 },
    Messages { heard: u64, first_page: Option<u64>, grew: bool },
}

/// Tells what is new in the selected mailbox.
pub(crate) struct News {
    step: Step,
    tell: Tell,
}

impl News {
    /// `None` when there is nothing to tell.
    pub(crate) fn new(cx: &Context, tell: Tell) -> Option<Self> {
        let selected = cx.selected.as_ref()?;
        let wanted = match tell {
            Tell::Nothing => false,
            Tell::NoExpunges => selected.has_changes(),
            Tell::Heard => selected.has_changes() || selected.has_expunges(),
            Tell::All => true,
        };
        wanted.then_some(Self { step: Step::Begin, tell })
    }

    fn done() -> Next {
        Next::Done(Ending::ok(""))
    }

    fn ask_messages(&mut self, selected: &Selected, uids: UidSet, step: Step) -> Next {
        self.step = step;
        let changed_since = Some(selected.told_modseq);
        Next::Ask(Question::Query(Query::Messages(Messages {
            of: selected.of,
            uids,
            changed_since,
            metadata: false,
            chunks: false,
            expunged: false,
            only_envelope: false,
        })))
    }

    fn begin(&mut self, selected: &Selected) -> Next {
        let heard = selected.heard_modseq;
        if self.tell != Tell::NoExpunges && (self.tell == Tell::All || selected.has_expunges()) {
            self.step = Step::Vanished { heard };
            return Next::Ask(Question::Query(Query::Vanished(Vanished {
                of: selected.of,
                since: selected.vanished_modseq,
                known: selected.view.uids(),
                uid_validity: Some(selected.uid_validity),
            })));
        }
        self.begin_messages(selected, heard)
    }

    fn begin_messages(&mut self, selected: &Selected, heard: u64) -> Next {
        let step = Step::Messages { heard, first_page: None, grew: false };
        self.ask_messages(selected, UidSet::all(), step)
    }

    fn tell_expunges(&mut self, cx: &mut Context, left: &UidSet, heard: u64) -> Next {
        let (out, selected, enabled) = cx.parts();
        let Some(selected) = selected else { return Self::done() };
        let n_before = left.n_uids();
        let now: UidSet = left.iter().take(EXPUNGES_AT_ONCE as usize).collect();
        selected.expunge(out, enabled, &now);
        if n_before > now.n_uids() {
            let left = crate::number_set::subtract(left, &now);
            self.step = Step::Expunges { left, heard };
            return Next::More;
        }
        selected.vanished_modseq = selected.vanished_modseq.max(heard);
        selected.unsure_of_expunges = false;
        self.begin_messages(selected, heard)
    }

    fn tell_messages(
        &mut self,
        cx: &mut Context,
        records: &[MessageRecord],
        next: Option<Uid>,
    ) -> Next {
        let Step::Messages { heard, first_page, mut grew } = self.step else {
            return Self::done();
        };
        let (out, selected, enabled) = cx.parts();
        let Some(selected) = selected else { return Self::done() };
        let known_before = selected.view.last_uid();
        grew |= take_in(selected, records);
        if grew && next.is_none() {
            selected.write_exists(out, enabled);
        }
        for record in records.iter().filter(|record| record.uid.value() <= known_before) {
            tell_flags(selected, out, enabled, record);
        }
        // What changed after the first page was read has a greater mod-sequence than all in it.
        let greatest = records.iter().map(|record| record.modseq.value()).max().unwrap_or(0);
        let first_page = first_page.unwrap_or(greatest);
        if let Some(next) = next {
            let rest = UidSet::range(next, Uid::LAST);
            let step = Step::Messages { heard, first_page: Some(first_page), grew };
            return self.ask_messages(selected, rest, step);
        }
        selected.told_modseq = selected.told_modseq.max(heard).max(first_page);
        selected.heard_modseq = selected.heard_modseq.max(selected.told_modseq);
        selected.forget_own();
        selected.unsure_of_changes = false;
        Self::done()
    }
}

/// New messages become known; whether there were any.
fn take_in(selected: &mut Selected, records: &[MessageRecord]) -> bool {
    let known = selected.view.last_uid();
    let new: UidSet =
        records.iter().map(|record| record.uid).filter(|uid| uid.value() > known).collect();
    selected.view.append(&new);
    // RFC 3501 2.3.2: who cannot tell whether another session was told first says \Recent.
    let mut recent: Vec<_> = selected.recent.ranges().to_vec();
    recent.extend_from_slice(new.ranges());
    selected.recent = UidSet::from_ranges(recent);
    !new.is_empty()
}

fn tell_flags(
    selected: &mut Selected,
    out: &mut Output,
    enabled: crate::context::Enabled,
    record: &MessageRecord,
) {
    if selected.is_own(record.uid, record.modseq) {
        return;
    }
    let told = Told {
        uid: record.uid,
        flags: Some(&record.flags),
        modseq: record.modseq,
        // RFC 7162 3.2.4 wants it with QRESYNC; with CONDSTORE it spares the client a question.
        with_uid: enabled.condstore,
    };
    selected.write_fetch_flags(out, enabled, &told);
}

impl Work for News {
    fn go_on(&mut self, cx: &mut Context, reply: Option<Reply>) -> Next {
        let step = std::mem::replace(&mut self.step, Step::Begin);
        match (step, reply) {
            (Step::Begin, None) => match &cx.selected {
                Some(selected) => self.begin(selected),
                None => Self::done(),
            },
            (Step::Vanished { heard }, Some(Reply::Answer(Answer::Vanished(gone)))) => {
                self.tell_expunges(cx, &gone, heard)
            }
            (Step::Expunges { left, heard }, None) => self.tell_expunges(cx, &left, heard),
            (
                step @ Step::Messages { .. },
                Some(Reply::Answer(Answer::Messages(records, next))),
            ) => {
                self.step = step;
                self.tell_messages(cx, &records, next)
            }
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
