//! What `-ERR` says, with the codes of RFC 2449 8 and RFC 3206.

use mailbox::dialogue::{Reply, Trouble};
use mailbox::{Answer, Outcome, Refusal};

pub(crate) const IN_USE: &str = "-ERR [IN-USE] Another session has this maildrop";
pub(crate) const LOST: &str = "-ERR [SYS/TEMP] Another session has this maildrop now";
pub(crate) const RENUMBERED: &str = "-ERR [SYS/TEMP] INBOX was numbered anew, log in again";
pub(crate) const DENIED: &str = "-ERR [AUTH] Wrong name or password";
pub(crate) const DISABLED: &str = "-ERR [AUTH] Account disabled";
pub(crate) const TOO_MANY: &str = "-ERR [SYS/TEMP] Too many connections of this account";
pub(crate) const NEED_TLS: &str = "-ERR [AUTH] Start TLS first";
pub(crate) const UNKNOWN: &str = "-ERR Unknown command";
pub(crate) const PARAMETERS: &str = "-ERR Wrong parameters";
pub(crate) const LINE_TOO_LONG: &str = "-ERR Line too long";
pub(crate) const LOG_IN_FIRST: &str = "-ERR Log in first";
pub(crate) const LOGGED_IN: &str = "-ERR Already logged in";
pub(crate) const NO_SUCH_MESSAGE: &str = "-ERR No such message";
pub(crate) const NO_LAST: &str = "-ERR LAST is not supported, use UIDL";
pub(crate) const TOO_MANY_ERRORS: &str = "-ERR Too many errors";
pub(crate) const SHUTTING_DOWN: &str = "-ERR [SYS/TEMP] Going down, try again";
pub(crate) const NOT_REMOVED: &str = "-ERR [SYS/TEMP] Some messages were not removed";
pub(crate) const GONE: &str = "-ERR Message is gone";

/// What to say when the maildrop or the account may not be used any more, before the connection is
/// closed. RFC 3206 4 has AUTH for commands that log in only; SYS/PERM is for any, and says that waiting
/// will not help.
pub(crate) fn ended(reply: &Reply) -> Option<&'static str> {
    if matches!(reply, Reply::InUse) {
        return Some(LOST);
    }
    let (Reply::Answer(Answer::Refused(refusal)) | Reply::Outcome(Outcome::Refused(refusal))) =
        reply
    else {
        return None;
    };
    match refusal {
        Refusal::Suspended => Some("-ERR [SYS/PERM] Account suspended"),
        Refusal::NoSuchAccount => Some("-ERR [SYS/PERM] Account deleted"),
        _ => None,
    }
}

/// What to say when a question could not be answered.
pub(crate) fn trouble(trouble: Trouble) -> &'static str {
    match trouble {
        Trouble::Unavailable | Trouble::Unknown => "-ERR [SYS/TEMP] Store not available",
        Trouble::Overloaded => "-ERR [SYS/TEMP] Too busy",
        Trouble::Damaged => "-ERR [SYS/TEMP] Message cannot be read now",
        Trouble::Full | Trouble::TooLarge => "-ERR [SYS/TEMP] Store in trouble",
    }
}
