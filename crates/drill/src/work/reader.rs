//! A mail client that looks into its mailboxes again and again.

use super::hand::Hand;
use crate::client::imap::Imap;
use crate::history::{Operation, Reply, View};
use crate::look::{Bodies, look};

/// Pause between two looks, in milliseconds.
const THINK_MS: (u64, u64) = (80, 240);
/// Messages read whole at each look.
const BODIES: usize = 1;

pub(super) fn run(mut hand: Hand) {
    let mut session = hand.imap();
    while !hand.is_over() {
        hand.think(THINK_MS.0, THINK_MS.1);
        let mailbox = hand.mailbox(30);
        drop(read(&mut hand, &mut session, &mailbox));
        if session.is_none() {
            session = hand.imap();
        }
    }
}

/// One look, written down.
pub(super) fn read(hand: &mut Hand, session: &mut Option<Imap>, mailbox: &str) -> Option<View> {
    let start = hand.now_us();
    let looked = look(session.as_mut()?, mailbox, Bodies::Some(BODIES, &mut hand.dice));
    let operation = Operation::Read { mailbox: mailbox.to_owned() };
    match looked {
        Ok(view) => {
            hand.note(start, operation, Ok(Reply::Viewed(view.clone())));
            Some(view)
        }
        Err(error) => {
            let verdict = hand.failed(&error, session);
            hand.note(start, operation, Err(verdict));
            None
        }
    }
}
