//! CAPABILITY (RFC 9051 6.1.1).

use std::fmt::Write as _;

use super::immediate;
use crate::context::Context;
use crate::work::{Ending, Work};

pub(super) fn begin(cx: &mut Context) -> Box<dyn Work> {
    let capabilities = cx.capabilities();
    let _ = write!(cx.out, "* CAPABILITY {capabilities}\r\n");
    immediate(Ending::ok("done"))
}
