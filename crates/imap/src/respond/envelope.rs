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
    let begin = out.tail_len();
    write_list(out, envelope.from);
    let from = begin..out.tail_len();
    for list in [envelope.sender, envelope.reply_to] {
        // Why: most are the author's, and copied faster than written.
        if list == envelope.from {
            out.again(from.clone());
        } else {
            write_list(out, list);
        }
    }
    for list in [envelope.to, envelope.cc, envelope.bcc] {
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
        return out.text(" NIL");
    }
    out.text(" (");
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
