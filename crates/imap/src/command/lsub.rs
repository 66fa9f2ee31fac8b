//! LSUB (RFC 3501 6.3.9).

use std::collections::BTreeMap;

use mailbox::dialogue::{Question, Reply};
use mailbox::{Answer, MailboxInfo, MailboxName, Query};

use super::list::{Patterns, write_name};
use crate::context::Context;
use crate::parse::Lsub;
use crate::work::{Ending, Next, Work, misplaced};

/// Lists subscribed names.
pub(super) struct Listing(pub(super) Lsub);

/// Names that match, and whether each is itself subscribed. A name above a subscribed one that the
/// pattern does not reach is shown in its place (RFC 3501 6.3.9: `%`).
fn found(
    patterns: &Patterns,
    infos: &[MailboxInfo],
    others: &[MailboxName],
) -> BTreeMap<MailboxName, bool> {
    let mailboxes = infos.iter().filter(|info| info.subscribed).map(|info| &info.name);
    let mut found = BTreeMap::new();
    for name in mailboxes.chain(others) {
        if patterns.match_name(name) {
            found.insert(name.clone(), true);
            continue;
        }
        let mut above = name.parent();
        while let Some(parent) = above {
            if patterns.match_name(&parent) {
                found.entry(parent).or_insert(false);
                break;
            }
            above = parent.parent();
        }
    }
    found
}

impl Work for Listing {
    fn go_on(&mut self, cx: &mut Context, reply: Option<Reply>) -> Next {
        match reply {
            None => Next::Ask(Question::Query(Query::Mailboxes(cx.account()))),
            Some(Reply::Answer(Answer::Mailboxes(infos, others))) => {
                let pattern = [self.0.pattern.clone()];
                let patterns = Patterns::new(&self.0.reference, &pattern, cx.config.separator);
                for (name, is_subscribed) in found(&patterns, &infos, &others) {
                    cx.out.text(if is_subscribed { "* LSUB () " } else { "* LSUB (\\Noselect) " });
                    write_name(cx, &name);
                    cx.out.text("\r\n");
                }
                Next::Done(Ending::ok("done"))
            }
            _ => misplaced(),
        }
    }
}
