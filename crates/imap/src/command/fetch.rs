//! FETCH and UID FETCH (RFC 9051 6.4.5): page by page, and within a message chunk by chunk.

mod binary;
mod fields;
mod row;
mod section;

use std::collections::VecDeque;

use mailbox::dialogue::{Question, Reply, Trouble};
use mailbox::outcome::Stored;
use mailbox::query::{Messages, Vanished};
use mailbox::{
    Answer, Command, FlagChange, Flags, MessageRecord, Outcome, Query, Refusal, SystemFlags, Uid,
    UidSet, command,
};

use self::row::{Progress, Row};
use super::store::note_own;
use crate::context::Context;
use crate::number_set::{subtract, uid_set};
use crate::parse::{Fault, Fetch, Item, Parsed, Text};
use crate::refuse;
use crate::work::{Ending, Next, Work, misplaced};

enum Step {
    /// What vanished is asked for.
    Vanished,
    /// Ask for the next page.
    Page,
    /// A page was asked for.
    Messages,
    /// `\Seen` is being set.
    Seen { left: UidSet },
    /// The page is being told.
    Tell,
}

/// Limit: ranges in one question. All that are left of a large mailbox full of gaps, in the question for each
/// page, would be read and written again for every few hundred messages.
const QUESTION_RANGES_MAX: usize = 4096;

/// Tells of messages.
struct Fetching {
    fetch: Fetch,
    metadata: bool,
    only_envelope: bool,
    chunks: bool,
    sets_seen: bool,
    step: Step,
    /// Not yet answered.
    left: UidSet,
    /// Of those, what the question under way is about.
    asked: UidSet,
    page: VecDeque<Row>,
    /// Messages that are gone altogether.
    is_any_gone: bool,
    /// Parts whose transfer encoding nobody knows.
    is_any_unknown: bool,
    /// Octets that could not be had.
    trouble: Option<Trouble>,
}

pub(super) fn begin(cx: &mut Context, fetch: Fetch) -> Parsed<Box<dyn Work>> {
    if fetch.items.contains(&Item::ModSeq) {
        cx.enable_condstore();
    }
    let selected = cx.selected();
    let left = selected.resolve(fetch.uid, &fetch.set).map_err(Fault::Bad)?;
    let sections = || {
        fetch.items.iter().filter_map(|item| match item {
            Item::Section(section) | Item::Binary(section) => Some(section),
            _ => None,
        })
    };
    let needs_structure =
        sections().any(|section| !section.part.path.is_empty() || section.part.text != Text::Whole);
    let shows_structure = fetch.items.iter().any(|item| {
        matches!(
            item,
            Item::Structure { .. } | Item::Preview | Item::Binary(_) | Item::BinarySize(_)
        )
    });
    let shows_envelope = fetch.items.contains(&Item::Envelope);
    let has_size = fetch.items.iter().any(|item| matches!(item, Item::BinarySize(_)));
    Ok(Box::new(Fetching {
        metadata: needs_structure || shows_structure || shows_envelope,
        only_envelope: !needs_structure && !shows_structure,
        chunks: sections().next().is_some() || has_size,
        sets_seen: !selected.read_only && sections().any(|section| !section.peek),
        step: Step::Page,
        left,
        asked: UidSet::new(),
        page: VecDeque::new(),
        is_any_gone: false,
        is_any_unknown: false,
        trouble: None,
        fetch,
    }))
}

impl Fetching {
    /// RFC 7162 3.2.6
    fn ask_vanished(&mut self, cx: &mut Context) -> Next {
        let selected = cx.selected();
        // Why `*` has no end here: what lay above the last message there is may be what is gone, and `n:*` is
        // how a client says all it may know.
        let known = match self.fetch.set.ranges(u32::MAX) {
            Some(ranges) => uid_set(&ranges),
            None => selected.saved.clone(),
        };
        let of = selected.of;
        let since = self.fetch.changed_since.unwrap_or(0);
        self.step = Step::Vanished;
        Next::Ask(Question::Query(Query::Vanished(Vanished {
            of,
            since,
            known,
            uid_validity: Some(selected.uid_validity),
        })))
    }

    fn ask_page(&mut self, cx: &mut Context) -> Next {
        if self.left.is_empty() {
            return self.done();
        }
        self.step = Step::Messages;
        self.asked = self.left.head(QUESTION_RANGES_MAX);
        let messages = Messages {
            of: cx.selected().of,
            uids: self.asked.clone(),
            changed_since: self.fetch.changed_since,
            metadata: self.metadata,
            chunks: self.chunks,
            // What the client was not told is gone can be fetched; it does not change any more.
            expunged: self.fetch.changed_since.is_none(),
            only_envelope: self.only_envelope,
            recent_to: None,
        };
        let is_lasting = !self.sets_seen
            && self.fetch.changed_since.is_none()
            && !self.fetch.items.iter().any(|item| matches!(item, Item::Flags | Item::ModSeq));
        let query = if is_lasting { Query::Bodies(messages) } else { Query::Messages(messages) };
        Next::Ask(Question::Query(query))
    }

    fn got_page(
        &mut self,
        cx: &mut Context,
        records: Vec<MessageRecord>,
        next: Option<Uid>,
    ) -> Next {
        let last = self.asked.ranges().last().map(|range| range.1);
        let left = match (next, last) {
            (Some(next), _) => self.left.starting_at(next),
            (None, Some(last)) => self.left.above(last),
            (None, None) => UidSet::new(),
        };
        if self.fetch.changed_since.is_none() {
            let answered = subtract(&self.asked, &left);
            self.is_any_gone |= answered.n_uids() > records.len() as u64;
        }
        self.left = left;
        let is_unseen = |record: &&MessageRecord| {
            !record.expunged && !record.flags.system.contains(SystemFlags::SEEN)
        };
        let unseen: UidSet = records.iter().filter(is_unseen).map(|record| record.uid).collect();
        self.page = records.into_iter().map(Row::new).collect();
        if self.sets_seen && !unseen.is_empty() {
            return self.ask_seen(cx, unseen);
        }
        self.step = Step::Tell;
        self.tell(cx)
    }

    fn ask_seen(&mut self, cx: &mut Context, left: UidSet) -> Next {
        let store = command::Store {
            account: cx.account(),
            mailbox: cx.selected().of.mailbox,
            uids: left.clone(),
            change: FlagChange::Add(Flags { system: SystemFlags::SEEN, ..Flags::default() }),
            unchanged_since: None,
        };
        self.step = Step::Seen { left };
        Next::Ask(Question::Command(Box::new(Command::Store(store)), vec![]))
    }

    fn seen(&mut self, cx: &mut Context, stored: Stored, left: &UidSet) -> Next {
        if let Some(selected) = &mut cx.selected {
            note_own(selected, &stored, true);
        }
        let next = stored.next;
        let mut stored = stored.messages.into_iter().peekable();
        for row in &mut self.page {
            while stored.next_if(|message| message.uid < row.uid()).is_some() {}
            if let Some(message) = stored.next_if(|message| message.uid == row.uid()) {
                row.was_seen(message.flags, message.modseq);
            }
        }
        if let Some(next) = next {
            return self.ask_seen(cx, left.starting_at(next));
        }
        self.step = Step::Tell;
        self.tell(cx)
    }

    fn tell(&mut self, cx: &mut Context) -> Next {
        while let Some(row) = self.page.front_mut() {
            match row.tell(cx, &self.fetch.items) {
                Progress::Done => {
                    self.is_any_unknown |= row.has_unknown();
                    self.page.pop_front();
                }
                Progress::Full => return Next::More,
                Progress::Damaged => return self.trouble(cx, Trouble::Damaged),
                Progress::Chunk(chunk) => {
                    return Next::Ask(Question::Chunk(cx.account(), chunk));
                }
            }
            if cx.out.is_full() {
                return Next::More;
            }
        }
        self.ask_page(cx)
    }

    fn done(&self) -> Next {
        if let Some(trouble) = self.trouble {
            return Next::Done(refuse::trouble(trouble));
        }
        if self.is_any_unknown {
            let ending = Ending::no("a transfer encoding is not known").code("UNKNOWN-CTE");
            return Next::Done(ending);
        }
        // What is gone and not yet told, and cannot be had any more.
        if self.is_any_gone && !self.fetch.uid {
            return Next::Done(refuse::some_are_gone());
        }
        Next::Done(Ending::ok("done"))
    }
}

impl Work for Fetching {
    fn go_on(&mut self, cx: &mut Context, reply: Option<Reply>) -> Next {
        match (std::mem::replace(&mut self.step, Step::Tell), reply) {
            (Step::Page, None) if self.fetch.vanished => self.ask_vanished(cx),
            (Step::Page, None) => self.ask_page(cx),
            (Step::Vanished, Some(Reply::Answer(Answer::Vanished(gone)))) => {
                // What the client believes to be there it is told at the end.
                let gone = subtract(&gone, &cx.selected().view.uids());
                if !gone.is_empty() {
                    cx.out.text(&format!("* VANISHED (EARLIER) {gone}\r\n"));
                }
                self.ask_page(cx)
            }
            (Step::Messages, Some(Reply::Answer(Answer::Messages(records, next)))) => {
                self.got_page(cx, records, next)
            }
            (Step::Seen { left }, Some(Reply::Outcome(Outcome::Stored(stored)))) => {
                self.seen(cx, stored, &left)
            }
            (Step::Tell, None) => self.tell(cx),
            (Step::Tell, Some(Reply::Chunk(octets))) => match self.page.front_mut() {
                Some(row) => match row.got(octets) {
                    true => self.tell(cx),
                    false => self.trouble(cx, Trouble::Damaged),
                },
                None => misplaced(),
            },
            _ => misplaced(),
        }
    }

    /// Why: the rows of the page were read before, and the client would take old flags for what came last.
    fn bears_news(&self) -> bool {
        false
    }

    fn trouble(&mut self, cx: &mut Context, trouble: Trouble) -> Next {
        // Why no NO: clients blame the message for it, and mbsync never asks for that one again. Whoever
        // loses the connection comes back for it.
        let is_away = !matches!(trouble, Trouble::Damaged);
        match self.step {
            // A message can be read while `\Seen` cannot be set.
            Step::Seen { .. } => {
                self.step = Step::Tell;
                self.tell(cx)
            }
            Step::Tell if is_away => Next::Abort,
            Step::Tell => {
                match self.page.front_mut().is_some_and(Row::give_up) {
                    true => {
                        self.trouble = Some(trouble);
                        self.tell(cx)
                    }
                    // A literal was begun: its octets must be right or not be.
                    false => Next::Abort,
                }
            }
            _ if self.chunks && is_away => Next::Bye(refuse::AWAY),
            _ => Next::Done(refuse::trouble(trouble)),
        }
    }

    fn refused(&mut self, cx: &mut Context, refusal: Refusal) -> Next {
        match self.step {
            Step::Seen { .. } => {
                self.step = Step::Tell;
                self.tell(cx)
            }
            _ => Next::Done(refuse::refusal(&refusal)),
        }
    }
}
