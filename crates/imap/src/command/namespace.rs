//! NAMESPACE (RFC 2342): one's own mailboxes, nobody else's.

use std::fmt::Write as _;

use super::immediate;
use crate::context::Context;
use crate::work::{Ending, Work};

pub(super) fn begin(cx: &mut Context) -> Box<dyn Work> {
    let _ = write!(cx.out, "* NAMESPACE ((\"\" \"{}\")) NIL NIL\r\n", cx.config.separator);
    immediate(Ending::ok("done"))
}
