//! BODY and BODYSTRUCTURE (RFC 9051 7.5.2). `mime::limits::DEPTH_MAX` bounds the tree's depth.

use std::fmt::Write as _;

use mime::{Parameter, Part, PartKind};

use super::envelope;
use crate::output::Output;

/// The structure of a part with its parentheses; extended is BODYSTRUCTURE.
pub(crate) fn write(out: &mut Output, part: &Part, extended: bool) {
    out.text("(");
    match &part.kind {
        PartKind::Multipart(children) => {
            for child in children {
                write(out, child, extended);
            }
            out.text(" ");
            out.string(part.content_type.subtype.as_bytes());
            if extended {
                out.text(" ");
                write_parameters(out, &part.content_type.parameters);
                write_extension(out, part);
            }
        }
        PartKind::Leaf | PartKind::Message { .. } => write_single(out, part, extended),
    }
    out.text(")");
}

fn write_single(out: &mut Output, part: &Part, extended: bool) {
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
        out.text(" ");
        envelope::write(out, &(&**envelope).into());
        out.text(" ");
        write(out, inner, extended);
        let _ = write!(out, " {}", part.n_lines);
    } else if part.content_type.kind == "text" {
        let _ = write!(out, " {}", part.n_lines);
    }
    if extended {
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
