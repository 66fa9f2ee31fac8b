//! What SEARCH, SORT and THREAD have in common: finding messages, page by page.

use mailbox::dialogue::Question;
use mailbox::{ModSeq, Query, SearchKey, Uid, UidSet, query};

use crate::context::Context;
use crate::limits::SEARCH_RANGES_MAX;
use crate::parse::{Fault, Key, Parsed};
use crate::selected::Selected;

/// A search under way.
pub(super) struct Finding {
    key: SearchKey,
    pub(super) found: UidSet,
    /// The greatest of what was found.
    pub(super) modseq: Option<ModSeq>,
}

impl Finding {
    /// Resolves what depends on the session.
    pub(super) fn new(cx: &mut Context, key: Key) -> Parsed<Self> {
        let now_s = (cx.now.0 / 1000) as i64;
        let mut resolving = Resolving { selected: cx.selected(), now_s, n_ranges: 0 };
        Ok(Self { key: resolving.key(key)?, found: UidSet::new(), modseq: None })
    }

    /// The same for what looks at each message again anyway: when all are wanted, all that the
    /// client knows are found.
    pub(super) fn begin_for_another_look(&mut self, cx: &mut Context) -> Option<Question> {
        if self.key == SearchKey::All {
            self.found = cx.selected().view.uids();
            return None;
        }
        self.begin(cx)
    }

    /// The first question; `None` when there is nothing to look at.
    pub(super) fn begin(&self, cx: &mut Context) -> Option<Question> {
        self.ask(cx, Uid::FIRST)
    }

    fn ask(&self, cx: &mut Context, from: Uid) -> Option<Question> {
        let selected = cx.selected();
        // Only what the client knows can be found.
        let last = Uid::new(selected.view.last_uid()).filter(|last| *last >= from)?;
        let among = UidSet::range(from, last);
        let search = query::Search { of: selected.of, among, key: self.key.clone() };
        Some(Question::Query(Query::Search(search)))
    }

    /// Takes an answer; the next question, or `None` when all is found.
    pub(super) fn take(
        &mut self,
        cx: &mut Context,
        (uids, modseq, next): (UidSet, Option<ModSeq>, Option<Uid>),
    ) -> Option<Question> {
        let mut ranges = self.found.ranges().to_vec();
        let known = cx.selected().view.known(&uids);
        ranges.extend_from_slice(known.ranges());
        self.found = UidSet::from_ranges(ranges);
        self.modseq = self.modseq.max(modseq);
        self.ask(cx, next?)
    }
}

/// What depends on the session becomes what the store knows.
struct Resolving<'s> {
    selected: &'s Selected,
    now_s: i64,
    /// In all sets so far.
    n_ranges: usize,
}

impl Resolving<'_> {
    fn key(&mut self, key: Key) -> Parsed<SearchKey> {
        let selected = self.selected;
        Ok(match key {
            Key::Stored(key) => key,
            Key::Sequence(set) => self.uids(selected.matching(&set))?,
            Key::Uid(set) => self.uids(selected.named(&set))?,
            Key::Recent => self.uids(selected.recent.clone())?,
            // RFC 5032 2: an interval of seconds before now.
            Key::Arrived(compare, seconds) => {
                SearchKey::Arrived(compare, self.now_s - i64::from(seconds))
            }
            Key::And(keys) => {
                let keys = keys.into_iter().map(|key| self.key(key));
                SearchKey::And(keys.collect::<Parsed<_>>()?)
            }
            Key::Or(left, right) => {
                SearchKey::Or(Box::new(self.key(*left)?), Box::new(self.key(*right)?))
            }
            Key::Not(key) => SearchKey::Not(Box::new(self.key(*key)?)),
        })
    }

    fn uids(&mut self, uids: UidSet) -> Parsed<SearchKey> {
        self.n_ranges += uids.ranges().len();
        match self.n_ranges > SEARCH_RANGES_MAX {
            true => Err(Fault::No("LIMIT", "too many ranges of messages")),
            false => Ok(SearchKey::Uid(uids)),
        }
    }
}
