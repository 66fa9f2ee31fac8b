//! The one place where what the store says no to becomes IMAP's words (RFC 9051 7.1, RFC 5530).

use mailbox::Refusal;
use mailbox::dialogue::Trouble;

use crate::parse::Fault;
use crate::work::Ending;

const NO_ACCOUNT: &str = "the account is deleted";
const SUSPENDED: &str = "the account is suspended";

/// Why a session ends that was to read messages.
pub(crate) const AWAY: &str = "[UNAVAILABLE] messages cannot be read now, come back later";

/// Why a session ends that said of a literal what cannot be its size.
pub(crate) const LOST: &str = "the end of that command cannot be found";

/// A command that was not understood.
pub(crate) fn fault(fault: Fault) -> Ending {
    match fault {
        Fault::Bad(text) => Ending::bad(text),
        Fault::No(code, text) => Ending::no(text).code(code),
    }
}

/// Words of its own: waiting does not help, closing another connection does.
pub(crate) fn too_many() -> Ending {
    Ending::no("too many connections of this account").code("LIMIT")
}

/// A question without an answer.
pub(crate) fn trouble(trouble: Trouble) -> Ending {
    match trouble {
        Trouble::Unavailable => Ending::no("not now, try again").code("UNAVAILABLE"),
        Trouble::Unknown => {
            Ending::no("it may or may not have been done, look before you try again")
                .code("UNAVAILABLE")
        }
        Trouble::Full => Ending::no("the store is full").code("UNAVAILABLE"),
        Trouble::Damaged => {
            Ending::no("a message is damaged and being repaired").code("UNAVAILABLE")
        }
        Trouble::TooLarge => Ending::no("the message is too large").code("TOOBIG"),
        Trouble::Overloaded => Ending::no("too busy, try again").code("INUSE"),
    }
}

/// A command that the store refused.
pub(crate) fn refusal(refusal: &Refusal) -> Ending {
    match refusal {
        // Why: the driver resolves these by itself; what comes through stayed unresolved.
        Refusal::NoSuchSession
        | Refusal::StaleSequence
        | Refusal::Expired(_)
        | Refusal::Moved(_)
        | Refusal::Moving => trouble(Trouble::Unavailable),
        Refusal::UploadGap | Refusal::ChunkMissing => trouble(Trouble::Unavailable),
        Refusal::NoSuchAccount => Ending::no(NO_ACCOUNT).code("CONTACTADMIN"),
        Refusal::Suspended => Ending::no(SUSPENDED).code("CONTACTADMIN"),
        Refusal::Taken => Ending::no("taken").code("ALREADYEXISTS"),
        Refusal::NoSuchMailbox => Ending::no("no such mailbox").code("NONEXISTENT"),
        Refusal::MailboxExists => Ending::no("such a mailbox exists").code("ALREADYEXISTS"),
        Refusal::Inbox => Ending::no("INBOX is always there").code("CANNOT"),
        Refusal::BelowItself => Ending::no("a mailbox cannot be moved below itself").code("CANNOT"),
        Refusal::NotSelectable => {
            Ending::no("only a name with mailboxes below").code("NONEXISTENT")
        }
        Refusal::OverQuota => Ending::no("quota exceeded").code("OVERQUOTA"),
        Refusal::Limit(limit) => {
            Ending::no(format!("limit reached: {}", printable(limit))).code("LIMIT")
        }
        Refusal::SpecialUse => Ending::no("the special use is taken").code("USEATTR"),
        Refusal::NoSuchMessage => Ending::no("no such message").code("EXPUNGEISSUED"),
        Refusal::Exhausted => Ending::no("numbers are used up").code("CONTACTADMIN"),
    }
}

/// RFC 9051 7.1, RFC 5530: others expunged what was named by sequence numbers, which the client cannot know
/// yet. Why these words: imaptest knows by them that nothing is wrong.
pub(crate) fn some_are_gone() -> Ending {
    Ending::no("some messages have been deleted").code("EXPUNGEISSUED")
}

/// The same where a mailbox to put messages into is missing.
pub(crate) fn no_target(refusal_: &Refusal) -> Ending {
    match refusal_ {
        Refusal::NoSuchMailbox => Ending::no("no such mailbox").code("TRYCREATE"),
        other => refusal(other),
    }
}

/// Why a session ends whose mailbox cannot be looked at any more; `None` if that can be tried again.
pub(crate) fn farewell(refusal: &Refusal) -> Option<&'static str> {
    match refusal {
        Refusal::NoSuchMailbox => Some("the selected mailbox is gone"),
        Refusal::NoSuchAccount => Some(NO_ACCOUNT),
        Refusal::Suspended => Some(SUSPENDED),
        _ => None,
    }
}

fn printable(text: &str) -> String {
    text.chars().filter(|c| matches!(c, ' '..='~')).collect()
}
