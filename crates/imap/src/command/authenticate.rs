//! AUTHENTICATE PLAIN (RFC 9051 6.2.2, RFC 4616), with or without an initial response (RFC 4959).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mailbox::dialogue::{Credentials, Question, Reply};

use super::login::{answered, denied, may_log_in};
use crate::context::Context;
use crate::input::{Gathered, Input};
use crate::limits::EARLY_LINE_BYTES_MAX;
use crate::parse::{Fault, Parsed};
use crate::work::{Ending, Next, Then, Work};

/// A PLAIN exchange.
pub(super) struct Authenticating {
    initial: Option<Vec<u8>>,
    asked: bool,
    too_long: bool,
}

pub(super) fn begin(
    cx: &Context,
    mechanism: &str,
    initial: Option<Vec<u8>>,
) -> Parsed<Box<dyn Work>> {
    if mechanism != "PLAIN" {
        return Err(Fault::No("CANNOT", "unknown mechanism"));
    }
    may_log_in(cx)?;
    Ok(Box::new(Authenticating { initial, asked: false, too_long: false }))
}

impl Authenticating {
    fn respond(&mut self, response: &[u8]) -> Next {
        if response == b"*" {
            return Next::Done(Ending::bad("cancelled"));
        }
        // RFC 4959 3: a single "=" is an empty response.
        let response = if response == b"=" { b"".as_slice() } else { response };
        let Ok(decoded) = STANDARD.decode(response) else {
            return Next::Done(Ending::bad("not base64"));
        };
        let mut parts = decoded.splitn(3, |byte| *byte == 0);
        let (Some(acting), Some(name), Some(password)) = (parts.next(), parts.next(), parts.next())
        else {
            return Next::Done(Ending::bad("not a PLAIN response"));
        };
        let Ok(name) = std::str::from_utf8(name) else { return Next::Done(denied()) };
        if !acting.is_empty() && acting != name.as_bytes() {
            let ending = Ending::no("one cannot act as another here");
            return Next::Done(ending.code("AUTHORIZATIONFAILED").then(Then::CountLogin));
        }
        self.asked = true;
        let credentials = Credentials { login: name.to_owned(), password: password.to_vec() };
        Next::Ask(Question::Authenticate(credentials))
    }
}

impl Work for Authenticating {
    fn go_on(&mut self, cx: &mut Context, reply: Option<Reply>) -> Next {
        if self.asked {
            return answered(cx, reply);
        }
        match self.initial.take() {
            Some(initial) => self.respond(&initial),
            None => {
                cx.out.text("+ \r\n");
                Next::Input
            }
        }
    }

    fn feed(&mut self, _: &mut Context, input: &mut Input) -> Next {
        match input.gather(EARLY_LINE_BYTES_MAX) {
            Gathered::Nothing => Next::Input,
            Gathered::Line => {
                let line = input.take_command();
                self.respond(&line)
            }
            Gathered::TooLong => {
                input.skip(0);
                self.too_long = true;
                self.feed_rest(input)
            }
            Gathered::Skipped if self.too_long => Next::Done(Ending::bad("line too long")),
            Gathered::Literal(_) | Gathered::Lost | Gathered::Skipped => {
                input.take_command();
                Next::Done(Ending::bad("not base64"))
            }
        }
    }
}

impl Authenticating {
    fn feed_rest(&mut self, input: &mut Input) -> Next {
        match input.gather(EARLY_LINE_BYTES_MAX) {
            Gathered::Skipped => Next::Done(Ending::bad("line too long")),
            _ => Next::Input,
        }
    }
}
