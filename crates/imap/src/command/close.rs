//! CLOSE and UNSELECT (RFC 9051 6.4.1, 6.4.2).

use mailbox::dialogue::{Question, Reply};
use mailbox::{Command, Outcome, Refusal, Slices, command::Expunge};

use crate::context::Context;
use crate::refuse;
use crate::work::{Ending, Next, Work, misplaced};

/// Leaves the mailbox, expunging or not.
pub(super) struct Closing {
    expunges: bool,
    /// Nothing before it began.
    left: Option<Slices>,
}

impl Closing {
    pub(super) fn new(expunges: bool) -> Self {
        Self { expunges, left: None }
    }

    fn expunge(&self, cx: &mut Context) -> Next {
        let Some(uids) = self.left.as_ref().and_then(Slices::next_command) else {
            return Self::leave(cx);
        };
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
                let expunges = self.expunges && !cx.selected().read_only;
                self.left = expunges.then(|| Slices::new(uids));
                self.expunge(cx)
            }
            Some(Reply::Outcome(Outcome::Expunged(expunged))) => {
                if let Some(left) = &mut self.left {
                    left.done(expunged.next);
                }
                self.expunge(cx)
            }
            // RFC 7162 3.2.8: no HIGHESTMODSEQ, for nobody was told what is gone.
            Some(Reply::Done) => Next::Done(Ending::ok("done")),
            _ => misplaced(),
        }
    }

    /// RFC 9051 6.4.1 has no NO: a mailbox that is gone is left as any other.
    fn refused(&mut self, cx: &mut Context, refusal: Refusal) -> Next {
        match refusal {
            Refusal::NoSuchMailbox => Self::leave(cx),
            refusal => Next::Done(refuse::refusal(&refusal)),
        }
    }
}
