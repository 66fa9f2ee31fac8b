//! LOGIN (RFC 9051 6.2.3), and what LOGIN and AUTHENTICATE have in common.

use mailbox::dialogue::{Credentials, Question, Reply};

use crate::context::Context;
use crate::parse::{Fault, Parsed};
use crate::refuse;
use crate::work::{Ending, Next, Then, Work, misplaced};

/// Asks whether the password is right.
pub(super) struct LoggingIn(Option<Credentials>);

pub(super) fn begin(cx: &Context, name: String, password: Vec<u8>) -> Parsed<Box<dyn Work>> {
    may_log_in(cx)?;
    Ok(Box::new(LoggingIn(Some(Credentials { login: name, password }))))
}

pub(super) fn may_log_in(cx: &Context) -> Parsed<()> {
    if cx.may_log_in() {
        return Ok(());
    }
    Err(Fault::No("PRIVACYREQUIRED", "passwords are taken inside TLS only"))
}

/// What came of asking.
pub(super) fn answered(cx: &mut Context, reply: Option<Reply>) -> Next {
    match reply {
        Some(Reply::Authenticated(login)) => {
            cx.login = Some(login);
            let capabilities = cx.capabilities();
            Next::Done(Ending::ok("logged in").code(format!("CAPABILITY {capabilities}")))
        }
        Some(Reply::Denied) => Next::Done(denied()),
        Some(Reply::Disabled) => Next::Done(
            Ending::no("the account is disabled").code("CONTACTADMIN").then(Then::CountLogin),
        ),
        // Why counted: each asked the store, and whoever has the password would ask without end.
        Some(Reply::TooMany) => Next::Done(refuse::too_many().then(Then::CountLogin)),
        _ => misplaced(),
    }
}

pub(super) fn denied() -> Ending {
    Ending::no("wrong name or password").code("AUTHENTICATIONFAILED").then(Then::CountLogin)
}

impl Work for LoggingIn {
    fn go_on(&mut self, cx: &mut Context, reply: Option<Reply>) -> Next {
        match self.0.take() {
            Some(credentials) => Next::Ask(Question::Authenticate(credentials)),
            None => answered(cx, reply),
        }
    }
}
