//! ENABLE (RFC 5161).

use super::immediate;
use crate::context::Context;
use crate::work::{Ending, Work};

pub(super) fn begin(cx: &mut Context, names: &[String]) -> Box<dyn Work> {
    cx.out.text("* ENABLED");
    for name in names {
        if name == "CONDSTORE" && !cx.enabled.condstore {
            cx.enabled.condstore = true;
            cx.out.text(" CONDSTORE");
        }
    }
    cx.out.text("\r\n");
    immediate(Ending::ok("done"))
}
