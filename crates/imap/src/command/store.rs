//! STORE and UID STORE (RFC 9051 6.4.6, RFC 7162 3.1.3).

use mailbox::dialogue::{Question, Reply};
use mailbox::outcome::{OwnChange, Stored};
use mailbox::{Command, Outcome, Slices, UidSet, command};

use super::must_be_writable;
use crate::context::Context;
use crate::number_set::subtract;
use crate::parse::{Fault, Parsed, Store};
use crate::refuse;
use crate::selected::{Selected, Told};
use crate::work::{Ending, Next, Work, misplaced};

/// Changes flags, slice by slice.
struct Storing {
    store: Store,
    left: Slices,
    /// Named by sequence number and not yet accounted for.
    missing: UidSet,
    modified: UidSet,
    /// Told of by news since this began.
    told: UidSet,
}

pub(super) fn begin(cx: &mut Context, store: Store) -> Parsed<Box<dyn Work>> {
    must_be_writable(cx)?;
    if store.unchanged_since.is_some() {
        cx.enable_condstore();
    }
    let left = cx.selected().resolve(store.uid, &store.set).map_err(Fault::Bad)?;
    let missing = if store.uid { UidSet::new() } else { left.clone() };
    let left = Slices::new(left);
    Ok(Box::new(Storing { store, left, missing, modified: UidSet::new(), told: UidSet::new() }))
}

/// What this session changed itself need not be told it again. What others did before must be, where
/// the answer to this did not tell all flags.
pub(super) fn note_own(selected: &mut Selected, stored: &Stored, tells_flags: bool) {
    // Why not without: an outcome that was kept does not say which changes are its own.
    let own = stored.own.filter(|own| tells_flags || own.before.value() <= selected.told_modseq);
    if let Some(OwnChange { modseq, .. }) = own {
        let changed = stored.messages.iter().filter(|message| message.modseq == modseq);
        selected.note_own(changed.map(|message| message.uid).collect(), modseq);
    }
    stored.messages.iter().for_each(|message| selected.heard(message.modseq));
}

impl Storing {
    fn ask(&self, cx: &mut Context) -> Next {
        let Some(uids) = self.left.next_command() else { return self.done(cx) };
        let store = command::Store {
            account: cx.account(),
            mailbox: cx.selected().of.mailbox,
            uids,
            change: self.store.change.clone(),
            unchanged_since: self.store.unchanged_since,
        };
        Next::Ask(Question::Command(Box::new(Command::Store(store)), vec![]))
    }

    fn stored(&mut self, cx: &mut Context, stored: &Stored) {
        let (out, selected, enabled) = cx.parts();
        let Some(selected) = selected else { return };
        for message in &stored.messages {
            // RFC 9051 7.1: the one that is the last there is room for is told even to a .SILENT.
            selected.note_keywords(out, &message.flags);
            // Why also to a .SILENT: the client may take what it was told meanwhile for the end of it.
            let tells_flags = !self.store.silent || self.told.contains(message.uid);
            // RFC 7162 3.1.3: the new mod-sequence is told even to a .SILENT.
            if !tells_flags && !enabled.condstore {
                continue;
            }
            let told = Told {
                uid: message.uid,
                flags: tells_flags.then_some(&message.flags),
                modseq: message.modseq,
                // RFC 7162 3.2.6: a client that synchronises gets the UID with every FETCH; RFC 9051 7.5.2:
                // one of IMAP4rev2 with each it did not ask for.
                with_uid: self.store.uid
                    || enabled.qresync
                    || enabled.rev2 && self.store.silent && tells_flags,
            };
            selected.write_fetch_flags(out, enabled, &told);
        }
        note_own(selected, stored, !self.store.silent);
        let seen: UidSet = stored.messages.iter().map(|message| message.uid).collect();
        self.missing = subtract(&subtract(&self.missing, &seen), &stored.modified);
        let mut modified = self.modified.ranges().to_vec();
        modified.extend_from_slice(stored.modified.ranges());
        self.modified = UidSet::from_ranges(modified);
    }

    fn done(&self, cx: &mut Context) -> Next {
        if !self.modified.is_empty() {
            let numbers = match self.store.uid {
                true => self.modified.to_string(),
                false => {
                    let seqnums = cx.selected().view.seqnums(&self.modified);
                    crate::number_set::uid_set(&seqnums).to_string()
                }
            };
            // RFC 7162 3.1.3: OK, or NO when something else went wrong too.
            let ending = match self.missing.is_empty() {
                true => Ending::ok("some were changed meanwhile"),
                false => Ending::no("some were changed meanwhile, and some are gone"),
            };
            return Next::Done(ending.code(format!("MODIFIED {numbers}")));
        }
        if !self.missing.is_empty() {
            return Next::Done(refuse::some_are_gone());
        }
        // Durability: every slice was committed by a majority.
        Next::Done(Ending::ok("done"))
    }
}

impl Work for Storing {
    fn go_on(&mut self, cx: &mut Context, reply: Option<Reply>) -> Next {
        match reply {
            None => self.ask(cx),
            Some(Reply::Outcome(Outcome::Stored(stored))) => {
                self.stored(cx, &stored);
                self.left.done(stored.next);
                self.ask(cx)
            }
            _ => misplaced(),
        }
    }

    fn was_told(&mut self, uids: &UidSet) {
        if self.store.silent {
            let told = [self.told.ranges(), uids.ranges()].concat();
            self.told = UidSet::from_ranges(told);
        }
    }
}
