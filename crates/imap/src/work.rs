//! How a command is worked off: step by step, between questions and their replies.

use std::borrow::Cow;

use mailbox::dialogue::{Question, Reply, Trouble};
use mailbox::{Refusal, UidSet};

use crate::context::Context;
use crate::input::Input;
use crate::refuse;

/// A command that is being worked off.
pub(crate) trait Work: Send {
    /// Begins (with `None`), or goes on after a reply, or (with `None`) after [`Next::More`] and
    /// [`Next::Yield`].
    fn go_on(&mut self, cx: &mut Context, reply: Option<Reply>) -> Next;

    /// Goes on with input, after [`Next::Input`]; called again when input or news came.
    fn feed(&mut self, cx: &mut Context, input: &mut Input) -> Next {
        let _ = (cx, input);
        Next::Done(Ending::bad("unexpected input"))
    }

    /// Whether the client is in the middle of a message it sends.
    fn is_amid_message(&self) -> bool {
        false
    }

    /// Whether news may be told between two slices: not where what was read before them is told behind them.
    fn bears_news(&self) -> bool {
        true
    }

    /// Between two slices the client was told the flags of these messages, as they were then.
    fn was_told(&mut self, uids: &UidSet) {
        let _ = uids;
    }

    /// The question could not be answered.
    fn trouble(&mut self, cx: &mut Context, trouble: Trouble) -> Next {
        let _ = cx;
        Next::Done(refuse::trouble(trouble))
    }

    /// The store said no.
    fn refused(&mut self, cx: &mut Context, refusal: Refusal) -> Next {
        let _ = cx;
        Next::Done(refuse::refusal(&refusal))
    }
}

/// What a command wants next.
pub(crate) enum Next {
    /// This question answered.
    Ask(Question),
    /// To go on once what was written is sent.
    More,
    /// To go on once other sessions had their turn.
    Yield,
    /// Input, or news.
    Input,
    /// Nothing: it is over.
    Done(Ending),
    /// To end the connection with these words.
    Bye(&'static str),
    /// To end the connection here, for a response that was begun cannot be completed.
    Abort,
}

/// `OK`, `NO` or `BAD`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Ok,
    No,
    Bad,
}

/// The end of a command.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    pub(crate) status: Status,
    /// Response code without its brackets.
    pub(crate) code: Option<Cow<'static, str>>,
    /// Whether a client that synchronises is told up to where it is told everything.
    pub(crate) tells_modseq: bool,
    pub(crate) text: Cow<'static, str>,
    /// Octets of a literal still on their way, which must be skipped before the client is told.
    pub(crate) skip: Option<u64>,
    /// What the connection does afterwards.
    pub(crate) then: Then,
}

/// What follows a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// The next command.
    Next,
    /// The TLS handshake.
    StartTls,
    /// From here on both directions are compressed.
    Compress,
    /// The end of the connection.
    Close,
    /// A refused login is counted.
    CountLogin,
}

impl Ending {
    fn new(status: Status, text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            code: None,
            tells_modseq: false,
            text: text.into(),
            skip: None,
            then: Then::Next,
        }
    }

    pub(crate) fn ok(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Status::Ok, text)
    }

    pub(crate) fn no(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Status::No, text)
    }

    pub(crate) fn bad(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Status::Bad, text)
    }

    pub(crate) fn code(self, code: impl Into<Cow<'static, str>>) -> Self {
        Self { code: Some(code.into()), ..self }
    }

    /// RFC 7162 3.2.7: HIGHESTMODSEQ with the end of what expunges.
    pub(crate) fn telling_modseq(self) -> Self {
        Self { tells_modseq: true, ..self }
    }

    pub(crate) fn skipping(self, n_octets: u64) -> Self {
        Self { skip: Some(n_octets), ..self }
    }

    pub(crate) fn then(self, then: Then) -> Self {
        Self { then, ..self }
    }
}

/// A reply that does not fit its question: the driver's mistake, shown as a temporary trouble.
pub(crate) fn misplaced() -> Next {
    Next::Done(Ending::no("internal error").code("SERVERBUG"))
}
