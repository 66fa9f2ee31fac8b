//! ID (RFC 2971).

use super::immediate;
use crate::context::Context;
use crate::work::{Ending, Work};

pub(super) fn begin(cx: &mut Context) -> Box<dyn Work> {
    cx.out.text("* ID (\"name\" \"rookery\")\r\n");
    immediate(Ending::ok("done"))
}
