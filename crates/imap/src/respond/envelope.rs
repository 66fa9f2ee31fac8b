//! ENVELOPE (RFC 9051 7.5.2).

use mime::{Addresses, PackedEnvelope};

use crate::output::Output;

/// The envelope with its parentheses.
pub(crate) fn write(out: &mut Output, envelope: &PackedEnvelope) {
    let envelope = envelope.read();
    out.text("(");
    out.nstring(envelope.date);
    out.text(" ");
    out.nstring(envelope.subject);
    let lists =
        [envelope.from, envelope.sender, envelope.reply_to, envelope.to, envelope.cc, envelope.bcc];
    for list in lists {
        out.text(" ");
        write_list(out, list);
    }
    out.text(" ");
    out.nstring(envelope.in_reply_to);
    out.text(" ");
    out.nstring(envelope.message_id);
    out.text(")");
}

fn write_list(out: &mut Output, list: Addresses<'_>) {
    if list.is_empty() {
        return out.text("NIL");
    }
    out.text("(");
    for address in list {
        out.text("(");
        out.nstring(address.name);
        out.text(" ");
        out.nstring(address.adl);
        out.text(" ");
        out.nstring(address.mailbox);
        out.text(" ");
        out.nstring(address.host);
        out.text(")");
    }
    out.text(")");
}
