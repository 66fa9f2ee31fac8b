//! LSUB (RFC 3501 6.3.9).

use std::collections::BTreeMap;

use mailbox::dialogue::{Question, Reply};
use mailbox::{Answer, MailboxName, Query};

use super::list::write_name;
use super::patterns::Patterns;
use crate::context::Context;
use crate::parse::Lsub;
use crate::work::{Ending, Next, Work, misplaced};

/// Lists subscribed names.
struct Listing {
    patterns: Patterns,
    reaches_above: bool,
    /// Subscribed names not yet looked at, once the store told what there is.
    left: Option<std::vec::IntoIter<MailboxName>>,
    /// Names that match and are not yet told, and whether each is itself subscribed.
    found: BTreeMap<MailboxName, bool>,
}

pub(super) fn begin(cx: &Context, lsub: &Lsub) -> Box<dyn Work> {
    let patterns = Patterns::new(&lsub.reference, &lsub.patterns, cx.config.separator);
    let mut texts = lsub.patterns.iter().chain([&lsub.reference]);
    let reaches_above = texts.any(|text| text.contains('%'));
    Box::new(Listing { patterns, reaches_above, left: None, found: BTreeMap::new() })
}

impl Listing {
    /// RFC 3501 6.3.9: with `%`, a name above a subscribed one that the pattern does not reach is shown in
    /// its place.
    fn look_at(&mut self, name: MailboxName) {
        let Some(n_levels) = self.patterns.n_levels(&name) else { return };
        let levels = &name.components()[..n_levels];
        if n_levels == name.components().len() {
            self.found.insert(name, true);
        } else if let Some(above) = MailboxName::new(levels).filter(|_| self.reaches_above) {
            self.found.entry(above).or_insert(false);
        }
    }

    fn tell(&mut self, cx: &mut Context) -> Next {
        while let Some(name) = self.left.as_mut().and_then(Iterator::next) {
            self.look_at(name);
            if self.patterns.need_rest() {
                return Next::Yield;
            }
        }
        while let Some((name, is_subscribed)) = self.found.pop_first() {
            cx.out.text(if is_subscribed { "* LSUB () " } else { "* LSUB (\\Noselect) " });
            write_name(cx, &name);
            cx.out.text("\r\n");
            if cx.out.is_full() {
                return Next::More;
            }
        }
        Next::Done(Ending::ok("done"))
    }
}

impl Work for Listing {
    fn go_on(&mut self, cx: &mut Context, reply: Option<Reply>) -> Next {
        match reply {
            None if self.left.is_some() => self.tell(cx),
            None if self.patterns.is_empty() => Next::Done(Ending::ok("done")),
            None => Next::Ask(Question::Query(Query::Mailboxes(cx.account()))),
            Some(Reply::Answer(Answer::Mailboxes(infos, others))) => {
                let mailboxes = infos.into_iter().filter(|info| info.subscribed);
                let names: Vec<_> = mailboxes.map(|info| info.name).chain(others).collect();
                self.left = Some(names.into_iter());
                self.tell(cx)
            }
            _ => misplaced(),
        }
    }
}
