//! COMPRESS (RFC 4978). The octets behind its response are compressed, and those behind the command.

use super::immediate;
use crate::context::Context;
use crate::parse::{Fault, Parsed};
use crate::work::{Ending, Then, Work};

pub(super) fn begin(cx: &mut Context) -> Parsed<Box<dyn Work>> {
    if std::mem::replace(&mut cx.compressed, true) {
        return Err(Fault::No("COMPRESSIONACTIVE", "compressed already"));
    }
    Ok(immediate(Ending::ok("compressed from here on").then(Then::Compress)))
}
