//! GETQUOTA, GETQUOTAROOT and SETQUOTA (RFC 9208). There is one root, the account, named "".

use std::fmt::Write as _;

use mailbox::answer::AccountRecord;
use mailbox::command::Quota;
use mailbox::dialogue::{Question, Reply};
use mailbox::{Answer, MailboxName, Query};

use super::immediate;
use crate::context::Context;
use crate::parse::{Fault, Parsed};
use crate::respond;
use crate::work::{Ending, Next, Work, misplaced};

/// Tells limits and use.
pub(super) struct Telling {
    /// GETQUOTAROOT: of which mailbox.
    mailbox: Option<MailboxName>,
}

pub(super) fn of_root(root: &str) -> Parsed<Box<dyn Work>> {
    if !root.is_empty() {
        return Err(Fault::No("NONEXISTENT", "no such quota root"));
    }
    Ok(Box::new(Telling { mailbox: None }))
}

pub(super) fn of_mailbox(name: MailboxName) -> Box<dyn Work> {
    Box::new(Telling { mailbox: Some(name) })
}

pub(super) fn set() -> Box<dyn Work> {
    immediate(Ending::no("quotas are set by the administrator").code("NOPERM"))
}

impl Telling {
    fn respond(&self, cx: &mut Context, account: &AccountRecord) {
        // RFC 9208 5.2: a root has at least one limit, so without limits there is no root.
        let has_root = account.quota != Quota::default();
        if let Some(name) = &self.mailbox {
            cx.out.text("* QUOTAROOT ");
            respond::mailbox(cx, name);
            cx.out.text(if has_root { " \"\"\r\n" } else { "\r\n" });
        }
        if !has_root {
            return;
        }
        let out = &mut cx.out;
        out.text("* QUOTA \"\" (");
        let mut space = "";
        if let Some(limit) = account.quota.storage_bytes {
            // RFC 9208 5.1: in units of 1024 octets.
            let used = account.storage_bytes.div_ceil(1024);
            let _ = write!(out, "STORAGE {used} {}", limit / 1024);
            space = " ";
        }
        if let Some(limit) = account.quota.n_messages {
            let _ = write!(out, "{space}MESSAGE {} {limit}", account.n_messages);
        }
        out.text(")\r\n");
    }
}

impl Work for Telling {
    fn go_on(&mut self, cx: &mut Context, reply: Option<Reply>) -> Next {
        match reply {
            None => Next::Ask(Question::Query(Query::Account(cx.account()))),
            Some(Reply::Answer(Answer::Account(account))) => {
                if self.mailbox.is_none() && account.quota == Quota::default() {
                    let ending = Ending::no("no such quota root").code("NONEXISTENT");
                    return Next::Done(ending);
                }
                self.respond(cx, &account);
                Next::Done(Ending::ok("done"))
            }
            _ => misplaced(),
        }
    }
}
