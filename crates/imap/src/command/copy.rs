//! COPY and UID COPY (RFC 9051 6.4.7, RFC 4315 3): all or nothing.

use mailbox::command::{self, COPY_RANGES_MAX, NamedMailbox};
use mailbox::dialogue::{Question, Reply};
use mailbox::outcome::Copied;
use mailbox::{Answer, Command, MailboxId, MailboxName, Outcome, Query, Refusal, UidSet, UploadId};

use crate::context::Context;
use crate::number_set::NumberSet;
use crate::parse::{Fault, Parsed};
use crate::refuse;
use crate::work::{Ending, Next, Work, misplaced};

/// Where messages go: named with the first slice, and what that found with those after it, so that a
/// mailbox which is renamed meanwhile gets all of them.
pub(super) struct Target {
    name: MailboxName,
    found: Option<MailboxId>,
}

impl Target {
    pub(super) fn new(name: MailboxName) -> Self {
        Self { name, found: None }
    }

    pub(super) fn name(&self) -> &MailboxName {
        &self.name
    }

    /// For the next slice: an id that is looked at when there is no name.
    pub(super) fn say(&self) -> (MailboxId, Option<MailboxName>) {
        match self.found {
            Some(found) => (found, None),
            None => (MailboxId(0), Some(self.name.clone())),
        }
    }

    /// What a slice found; tells this session of arrivals.
    pub(super) fn note(&mut self, cx: &mut Context, copied: &Copied) {
        self.found = copied.to.or(self.found);
        self.found.into_iter().for_each(|found| cx.note_arrivals(found));
    }
}

/// Copies, slice by slice; the store shows the copies with the last slice.
struct Copying {
    to: Target,
    staging: UploadId,
    left: UidSet,
    /// Named by sequence numbers, which are of messages the client knows; a UID may be of none.
    by_seqnum: bool,
    is_staged: bool,
}

pub(super) fn begin(
    cx: &mut Context,
    uid: bool,
    set: &NumberSet,
    to: MailboxName,
) -> Parsed<Box<dyn Work>> {
    let left = cx.selected().resolve(uid, set).map_err(Fault::Bad)?;
    // Why not left to the store: it would say so after hundreds of slices, each of which names all of them.
    if left.ranges().len() > COPY_RANGES_MAX {
        return Err(Fault::No("LIMIT", "limit reached: ranges of one COPY"));
    }
    let (to, staging) = (Target::new(to), cx.new_upload());
    Ok(Box::new(Copying { to, staging, left, by_seqnum: !uid, is_staged: false }))
}

/// Asks for the mailbox that messages would go to, where none are sent.
pub(super) fn find(cx: &Context, name: &MailboxName) -> Next {
    let name = NamedMailbox { account: cx.account(), name: name.clone() };
    Next::Ask(Question::Query(Query::Mailbox(name)))
}

/// Whether messages could go there, from the answer to [`find`].
pub(super) fn found(answer: &Answer) -> Result<(), Ending> {
    match answer {
        Answer::Mailbox(info) if info.selectable => Ok(()),
        Answer::Mailbox(_) => Err(refuse::no_target(&Refusal::NoSuchMailbox)),
        _ => Err(Ending::no("internal error").code("SERVERBUG")),
    }
}

/// RFC 4315 3: `None` when nothing was copied.
pub(super) fn copyuid(copied: &Copied) -> Option<String> {
    if copied.source.is_empty() {
        return None;
    }
    Some(format!("COPYUID {} {} {}", copied.uid_validity, copied.source, copied.target))
}

impl Copying {
    fn ask(&self, cx: &mut Context) -> Next {
        if self.left.is_empty() {
            return find(cx, self.to.name());
        }
        let (to, to_name) = self.to.say();
        let copy = command::Copy {
            account: cx.account(),
            from: cx.selected().of.mailbox,
            to,
            uids: self.left.clone(),
            staging: self.staging,
            to_name,
            whole: self.by_seqnum,
            further: self.is_staged,
        };
        Next::Ask(Question::Command(Box::new(Command::Copy(copy)), vec![]))
    }
}

impl Work for Copying {
    fn go_on(&mut self, cx: &mut Context, reply: Option<Reply>) -> Next {
        match reply {
            None => self.ask(cx),
            Some(Reply::Answer(answer)) => {
                let found = found(&answer);
                Next::Done(found.map_or_else(|ending| ending, |()| Ending::ok("nothing to copy")))
            }
            Some(Reply::Outcome(Outcome::Copied(copied))) => {
                self.to.note(cx, &copied);
                match copied.next {
                    Some(next) => {
                        self.is_staged = true;
                        self.left = self.left.starting_at(next);
                        self.ask(cx)
                    }
                    // Durability: the last slice, committed by a majority, made all copies visible.
                    None => {
                        let ending = Ending::ok("copied");
                        Next::Done(match copyuid(&copied) {
                            Some(code) => ending.code(code),
                            None => ending,
                        })
                    }
                }
            }
            _ => misplaced(),
        }
    }

    fn refused(&mut self, _: &mut Context, refusal: Refusal) -> Next {
        Next::Done(match refusal {
            // RFC 2180 4.4.1; those named by UID are passed over (RFC 9051 6.4.9).
            Refusal::NoSuchMessage => refuse::some_are_gone(),
            refusal => refuse::no_target(&refusal),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use mailbox::command::OfMailbox;
    use mailbox::{AccountId, MailboxInfo, ModSeq, Uid, UidValidity};

    use super::*;
    use crate::context::Config;
    use crate::number_set::Number;
    use crate::selected::Selected;

    fn cx() -> Context {
        let info = MailboxInfo {
            of: OfMailbox { account: AccountId([7; 16]), mailbox: MailboxId(1) },
            name: MailboxName::inbox(),
            selectable: true,
            has_children: false,
            subscribed: false,
            special_use: None,
            uid_validity: UidValidity(NonZeroU32::MIN),
            uid_next: Uid::FIRST,
            highest_modseq: ModSeq::FIRST,
            n_messages: 0,
            n_unseen: 0,
            n_deleted: 0,
            n_recent: 0,
            first_recent: Uid::FIRST,
            size_bytes: 0,
            deleted_bytes: 0,
            keywords: Vec::new(),
        };
        let mut cx = Context::new(Config {
            hostname: "mail.example".into(),
            tls_available: false,
            tls_active: false,
            plain_logins_allowed: true,
            message_bytes_max: 100_000,
            separator: '/',
            nonce: [9; 16],
        });
        cx.selected = Some(Selected::new(&info, false));
        cx
    }

    #[test]
    fn more_ranges_than_a_copy_may_have_are_refused_at_once() {
        let mut cx = cx();
        let all = NumberSet::Ranges(vec![(Number::Is(1), Number::Last)]);
        // Every second message is gone.
        let odd = |n: usize| (0..n as u32).filter_map(|k| Uid::new(2 * k + 1)).collect::<UidSet>();
        for (n_ranges, is_refused) in [(COPY_RANGES_MAX, false), (COPY_RANGES_MAX + 1, true)] {
            cx.selected().view.append(&odd(n_ranges));
            let fault = begin(&mut cx, true, &all, MailboxName::inbox()).err();
            let refused = Fault::No("LIMIT", "limit reached: ranges of one COPY");
            assert_eq!(fault, is_refused.then_some(refused), "{n_ranges} ranges");
        }
    }
}
