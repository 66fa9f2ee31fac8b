//! A mail client that waits in IDLE and looks when it is told of something new.

use std::time::Duration;

use anyhow::{Result, bail};

use super::hand::{ANSWER_DEADLINE, Hand};
use super::reader::read;
use crate::client::imap::Imap;
use crate::client::line::is_silence;
use crate::history::Record;

/// How often the client looks whether the drill is over.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Pause between being told and waiting again, in milliseconds.
const THINK_MS: (u64, u64) = (100, 300);

pub(super) fn run(mut hand: Hand) {
    let watched = hand.site.mailboxes[0].clone();
    let mut session = hand.imap();
    while !hand.is_over() {
        drop(read(&mut hand, &mut session, &watched));
        hand.think(THINK_MS.0, THINK_MS.1);
        let start_us = hand.now_us();
        let told = session.as_mut().map(|imap| wait(&hand, imap));
        match told {
            Some(Ok(is_told)) => {
                let (client, account) = (hand.id, hand.canary.name.clone());
                let (mailbox, end_us) = (watched.clone(), hand.now_us());
                let idle = Record::Idle { client, account, mailbox, start_us, end_us, is_told };
                hand.recorder.record(idle);
            }
            Some(Err(error)) => drop(hand.failed(&error, &mut session)),
            None => {}
        }
        if session.is_none() {
            session = hand.imap();
        }
    }
}

/// Waits until something is new, or the drill is over; which of both.
fn wait(hand: &Hand, imap: &mut Imap) -> Result<bool> {
    imap.set_deadline(LOOK_EVERY)?;
    let tag = imap.start("IDLE")?;
    let is_told = loop {
        match imap.response() {
            Ok(response) if response.text.starts_with(&format!("{tag} ")) => {
                bail!("IDLE: {}", response.text)
            }
            Ok(response) if response.text.ends_with(" EXISTS") => break true,
            Ok(_) => {}
            Err(error) if is_silence(&error) => {
                if hand.is_over() {
                    break false;
                }
            }
            Err(error) => return Err(error),
        }
    };
    imap.set_deadline(ANSWER_DEADLINE)?;
    imap.done(&tag)?;
    Ok(is_told)
}
