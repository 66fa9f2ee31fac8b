//! CLOSE and UNSELECT (RFC 9051 6.4.1, 6.4.2).

use mailbox::dialogue::{Question, Reply};
use mailbox::{Command, Outcome, UidSet, command::Expunge};

use crate::context::Context;
use crate::work::{Ending, Next, Work, misplaced};

/// Leaves the mailbox, expunging or not.
pub(super) struct Closing {
    expunges: bool,
    left: Option<UidSet>,
}

impl Closing {
    pub(super) fn new(expunges: bool) -> Self {
        Self { expunges, left: None }
    }

    fn expunge(cx: &mut Context, uids: UidSet) -> Next {
        let (account, of) = (cx.account(), cx.selected().of);
        let expunge = Expunge { account, mailbox: of.mailbox, uids, only_deleted: true };
        Next::Ask(Question::Command(Box::new(Command::Expunge(expunge)), vec![]))
    }

    fn leave(cx: &mut Context) -> Next {
        cx.selected = None;
        Next::Ask(Question::Unwatch)
    }
}

impl Work for Closing {
    fn go_on(&mut self, cx: &mut Context, reply: Option<Reply>) -> Next {
        match reply {
            None => {
                let uids = cx.selected().view.uids();
                // RFC 9051 6.4.1: nothing is removed from a mailbox opened by EXAMINE.
                if !self.expunges || cx.selected().read_only || uids.is_empty() {
                    return Self::leave(cx);
                }
                self.left = Some(uids.clone());
                Self::expunge(cx, uids)
            }
            Some(Reply::Outcome(Outcome::Expunged(expunged))) => {
                match (expunged.next, &self.left) {
                    (Some(next), Some(left)) => {
                        let left = left.starting_at(next);
                        self.left = Some(left.clone());
                        Self::expunge(cx, left)
                    }
                    _ => Self::leave(cx),
                }
            }
            // RFC 7162 3.2.8: no HIGHESTMODSEQ, for nobody was told what is gone.
            Some(Reply::Done) => Next::Done(Ending::ok("done")),
            _ => misplaced(),
        }
    }
}
