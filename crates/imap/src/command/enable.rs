//! ENABLE (RFC 5161, RFC 7162 3.2.3, RFC 9755 3).

use super::immediate;
use crate::context::Context;
use crate::work::{Ending, Work};

pub(super) fn begin(cx: &mut Context, names: &[String]) -> Box<dyn Work> {
    cx.out.text("* ENABLED");
    for name in names {
        let enabled = &mut cx.enabled;
        let is_new = match name.as_str() {
            "CONDSTORE" => !std::mem::replace(&mut enabled.condstore, true),
            "QRESYNC" => {
                // RFC 7162 3.2.3: it implies CONDSTORE.
                enabled.condstore = true;
                !std::mem::replace(&mut enabled.qresync, true)
            }
            "UTF8=ACCEPT" => !std::mem::replace(&mut enabled.utf8, true),
            _ => false,
        };
        if is_new {
            cx.out.text(" ");
            cx.out.text(name);
        }
    }
    cx.out.text("\r\n");
    immediate(Ending::ok("done"))
}
