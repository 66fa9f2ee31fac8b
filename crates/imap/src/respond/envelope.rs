//! ENVELOPE (RFC 9051 7.5.2).

use mime::{Address, Envelope};

use crate::output::Output;

/// The envelope with its parentheses.
pub(crate) fn write(out: &mut Output, envelope: &Envelope) {
    out.text("(");
    out.nstring(envelope.date.as_deref());
    out.text(" ");
    out.nstring(envelope.subject.as_deref());
    let lists = [
        &envelope.from,
        &envelope.sender,
        &envelope.reply_to,
        &envelope.to,
        &envelope.cc,
        &envelope.bcc,
    ];
    for list in lists {
        out.text(" ");
        write_list(out, list);
    }
    out.text(" ");
    out.nstring(envelope.in_reply_to.as_deref());
    out.text(" ");
    out.nstring(envelope.message_id.as_deref());
    out.text(")");
}

fn write_list(out: &mut Output, list: &[Address]) {
    if list.is_empty() {
        return out.text("NIL");
    }
    out.text("(");
    for address in list {
        out.text("(");
        out.nstring(address.name.as_deref());
        out.text(" ");
        out.nstring(address.adl.as_deref());
        out.text(" ");
        out.nstring(address.mailbox.as_deref());
        out.text(" ");
        out.nstring(address.host.as_deref());
        out.text(")");
    }
    out.text(")");
}
