//! What SEARCH, SORT and THREAD have in common: finding messages, page by page.

use mailbox::dialogue::Question;
use mailbox::{ModSeq, Query, SearchKey, Uid, UidSet, query};

use crate::context::Context;
use crate::number_set::intersect;
use crate::parse::Key;
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
    pub(super) fn new(cx: &mut Context, key: Key) -> Self {
        let now_s = (cx.now.0 / 1000) as i64;
        let key = resolve(cx.selected(), key, now_s);
        Self { key, found: UidSet::new(), modseq: None }
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
        let known = intersect(&uids, &cx.selected().view.uids());
        ranges.extend_from_slice(known.ranges());
        self.found = UidSet::from_ranges(ranges);
        self.modseq = self.modseq.max(modseq);
        self.ask(cx, next?)
    }
}

/// What depends on the session becomes what the store knows.
fn resolve(selected: &Selected, key: Key, now_s: i64) -> SearchKey {
    let inner = |key: Key| resolve(selected, key, now_s);
    match key {
        Key::Stored(key) => key,
        Key::Sequence(set) => SearchKey::Uid(selected.matching(&set)),
        Key::Uid(set) => SearchKey::Uid(intersect(&selected.named(&set), &selected.view.uids())),
        Key::Recent => SearchKey::Uid(selected.recent.clone()),
        // RFC 5032 2: an interval of seconds before now.
        Key::Arrived(compare, seconds) => SearchKey::Arrived(compare, now_s - i64::from(seconds)),
        Key::And(keys) => SearchKey::And(keys.into_iter().map(inner).collect()),
        Key::Or(left, right) => SearchKey::Or(Box::new(inner(*left)), Box::new(inner(*right))),
        Key::Not(key) => SearchKey::Not(Box::new(inner(*key))),
    }
}
