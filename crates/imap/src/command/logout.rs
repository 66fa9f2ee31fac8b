//! LOGOUT (RFC 9051 6.1.3).

use super::immediate;
use crate::context::Context;
use crate::work::{Ending, Then, Work};

pub(super) fn begin(cx: &mut Context) -> Box<dyn Work> {
    cx.out.text("* BYE logging out\r\n");
    immediate(Ending::ok("done").then(Then::Close))
}
