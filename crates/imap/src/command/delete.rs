//! DELETE (RFC 9051 6.3.5).

use mailbox::dialogue::{Question, Reply, Trouble};
use mailbox::query::Messages;
use mailbox::{Answer, Command, Outcome, Query, Refusal, Uid, UidSet, command::NamedMailbox};

use super::list;
use crate::context::Context;
use crate::parse::Given;
use crate::refuse;
use crate::work::{Ending, Next, Work, misplaced};

/// Deletes a mailbox.
pub(super) struct Deleting {
    mailbox: Given,
    is_deleted: bool,
}

impl Deleting {
    pub(super) fn new(mailbox: Given) -> Self {
        Self { mailbox, is_deleted: false }
    }

    /// It is gone. Whether that was the selected one is asked by its id: any session may have given it
    /// another name, and its own to another mailbox.
    fn deleted(&mut self, cx: &mut Context) -> Next {
        self.is_deleted = true;
        let Some(selected) = &cx.selected else { return self.done(cx) };
        Next::Ask(Question::Query(Query::Messages(Messages {
            of: selected.of,
            // Why a UID that none has: whether the mailbox is there is all that is wanted.
            uids: UidSet::range(Uid::LAST, Uid::LAST),
            changed_since: None,
            metadata: false,
            chunks: false,
            expunged: false,
            only_envelope: false,
            recent_to: None,
        })))
    }

    fn done(&self, cx: &mut Context) -> Next {
        list::write_old_name(cx, &self.mailbox, "\\NonExistent");
        Next::Done(Ending::ok("deleted"))
    }
}

impl Work for Deleting {
    fn go_on(&mut self, cx: &mut Context, reply: Option<Reply>) -> Next {
        match reply {
            None => {
                let named = NamedMailbox { account: cx.account(), name: self.mailbox.name.clone() };
                Next::Ask(Question::Command(Box::new(Command::DeleteMailbox(named)), vec![]))
            }
            // Durability: the outcome comes from a command committed by a majority.
            Some(Reply::Outcome(Outcome::Done)) => self.deleted(cx),
            // The selected one is there.
            Some(Reply::Answer(Answer::Messages(..))) => self.done(cx),
            _ => misplaced(),
        }
    }

    fn trouble(&mut self, cx: &mut Context, trouble: Trouble) -> Next {
        if !self.is_deleted {
            return Next::Done(refuse::trouble(trouble));
        }
        // Whether the selected one is there is found out later.
        if let Some(selected) = &mut cx.selected {
            selected.unsure_of_expunges = true;
        }
        self.done(cx)
    }

    fn refused(&mut self, cx: &mut Context, refusal: Refusal) -> Next {
        if self.is_deleted {
            // What this session deleted itself it need not be sent away from.
            if refusal == Refusal::NoSuchMailbox {
                cx.selected = None;
                cx.out.text("* OK [CLOSED] the selected mailbox is deleted\r\n");
            }
            return self.done(cx);
        }
        Next::Done(match refusal {
            // RFC 9051 7.1: the name is there, and goes when what lies below it is gone.
            Refusal::NotSelectable => {
                Ending::no("there are mailboxes below it").code("HASCHILDREN")
            }
            refusal => refuse::refusal(&refusal),
        })
    }
}
