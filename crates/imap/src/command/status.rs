//! STATUS (RFC 9051 6.3.11).

use std::fmt::Write as _;

use mailbox::dialogue::{Question, Reply};
use mailbox::{Answer, MailboxInfo, Query, Refusal, command::NamedMailbox};

use crate::context::Context;
use crate::parse::{Status, StatusItem};
use crate::refuse;
use crate::respond;
use crate::work::{Ending, Next, Work, misplaced};

/// Tells counts of a mailbox without opening it.
pub(super) struct Telling(pub(super) Status);

/// The STATUS response.
pub(super) fn write(cx: &mut Context, info: &MailboxInfo, items: &[StatusItem]) {
    if items.contains(&StatusItem::HighestModSeq) {
        cx.enable_condstore();
    }
    cx.out.text("* STATUS ");
    respond::mailbox(cx, &info.name);
    cx.out.text(" (");
    for (i, item) in items.iter().enumerate() {
        cx.out.text(if i > 0 { " " } else { "" });
        let out = &mut cx.out;
        let _ = match item {
            StatusItem::Messages => write!(out, "MESSAGES {}", info.n_messages),
            StatusItem::Recent => write!(out, "RECENT {}", info.n_recent),
            StatusItem::UidNext => write!(out, "UIDNEXT {}", info.uid_next),
            StatusItem::UidValidity => write!(out, "UIDVALIDITY {}", info.uid_validity),
            StatusItem::Unseen => write!(out, "UNSEEN {}", info.n_unseen),
            StatusItem::Deleted => write!(out, "DELETED {}", info.n_deleted),
            // RFC 9208 4.2: in octets, unlike STORAGE.
            StatusItem::DeletedStorage => write!(out, "DELETED-STORAGE {}", info.deleted_bytes),
            StatusItem::Size => write!(out, "SIZE {}", info.size_bytes),
            StatusItem::HighestModSeq => write!(out, "HIGHESTMODSEQ {}", info.highest_modseq),
            StatusItem::MailboxId => write!(out, "MAILBOXID (M{})", info.of.mailbox.0),
            StatusItem::AppendLimit => {
                write!(out, "APPENDLIMIT {}", cx.config.message_bytes_max)
            }
        };
    }
    cx.out.text(")\r\n");
}

impl Work for Telling {
    fn go_on(&mut self, cx: &mut Context, reply: Option<Reply>) -> Next {
        match reply {
            None => {
                let name = self.0.name.clone();
                let name = NamedMailbox { account: cx.account(), name };
                Next::Ask(Question::Query(Query::Mailbox(name)))
            }
            Some(Reply::Answer(Answer::Mailbox(info))) if !info.selectable => {
                Next::Done(refuse::refusal(&Refusal::NotSelectable))
            }
            Some(Reply::Answer(Answer::Mailbox(info))) => {
                write(cx, &info, &self.0.items);
                Next::Done(Ending::ok("done"))
            }
            _ => misplaced(),
        }
    }
}
