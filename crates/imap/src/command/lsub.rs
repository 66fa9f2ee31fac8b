//! LSUB (RFC 3501 6.3.9).

use std::collections::{BTreeMap, btree_map};

use mailbox::dialogue::{Question, Reply};
use mailbox::{Answer, MailboxInfo, MailboxName, Query};

use super::list::write_name;
use super::patterns::Patterns;
use crate::context::Context;
use crate::parse::Lsub;
use crate::work::{Ending, Next, Work, misplaced};

/// Lists subscribed names.
struct Listing {
    patterns: Patterns,
    reaches_above: bool,
    /// Still to be told, once the store told what there is.
    left: Option<btree_map::IntoIter<MailboxName, bool>>,
}

pub(super) fn begin(cx: &Context, lsub: &Lsub) -> Box<dyn Work> {
    let patterns = Patterns::new(&lsub.reference, &lsub.patterns, cx.config.separator);
    let mut texts = lsub.patterns.iter().chain([&lsub.reference]);
    let reaches_above = texts.any(|text| text.contains('%'));
    Box::new(Listing { patterns, reaches_above, left: None })
}

/// Names that match, and whether each is itself subscribed. RFC 3501 6.3.9: with `%`, a name above a
/// subscribed one that the pattern does not reach is shown in its place.
fn found(
    patterns: &Patterns,
    reaches_above: bool,
    infos: &[MailboxInfo],
    others: &[MailboxName],
) -> BTreeMap<MailboxName, bool> {
    let mailboxes = infos.iter().filter(|info| info.subscribed).map(|info| &info.name);
    let mut found = BTreeMap::new();
    for name in mailboxes.chain(others) {
        let Some(n_levels) = patterns.n_levels(name) else { continue };
        let levels = &name.components()[..n_levels];
        if n_levels == name.components().len() {
            found.insert(name.clone(), true);
        } else if let Some(above) = MailboxName::new(levels).filter(|_| reaches_above) {
            found.entry(above).or_insert(false);
        }
    }
    found
}

impl Listing {
    fn tell(&mut self, cx: &mut Context) -> Next {
        for (name, is_subscribed) in self.left.iter_mut().flatten() {
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
                self.left =
                    Some(found(&self.patterns, self.reaches_above, &infos, &others).into_iter());
                self.tell(cx)
            }
            _ => misplaced(),
        }
    }
}
