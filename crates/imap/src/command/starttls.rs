//! STARTTLS (RFC 9051 6.2.1).

use super::immediate;
use crate::context::Context;
use crate::parse::{Fault, Parsed};
use crate::work::{Ending, Then, Work};

pub(super) fn begin(cx: &Context) -> Parsed<Box<dyn Work>> {
    if cx.tls {
        return Err(Fault::Bad("TLS is up already"));
    }
    if !cx.config.tls_available {
        return Err(Fault::Bad("there is no TLS here"));
    }
    Ok(immediate(Ending::ok("begin TLS").then(Then::StartTls)))
}
