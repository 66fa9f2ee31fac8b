//! A look into a mailbox through IMAP.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};

use crate::client::imap::{Imap, Response, status};
use crate::dice::Dice;
use crate::history::{View, ViewedMessage};
use crate::message;

/// How many messages a look reads whole.
pub(crate) enum Bodies<'a> {
    Some(usize, &'a mut Dice),
    All,
}

/// Selects a mailbox and reads all of it; some messages whole.
pub(crate) fn look(imap: &mut Imap, mailbox: &str, bodies: Bodies<'_>) -> Result<View> {
    let selected = imap.ok(&format!("SELECT \"{mailbox}\""))?;
    let told = |name: &str| selected.iter().find_map(|line| number_after(&line.text, name));
    let validity = told("[UIDVALIDITY ").context("no UIDVALIDITY")?;
    let modseq = told("[HIGHESTMODSEQ ");
    let items = if modseq.is_some() { "UID FLAGS MODSEQ ENVELOPE" } else { "UID FLAGS ENVELOPE" };
    let fetched = imap.ok(&format!("UID FETCH 1:* ({items})"))?;
    let mut messages: Vec<ViewedMessage> = fetched.iter().filter_map(viewed).collect();
    messages.sort_by_key(|message| message.uid);
    let wanted = if modseq.is_some() { "UIDNEXT HIGHESTMODSEQ" } else { "UIDNEXT" };
    let counted = imap.ok(&format!("STATUS \"{mailbox}\" ({wanted})"))?;
    let after = |name: &str| {
        let told = counted.iter().filter(|line| line.text.starts_with("* STATUS"));
        told.filter_map(|line| number_after(&line.text, name)).next()
    };
    let chosen: Vec<usize> = match bodies {
        Bodies::All => (0..messages.len()).collect(),
        Bodies::Some(..) if messages.is_empty() => Vec::new(),
        Bodies::Some(n, dice) => {
            (0..n).map(|_| dice.range(0, messages.len() as u64 - 1) as usize).collect()
        }
    };
    for at in chosen {
        read_whole(imap, &mut messages[at])?;
    }
    Ok(View {
        uid_validity: u32::try_from(validity).context("UIDVALIDITY too large")?,
        uid_next: after("UIDNEXT ").and_then(|next| u32::try_from(next).ok()),
        // Why: what was read in between is of one state only if nothing changed.
        highest_modseq: modseq.filter(|before| after("HIGHESTMODSEQ ") == Some(*before)),
        complete: true,
        messages,
    })
}

/// A message that was expunged meanwhile stays without digest.
fn read_whole(imap: &mut Imap, message: &mut ViewedMessage) -> Result<()> {
    let answer = imap.run(&format!("UID FETCH {} (BODY.PEEK[])", message.uid))?;
    let last = answer.last().context("no response")?;
    if status(&last.text) != "OK" {
        ensure!(last.text.contains("[EXPUNGEISSUED]"), "UID FETCH: {}", last.text);
        return Ok(());
    }
    let wanted = format!("UID {}", message.uid);
    let found = answer.iter().find(|line| line.text.contains(&wanted) && !line.literals.is_empty());
    message.digest = match found.and_then(|line| line.literals.first()) {
        Some(octets) => {
            let known = message::read(octets);
            // Why: octets in which our own first line is not found are damaged beyond recognition.
            Some(known.map_or("not a message of ours".into(), |(_, digest)| digest))
        }
        None => is_still_there(imap, message.uid)?.then(|| "no octets".into()),
    };
    Ok(())
}

/// Whether a message is there after it was asked for. Why NOOP first: then the session is told of
/// expunges (RFC 9051 7.5.1), and what was gone before is not found any more.
fn is_still_there(imap: &mut Imap, uid: u32) -> Result<bool> {
    imap.ok("NOOP")?;
    let found = imap.ok(&format!("UID SEARCH UID {uid}"))?;
    let uid = uid.to_string();
    let mut told = found.iter().filter(|line| line.text.starts_with("* SEARCH"));
    Ok(told.any(|line| line.text.split_whitespace().skip(2).any(|word| word == uid)))
}

/// One line of a FETCH with an envelope, in which the subject is the token.
fn viewed(response: &Response) -> Option<ViewedMessage> {
    let text = response.text.as_str();
    let (head, envelope) = text.split_once("ENVELOPE (")?;
    let uid = number_after(head, "UID ").or_else(|| number_after(text, " UID "))?;
    let after_date = skip_string(envelope)?;
    let token = after_date.strip_prefix('"')?.split('"').next()?;
    Some(ViewedMessage {
        uid: u32::try_from(uid).ok()?,
        token: token.to_owned(),
        digest: None,
        flags: flags(text),
        modseq: number_after(text, "MODSEQ ("),
    })
}

/// What follows the first nstring and a space.
fn skip_string(text: &str) -> Option<&str> {
    match text.strip_prefix('"') {
        Some(quoted) => quoted.split_once("\" ").map(|(_, rest)| rest),
        None => text.split_once(' ').map(|(_, rest)| rest),
    }
}

/// Flags of a FETCH response, without `\Recent`.
pub(crate) fn flags(text: &str) -> Option<BTreeSet<String>> {
    let (_, rest) = text.split_once("FLAGS (")?;
    let inside = rest.split(')').next()?;
    let all = inside.split_whitespace().filter(|flag| *flag != "\\Recent");
    Some(all.map(str::to_owned).collect())
}

/// The number that follows a word.
pub(crate) fn number_after(text: &str, word: &str) -> Option<u64> {
    let (_, rest) = text.split_once(word)?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// UIDs of an IMAP set such as `3:5,7`, ascending ranges only.
pub(crate) fn uids_of_set(set: &str) -> Option<Vec<u32>> {
    let mut uids = Vec::new();
    for part in set.split(',') {
        let (first, last) = part.split_once(':').unwrap_or((part, part));
        uids.extend(first.parse::<u32>().ok()?..=last.parse::<u32>().ok()?);
    }
    Some(uids)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::script::serve_imap;

    /// What a look makes of a message whose body is answered like this, and which then is there or not.
    fn digest_of(body: &'static str, is_there: bool) -> Result<Option<String>> {
        let endpoint = serve_imap(move |command| {
            let answer = match command {
                "UID FETCH 7 (BODY.PEEK[])" => body,
                "UID SEARCH UID 7" if is_there => "* SEARCH 7\r\nOK",
                _ => "OK",
            };
            Some(answer.into())
        });
        let mut imap = Imap::open(&endpoint, "anna", "secret")?;
        let (token, flags) = ("t1".into(), None);
        let mut message = ViewedMessage { uid: 7, token, digest: None, flags, modseq: None };
        read_whole(&mut imap, &mut message)?;
        Ok(message.digest)
    }

    #[test]
    fn a_message_answered_without_octets_is_damaged_unless_it_is_gone() {
        let nil = "* 1 FETCH (UID 7 BODY[] NIL)\r\nOK";
        for body in ["OK", nil, "* 1 FETCH (UID 7 BODY[] \"\")\r\nOK"] {
            assert_eq!(digest_of(body, true).expect("a look"), Some("no octets".into()), "{body}");
            assert_eq!(digest_of(body, false).expect("a look"), None, "{body}");
        }
        let octets = "* 1 FETCH (UID 7 BODY[] {3}\r\nxyz)\r\nOK";
        let seen = digest_of(octets, true).expect("a look");
        assert_eq!(seen, Some("not a message of ours".into()));
        for is_there in [true, false] {
            let gone = digest_of("NO [EXPUNGEISSUED] gone", is_there);
            assert_eq!(gone.expect("a look"), None);
            assert!(digest_of("NO [UNAVAILABLE] later", is_there).is_err());
        }
    }

    #[test]
    fn a_fetched_line_is_read() {
        let text = "* 3 FETCH (UID 17 FLAGS (\\Seen \\Recent) MODSEQ (42) ENVELOPE (\"Thu, 1\" \
                    \"a1c2-7\" ((NIL NIL \"drill\" \"rookery.invalid\")) NIL))";
        let seen = viewed(&Response { text: text.into(), literals: Vec::new() }).unwrap();
        assert_eq!((seen.uid, seen.token.as_str(), seen.modseq), (17, "a1c2-7", Some(42)));
        assert_eq!(seen.flags, Some(BTreeSet::from(["\\Seen".to_owned()])));
    }

    #[test]
    fn sets_are_read() {
        assert_eq!(uids_of_set("3:5,7"), Some(vec![3, 4, 5, 7]));
        assert_eq!(uids_of_set("x"), None);
    }
}
