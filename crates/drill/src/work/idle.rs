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
        let looked = read(&mut hand, &mut session, &watched);
        hand.think(THINK_MS.0, THINK_MS.1);
        // Why not after a look that failed: a SELECT that was refused leaves no mailbox selected
        // (RFC 9051 6.3.2), and of none nothing is told.
        if looked.is_some() {
            until_told(&mut hand, &mut session, &watched);
        }
        if session.is_none() {
            session = hand.imap();
        }
    }
}

/// Waits until told of something new. Asks for that again where it is refused: a client that goes on looking
/// by itself would seem to be well.
fn until_told(hand: &mut Hand, session: &mut Option<Imap>, watched: &str) {
    while let Some(imap) = session.as_mut() {
        let start_us = hand.now_us();
        match wait(hand, imap) {
            Ok(is_told) => {
                let (client, account) = (hand.id, hand.canary.name.clone());
                let (mailbox, end_us) = (watched.to_owned(), hand.now_us());
                let idle = Record::Idle { client, account, mailbox, start_us, end_us, is_told };
                hand.recorder.record(idle);
                return;
            }
            Err(error) => {
                tracing::debug!(client = hand.id, %error, "not told");
                drop(hand.failed(&error, session));
            }
        }
        if hand.is_over() {
            return;
        }
        hand.think(THINK_MS.0, THINK_MS.1);
    }
}

/// Waits until something is new, or the drill is over; which of both.
fn wait(hand: &Hand, imap: &mut Imap) -> Result<bool> {
    let tag = imap.start("IDLE")?;
    imap.set_deadline(LOOK_EVERY)?;
    let waited = listen(hand, imap, &tag);
    // Why before the failure: a session that goes on has time again for its answers.
    imap.set_deadline(ANSWER_DEADLINE)?;
    let is_told = waited?;
    imap.done(&tag)?;
    Ok(is_told)
}

fn listen(hand: &Hand, imap: &mut Imap, tag: &str) -> Result<bool> {
    loop {
        match imap.response() {
            Ok(response) if response.text.starts_with(&format!("{tag} ")) => {
                bail!("IDLE: {}", response.text)
            }
            Ok(response) if response.text.ends_with(" EXISTS") => return Ok(true),
            Ok(_) => {}
            Err(error) if is_silence(&error) => {
                if hand.is_over() {
                    return Ok(false);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::client::script::serve_imap;
    use crate::history::{Event, Verdict};
    use crate::work::hand::of_anna;

    /// How many looks were taken, and how many of them succeeded, until this was asked three times.
    fn looks(asked: &'static str, select: &'static str, idle: &'static str) -> (usize, usize) {
        let over: Arc<AtomicBool> = Arc::default();
        let (mut n_asked, is_over) = (0, Arc::clone(&over));
        let endpoint = serve_imap(move |command| {
            let verb = command.split(' ').next().unwrap_or_default();
            n_asked += u32::from(verb == asked);
            let is_out_of_place = verb == "IDLE" && asked == "SELECT";
            is_over.store(n_asked >= 3 || is_out_of_place, Ordering::Relaxed);
            let answer = match verb {
                "SELECT" => select,
                "IDLE" => idle,
                _ => "OK",
            };
            Some(answer.into())
        });
        let mut hand = of_anna(vec![endpoint], Vec::new());
        hand.over = over;
        let recorder = Arc::clone(&hand.recorder);
        run(hand);
        let history = recorder.take_history();
        let is_done = |event: &&Event| matches!(event.verdict, Verdict::Acknowledged { .. });
        (history.events().count(), history.events().filter(is_done).count())
    }

    #[test]
    fn who_is_refused_an_idle_does_not_seem_to_be_well() {
        assert_eq!(looks("IDLE", "* OK [UIDVALIDITY 9]\r\nOK", "NO later"), (1, 1));
    }

    #[test]
    fn nobody_waits_for_news_of_a_mailbox_that_is_not_selected() {
        assert_eq!(looks("SELECT", "NO [UNAVAILABLE] later", "OK"), (3, 0));
    }
}
