//! What comes before the selected mailbox is left: arrivals this session was told of are claimed, so that
//! no later one sees them as `\Recent` (RFC 3501 2.3.2).

use mailbox::dialogue::{Question, Reply, Trouble};
use mailbox::{Command, Refusal, UidSet};

use crate::context::Context;
use crate::input::Input;
use crate::work::{Next, Work};

/// Claims, and goes on with the command whatever came of it.
struct Leaving {
    claim: Option<Command>,
    is_claimed: bool,
    then: Box<dyn Work>,
}

/// The command itself where nothing has to be claimed.
pub(super) fn begin(cx: &mut Context, then: Box<dyn Work>) -> Box<dyn Work> {
    let Some(selected) = cx.selected.as_mut() else { return then };
    let Some(below) = selected.take_unclaimed() else { return then };
    // RFC 9051 E 15
    if cx.enabled.rev2 {
        return then;
    }
    let claim = Some(Command::ClaimRecent(selected.of, Some(below)));
    Box::new(Leaving { claim, is_claimed: false, then })
}

impl Leaving {
    /// Whether a reply is that to the claim.
    fn is_of_claim(&mut self) -> bool {
        !std::mem::replace(&mut self.is_claimed, true)
    }
}

impl Work for Leaving {
    fn go_on(&mut self, cx: &mut Context, reply: Option<Reply>) -> Next {
        if let Some(claim) = self.claim.take() {
            return Next::Ask(Question::Command(Box::new(claim), vec![]));
        }
        let reply = if self.is_of_claim() { None } else { reply };
        self.then.go_on(cx, reply)
    }

    fn feed(&mut self, cx: &mut Context, input: &mut Input) -> Next {
        self.then.feed(cx, input)
    }

    fn bears_news(&self) -> bool {
        self.then.bears_news()
    }

    fn was_told(&mut self, uids: &UidSet) {
        self.then.was_told(uids);
    }

    fn trouble(&mut self, cx: &mut Context, trouble: Trouble) -> Next {
        if self.is_of_claim() {
            return self.then.go_on(cx, None);
        }
        self.then.trouble(cx, trouble)
    }

    fn refused(&mut self, cx: &mut Context, refusal: Refusal) -> Next {
        if self.is_of_claim() {
            return self.then.go_on(cx, None);
        }
        self.then.refused(cx, refusal)
    }
}
