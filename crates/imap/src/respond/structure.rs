//! BODY and BODYSTRUCTURE (RFC 9051 7.5.2). `mime::limits::DEPTH_MAX` bounds the tree's depth.

use std::fmt::Write as _;

use mime::{Parameter, Part, PartKind};

use super::envelope;
use crate::context::Enabled;
use crate::output::Output;

/// What is told: BODYSTRUCTURE (true) or BODY, and to whom.
pub(crate) type Form = (bool, Enabled);

/// The structure of a part with its parentheses.
pub(crate) fn write(out: &mut Output, part: &Part, form: Form) {
    out.text("(");
    match &part.kind {
        PartKind::Multipart(children) => {
            for child in children {
                write(out, child, form);
            }
            out.text(" ");
            out.string(part.content_type.subtype.as_bytes());
            if form.0 {
                out.text(" ");
                write_parameters(out, &part.content_type.parameters);
                write_extension(out, part);
            }
        }
        PartKind::Leaf | PartKind::Message { .. } => write_single(out, part, form),
    }
    out.text(")");
}

fn write_single(out: &mut Output, part: &Part, form: Form) {
    out.string(part.content_type.kind.as_bytes());
    out.text(" ");
    out.string(part.content_type.subtype.as_bytes());
    out.text(" ");
    write_parameters(out, &part.content_type.parameters);
    out.text(" ");
    out.nstring(part.id.as_deref());
    out.text(" ");
    out.nstring(part.description.as_deref());
    out.text(" ");
    out.string(part.encoding.as_deref().unwrap_or("7bit").as_bytes());
    let _ = write!(out, " {}", part.body.len());
    if let PartKind::Message { envelope, part: inner } = &part.kind {
        let (_, enabled) = form;
        // RFC 3501 9: `media-message` is RFC822 alone. RFC 9755 6: with UTF8=ACCEPT it may be GLOBAL too, but
        // JavaMail, which enables that unasked, and MailKit cannot read an envelope there.
        if part.content_type.subtype == "global" && !enabled.rev2 {
            return write_end(out, part, form);
        }
        out.text(" ");
        envelope::write(out, &(&**envelope).into());
        out.text(" ");
        write(out, inner, form);
        let _ = write!(out, " {}", part.n_lines);
    } else if part.content_type.kind == "text" {
        let _ = write!(out, " {}", part.n_lines);
    }
    write_end(out, part, form);
}

fn write_end(out: &mut Output, part: &Part, (is_extended, _): Form) {
    if is_extended {
        out.text(" ");
        out.nstring(part.md5.as_deref());
        write_extension(out, part);
    }
}

/// Disposition, language, location.
fn write_extension(out: &mut Output, part: &Part) {
    match &part.disposition {
        Some(disposition) => {
            out.text(" (");
            out.string(disposition.kind.as_bytes());
            out.text(" ");
            write_parameters(out, &disposition.parameters);
            out.text(")");
        }
        None => out.text(" NIL"),
    }
    match part.language.as_slice() {
        [] => out.text(" NIL"),
        languages => {
            out.text(" (");
            for (i, language) in languages.iter().enumerate() {
                out.text(if i > 0 { " " } else { "" });
                out.string(language.as_bytes());
            }
            out.text(")");
        }
    }
    out.text(" ");
    out.nstring(part.location.as_deref());
}

fn write_parameters(out: &mut Output, parameters: &[Parameter]) {
    if parameters.is_empty() {
        return out.text("NIL");
    }
    out.text("(");
    for (i, parameter) in mime::join_continuations(parameters).iter().enumerate() {
        out.text(if i > 0 { " " } else { "" });
        out.string(parameter.name.as_bytes());
        out.text(" ");
        out.string(&parameter.value);
    }
    out.text(")");
}
