//! IDLE (RFC 2177): what is new is told at once, until the client says DONE.

use std::fmt::Write as _;

use mailbox::Refusal;
use mailbox::dialogue::{Reply, Trouble};

use crate::context::Context;
use crate::input::{Gathered, Input};
use crate::limits::EARLY_LINE_BYTES_MAX;
use crate::news::{News, Tell};
use crate::parse;
use crate::refuse;
use crate::work::{Ending, Next, Work};

/// Waits for news and for DONE.
pub(super) struct Idling {
    news: Option<News>,
    has_begun: bool,
    /// The store could not answer: not asked again before something happens.
    rests: bool,
}

impl Idling {
    pub(super) fn new() -> Self {
        Self { news: None, has_begun: false, rests: false }
    }

    /// What the news want; their end is only the end of this telling.
    fn follow(&mut self, cx: &mut Context, next: Next) -> Next {
        match next {
            Next::Done(_) => {
                self.news = None;
                if let Some(selected) = &mut cx.selected {
                    selected.told_beside = false;
                }
                // Why not for input yet: where something else is new by now, what is known would wait for
                // the next answer, and where mail keeps coming for the one after that.
                Next::More
            }
            other => other,
        }
    }

    fn begin_news(&mut self, cx: &mut Context, tell: Tell) -> Next {
        self.news = News::new(cx, tell, None);
        match &mut self.news {
            Some(news) => {
                let next = news.go_on(cx, None);
                self.follow(cx, next)
            }
            None => Next::Input,
        }
    }
}

/// Spaces at the end are forgiven, as those of commands are.
fn is_done(line: &[u8]) -> bool {
    line.trim_ascii_end().eq_ignore_ascii_case(b"DONE")
}

/// Arrivals that another command's response told of are told once more (RFC 3501 5.2 lets a server send data
/// at any time). Why: Thunderbird goes for new mail when NOOP or IDLE tells of it, and passes over EXISTS in
/// the responses to STORE, COPY, MOVE and FETCH.
fn repeat_exists(cx: &mut Context) {
    let (out, selected, _) = cx.parts();
    if let Some(selected) = selected.filter(|selected| selected.told_beside) {
        let _ = write!(out, "* {} EXISTS\r\n", selected.view.len());
    }
}

impl Work for Idling {
    fn go_on(&mut self, cx: &mut Context, reply: Option<Reply>) -> Next {
        if !self.has_begun {
            self.has_begun = true;
            cx.out.text("+ idling\r\n");
            repeat_exists(cx);
            return self.begin_news(cx, Tell::All);
        }
        match &mut self.news {
            Some(news) => {
                let next = news.go_on(cx, reply);
                self.follow(cx, next)
            }
            None => Next::Input,
        }
    }

    fn feed(&mut self, cx: &mut Context, input: &mut Input) -> Next {
        match input.gather(EARLY_LINE_BYTES_MAX) {
            Gathered::Nothing if std::mem::take(&mut self.rests) => Next::Input,
            Gathered::Nothing => self.begin_news(cx, Tell::Heard),
            Gathered::Line if is_done(input.command()) => {
                input.take_command();
                Next::Done(Ending::ok("done"))
            }
            Gathered::Line => {
                // Why: a client that forgot DONE waits for the end of what it sent in its place too.
                if let Some(tag) = parse::tag(&input.take_command()) {
                    cx.out.text(&format!("{tag} BAD DONE expected\r\n"));
                }
                Next::Done(Ending::bad("DONE expected"))
            }
            Gathered::Literal(literal) => {
                let skip = if literal.is_synchronising { None } else { Some(literal.len) };
                input.take_command();
                Next::Done(Ending { skip, ..Ending::bad("DONE expected") })
            }
            Gathered::TooLong | Gathered::Skipped => {
                input.take_command();
                Next::Done(Ending::bad("DONE expected").skipping(0))
            }
            Gathered::Lost => Next::Bye(refuse::LOST),
        }
    }

    /// What cannot be found out now is asked again at the next news: the driver brings some as soon as the
    /// store answers.
    fn trouble(&mut self, cx: &mut Context, trouble: Trouble) -> Next {
        if let Some(news) = &mut self.news {
            news.trouble(cx, trouble);
        }
        self.news = None;
        self.rests = true;
        Next::Input
    }

    fn refused(&mut self, cx: &mut Context, refusal: Refusal) -> Next {
        let Some(news) = &mut self.news else { return Next::Input };
        let next = news.refused(cx, refusal);
        self.follow(cx, next)
    }
}
