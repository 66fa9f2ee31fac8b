//! Writers of what responses are made of.

pub(crate) mod envelope;
pub(crate) mod flags;
pub(crate) mod structure;

use mailbox::MailboxName;

use crate::context::Context;
use crate::utf7;

/// A mailbox name as the client reads it now.
pub(crate) fn mailbox(cx: &mut Context, name: &MailboxName) {
    let joined = name.join(cx.config.separator);
    joined_name(cx, &joined);
}

/// The same for a name whose levels are joined already.
pub(crate) fn joined_name(cx: &mut Context, joined: &str) {
    if cx.enabled.has_utf8_names() {
        cx.out.text("\"");
        cx.out.text(&joined.replace('\\', "\\\\").replace('"', "\\\""));
        cx.out.text("\"");
    } else {
        cx.out.string(utf7::encode(joined).as_bytes());
    }
}
