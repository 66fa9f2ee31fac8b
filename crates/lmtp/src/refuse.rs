//! Everything the engine says besides 354, in the words of RFC 5321 and RFC 3463. 4xx where waiting
//! can help, 5xx only where it cannot.

use mailbox::dialogue::{Look, Trouble};
use mailbox::{Outcome, Refusal};

/// What a command line can get as an answer without the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Words {
    Ok,
    SenderOk,
    RecipientOk,
    ChunkOk,
    Bye,
    Help,
    CannotVerify,
    UnknownCommand,
    LineTooLong,
    NotText,
    NoParameters,
    BadName,
    BadMail,
    BadRcpt,
    BadPath,
    PathTooLong,
    BadRecipientPath,
    RecipientPathTooLong,
    BadRecipient,
    BadParameter,
    UnknownParameter,
    NotAnnounced,
    UseLhlo,
    LhloFirst,
    MailFirst,
    RcptFirst,
    NestedMail,
    BadChunk,
    InChunks,
    TooManyRecipients,
    NoSuchRecipient,
    TooLarge,
    BareLf,
    TooManyErrors,
    Silent,
    ShuttingDown,
}

impl Words {
    /// The reply line without its end.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Ok => "250 2.0.0 OK",
            Self::SenderOk => "250 2.1.0 OK",
            Self::RecipientOk => "250 2.1.5 OK",
            Self::ChunkOk => "250 2.0.0 Chunk taken",
            Self::Bye => "221 2.0.0 Bye",
            Self::Help => "214 2.0.0 LHLO MAIL RCPT DATA BDAT RSET NOOP VRFY QUIT",
            Self::CannotVerify => "252 2.5.0 Send mail and see",
            Self::UnknownCommand => "500 5.5.1 Unknown command",
            Self::LineTooLong => "500 5.5.2 Line too long",
            Self::NotText => "500 5.5.2 Control characters or broken UTF-8 in a command",
            Self::NoParameters => "501 5.5.4 This command takes no parameters",
            Self::BadName => "501 5.5.4 LHLO needs the client's name",
            Self::BadMail => "501 5.5.4 Say MAIL FROM:<address>",
            Self::BadRcpt => "501 5.5.4 Say RCPT TO:<address>",
            Self::BadPath => "501 5.1.7 A path is <address>",
            Self::PathTooLong => "501 5.1.7 Path too long",
            // RFC 3463 3.2: 1.7 is of the sender's address, 1.3 of the recipient's.
            Self::BadRecipientPath => "501 5.1.3 A path is <address>",
            Self::RecipientPathTooLong => "501 5.1.3 Path too long",
            Self::BadRecipient => "553 5.1.3 Not an address",
            Self::BadParameter => "501 5.5.4 Bad value of a parameter",
            Self::UnknownParameter => "555 5.5.4 Unknown parameter",
            Self::NotAnnounced => "553 5.6.7 Addresses beyond ASCII need SMTPUTF8",
            Self::UseLhlo => "500 5.5.1 This is LMTP, say LHLO",
            Self::LhloFirst => "503 5.5.1 Say LHLO first",
            Self::MailFirst => "503 5.5.1 Say MAIL first",
            Self::RcptFirst => "503 5.5.1 No valid recipients",
            Self::NestedMail => "503 5.5.1 There is a sender already",
            Self::BadChunk => "501 5.5.4 Say BDAT octets [LAST]; where the chunk ends is not known",
            Self::InChunks => "503 5.5.1 The message comes in chunks: go on with BDAT, or RSET",
            Self::TooManyRecipients => "452 4.5.3 Too many recipients",
            Self::NoSuchRecipient => "550 5.1.1 No such recipient here",
            Self::TooLarge => "552 5.3.4 Message too large",
            Self::BareLf => "550 5.6.0 An LF stands alone in the message",
            Self::TooManyErrors => "421 4.7.0 Too many bad commands",
            Self::Silent => "421 4.4.2 Silent too long",
            Self::ShuttingDown => "421 4.3.2 Going down, try again",
        }
    }
}

/// What to say when a question could not be answered.
pub(crate) fn trouble(trouble: Trouble) -> &'static str {
    match trouble {
        Trouble::Unavailable => "451 4.3.0 Store not available, try again",
        Trouble::Unknown => "451 4.3.0 Outcome not known, try again",
        Trouble::Full => "452 4.3.1 Store full, try again",
        Trouble::Damaged => "451 4.3.0 Store in trouble, try again",
        Trouble::TooLarge => Words::TooLarge.text(),
        Trouble::Overloaded => "451 4.3.2 Too busy, try again",
    }
}

/// What to say about one recipient, of whom there are several when the address is a group's.
///
/// When waiting can help one of them, the sender keeps its copy and tries again. That brings the
/// others a second one, but losing mail would be worse; [`not_now`] has seen to it that it is rare.
/// Who cannot take it at all, or is gone since RCPT, does not keep it from the others. When nobody is
/// left, where the address leads may have been remembered from before: somebody else may have it now,
/// or nobody, which the next RCPT says.
pub(crate) fn delivered(copies: &[Result<Outcome, Trouble>]) -> &'static str {
    let words = copies.iter().filter(|copy| !is_gone(copy)).map(one_delivered);
    let gravity = |words: &&str| match words.as_bytes()[0] {
        b'4' => 2,
        b'2' => 1,
        _ => 0,
    };
    words.max_by_key(gravity).unwrap_or("451 4.3.0 Recipient gone, try again")
}

/// What to say about a group before any of it has a copy, when waiting can help one of them.
pub(crate) fn not_now(members: &[Look]) -> Option<&'static str> {
    let mut words = members.iter().filter_map(|member| match member {
        Look::Takes | Look::Has | Look::Refuses(Refusal::NoSuchAccount) => None,
        Look::Refuses(refusal) => Some(refused(refusal)),
        Look::Unknown(why) => Some(trouble(*why)),
    });
    words.find(|words| words.starts_with('4'))
}

/// Makes as if whoever is suspended were gone, unless nobody else is there: of a message that goes to all of
/// a group at once or to nobody. Why: a suspension may last for months, and the sender gives up before.
pub(crate) fn leave_suspended_out(members: &mut [Look]) {
    let has_others = members.iter().any(|member| {
        !matches!(member, Look::Refuses(Refusal::Suspended | Refusal::NoSuchAccount))
    });
    for member in members {
        if has_others && matches!(member, Look::Refuses(Refusal::Suspended)) {
            *member = Look::Refuses(Refusal::NoSuchAccount);
        }
    }
}

/// Whether there is nobody any more, since RCPT.
fn is_gone(member: &Result<Outcome, Trouble>) -> bool {
    matches!(member, Ok(Outcome::Refused(Refusal::NoSuchAccount)))
}

fn one_delivered(outcome: &Result<Outcome, Trouble>) -> &'static str {
    match outcome {
        // Durability: an outcome comes only after a majority of replicas has synced the entry.
        Ok(Outcome::Appended(_) | Outcome::Done) => "250 2.1.5 Delivered",
        Ok(Outcome::Refused(refusal)) => refused(refusal),
        Ok(_) => "451 4.3.0 Store in trouble, try again",
        Err(why) => trouble(*why),
    }
}

fn refused(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Suspended => "450 4.2.1 Account suspended",
        Refusal::OverQuota => "452 4.2.2 Mailbox full",
        Refusal::Exhausted => "452 4.2.2 Mailbox can take no more",
        _ => "451 4.3.0 Not taken, try again",
    }
}
