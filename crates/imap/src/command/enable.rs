//! ENABLE (RFC 9051 6.3.1, RFC 7162 3.2.3, RFC 9755 3).

use super::immediate;
use crate::context::Context;
use crate::work::{Ending, Work};

pub(super) fn begin(cx: &mut Context, names: &[String]) -> Box<dyn Work> {
    let condstore_before = cx.enabled.condstore;
    let mut on: Vec<&str> = Vec::new();
    for name in names {
        let enabled = &mut cx.enabled;
        let (switch, name) = match name.as_str() {
            "CONDSTORE" => (&mut enabled.condstore, "CONDSTORE"),
            "QRESYNC" => {
                // RFC 7162 3.2.3: it implies CONDSTORE.
                enabled.condstore = true;
                (&mut enabled.qresync, "QRESYNC")
            }
            "UTF8=ACCEPT" => (&mut enabled.utf8, "UTF8=ACCEPT"),
            "IMAP4REV2" => (&mut enabled.rev2, "IMAP4rev2"),
            _ => continue,
        };
        *switch = true;
        // RFC 5161 3.2: a name that is missing is not on. What was on before is told too, as often as a
        // client asks.
        if !on.contains(&name) {
            on.push(name);
        }
    }
    cx.out.text("* ENABLED");
    for name in on {
        cx.out.text(" ");
        cx.out.text(name);
    }
    cx.out.text("\r\n");
    let condstore = std::mem::replace(&mut cx.enabled.condstore, condstore_before);
    if condstore {
        cx.enable_condstore();
    }
    immediate(Ending::ok("done"))
}
