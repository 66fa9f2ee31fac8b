//! `\Recent` (RFC 3501 2.3.2) at two frontends: the session that is told first has a message so, and no
//! other one.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::demo::Demo;
use tests::imap::Imap;
use tests::wait;

const USER: &str = "u0001@example.test";
const PASSWORD: &str = "secret";
const MESSAGE: &[u8] = b"Subject: new\r\n\r\nhello\r\n";

/// What a session says once something arrived: how many messages there are, and how many are `\Recent`.
fn told(imap: &mut Imap) -> Result<(u32, u32)> {
    let said = imap.ok("NOOP")?;
    let number = |word: &str| -> Result<u32> {
        let line = said.iter().find(|response| response.text.ends_with(word));
        let text = &line.with_context(|| format!("no{word}"))?.text;
        let digits = text.trim_start_matches("* ").split(' ').next();
        Ok(digits.unwrap_or_default().parse()?)
    };
    Ok((number(" EXISTS")?, number(" RECENT")?))
}

#[test]
fn of_two_sessions_that_are_told_of_a_message_it_is_recent_in_the_first() -> Result<()> {
    let demo = Demo::start(&["--no-sample-mail", "--accounts", "1"])?;
    let login = |frontend: &str| Imap::login(&demo.at(frontend, "imap")?, USER, PASSWORD);
    let (mut first, mut second, mut sender) = (login("f1")?, login("f2")?, login("f1")?);
    // Why again: a new leader does not know what was told before.
    wait::until(Duration::from_secs(60), "a message that is recent in one session", || {
        let (n_first, n_second) = (opened(&mut first)?, opened(&mut second)?);
        sender.append("INBOX", MESSAGE)?;
        let (told_first, told_second) = (told(&mut first)?, told(&mut second)?);
        ensure!(told_first.1 == n_first + 1, "the first is told {told_first:?}");
        ensure!(told_second == (told_first.0, n_second), "the second is told {told_second:?}");
        let status = sender.ok("STATUS INBOX (RECENT)")?;
        let is_none = status.iter().any(|line| line.text.ends_with(" (RECENT 0)"));
        ensure!(is_none, "{status:?}");
        Ok(())
    })
}

/// Opens the mailbox; how many messages are `\Recent` in it.
fn opened(imap: &mut Imap) -> Result<u32> {
    let said = imap.ok("SELECT INBOX")?;
    let line = said.iter().find(|response| response.text.ends_with(" RECENT"));
    let text = &line.context("no RECENT")?.text;
    Ok(text.trim_start_matches("* ").trim_end_matches(" RECENT").parse()?)
}
