//! SEARCH (RFC 9051 6.4.4, RFC 3501 7.2.5, RFC 7162 3.1.5).

use std::fmt::Write as _;

use mailbox::dialogue::{Question, Reply};
use mailbox::{Answer, ModSeq, Query, SearchKey, Uid, UidSet, query};

use crate::context::Context;
use crate::number_set::intersect;
use crate::parse::{Fault, Key, Parsed, Search};
use crate::selected::Selected;
use crate::work::{Ending, Next, Work, misplaced};

/// Numbers written before what was written is sent.
const NUMBERS_AT_ONCE: usize = 4096;

enum Step {
    Ask,
    /// Numbers still to be written.
    Tell(Vec<(u32, u32)>),
}

/// Searches, page by page, then tells.
struct Searching {
    uid: bool,
    key: SearchKey,
    with_modseq: bool,
    step: Step,
    found: UidSet,
    modseq: Option<ModSeq>,
}

pub(super) fn begin(cx: &mut Context, search: Search) -> Parsed<Box<dyn Work>> {
    // RFC 7162 3.1: asking for MODSEQ switches CONDSTORE on.
    cx.enabled.condstore |= search.with_modseq;
    let now_s = (cx.now.0 / 1000) as i64;
    let key = resolve(cx.selected(), search.key, now_s).map_err(Fault::Bad)?;
    Ok(Box::new(Searching {
        uid: search.uid,
        key,
        with_modseq: search.with_modseq,
        step: Step::Ask,
        found: UidSet::new(),
        modseq: None,
    }))
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

impl Searching {
    fn ask(&self, cx: &mut Context, from: Uid) -> Next {
        let selected = cx.selected();
        // Only what the client knows can be found.
        let last = Uid::new(selected.view.last_uid()).unwrap_or(Uid::FIRST);
        let among = UidSet::range(from.min(last), last);
        let search = query::Search { of: selected.of, among, key: self.key.clone() };
        Next::Ask(Question::Query(Query::Search(search)))
    }

    fn begin_telling(&mut self, cx: &mut Context) {
        let view = &cx.selected().view;
        let numbers = match self.uid {
            true => {
                let known = intersect(&self.found, &view.uids());
                known.ranges().iter().map(|(a, b)| (a.value(), b.value())).collect()
            }
            false => view.seqnums(&self.found),
        };
        self.step = Step::Tell(numbers);
        cx.out.text("* SEARCH");
    }

    fn tell(&mut self, cx: &mut Context) -> Next {
        let Step::Tell(left) = &mut self.step else { return misplaced() };
        let mut n_written = 0;
        let mut done = 0;
        for (first, last) in left.iter_mut() {
            while *first <= *last && n_written < NUMBERS_AT_ONCE {
                let _ = write!(cx.out, " {first}");
                n_written += 1;
                if *first == *last {
                    done += 1;
                    break;
                }
                *first += 1;
            }
            if n_written == NUMBERS_AT_ONCE {
                break;
            }
        }
        left.drain(..done);
        if !left.is_empty() {
            return Next::More;
        }
        if let (true, Some(modseq)) = (self.with_modseq, self.modseq) {
            let _ = write!(cx.out, " (MODSEQ {modseq})");
        }
        cx.out.text("\r\n");
        Next::Done(Ending::ok("done"))
    }
}

impl Work for Searching {
    fn go_on(&mut self, cx: &mut Context, reply: Option<Reply>) -> Next {
        match (&self.step, reply) {
            (Step::Ask, None) if cx.selected().view.len() == 0 => {
                self.begin_telling(cx);
                self.tell(cx)
            }
            (Step::Ask, None) => self.ask(cx, Uid::FIRST),
            (Step::Ask, Some(Reply::Answer(Answer::Found(uids, modseq, next)))) => {
                let mut ranges = self.found.ranges().to_vec();
                ranges.extend_from_slice(uids.ranges());
                self.found = UidSet::from_ranges(ranges);
                self.modseq = self.modseq.max(modseq);
                let last = cx.selected().view.last_uid();
                match next.filter(|next| next.value() <= last) {
                    Some(next) => self.ask(cx, next),
                    None => {
                        self.begin_telling(cx);
                        self.tell(cx)
                    }
                }
            }
            (Step::Tell(_), None) => self.tell(cx),
            _ => misplaced(),
        }
    }
}
