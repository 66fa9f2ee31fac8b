//! What SEARCH, SORT and THREAD have in common: finding messages, page by page.

use mailbox::dialogue::Question;
use mailbox::{ModSeq, Query, SearchKey, Uid, UidSet, query};

use crate::context::Context;
use crate::number_set::intersect;
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
        let key = resolve(cx.selected(), key, now_s).map_err(Fault::Bad)?;
        Ok(Self { key, found: UidSet::new(), modseq: None })
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
        let known = intersect(&uids, &cx.selected().view.uids());
        ranges.extend_from_slice(known.ranges());
        self.found = UidSet::from_ranges(ranges);
        self.modseq = self.modseq.max(modseq);
        self.ask(cx, next?)
    }
}

/// What depends on the session becomes what the store knows.
fn resolve(selected: &Selected, key: Key, now_s: i64) -> Result<SearchKey, &'static str> {
    let boxed = |key: Box<Key>| resolve(selected, *key, now_s).map(Box::new);
    Ok(match key {
        Key::Stored(key) => key,
        Key::Sequence(set) => SearchKey::Uid(selected.resolve(false, &set)?),
        Key::Uid(set) => SearchKey::Uid(selected.resolve(true, &set)?),
        Key::Recent => SearchKey::Uid(selected.recent.clone()),
        // RFC 5032 2: an interval of seconds before now.
        Key::Arrived(compare, seconds) => SearchKey::Arrived(compare, now_s - i64::from(seconds)),
        Key::And(keys) => SearchKey::And(
            keys.into_iter().map(|key| resolve(selected, key, now_s)).collect::<Result<_, _>>()?,
        ),
        Key::Or(left, right) => SearchKey::Or(boxed(left)?, boxed(right)?),
        Key::Not(inner) => SearchKey::Not(boxed(inner)?),
    })
}
