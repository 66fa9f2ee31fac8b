//! The multi-line responses to LIST and UIDL, made piece by piece however long they are.

use crate::OUTPUT_BYTES_MAX;
use crate::maildrop::{Maildrop, Message};

/// What is listed, and how far it came.
pub(crate) struct Listing {
    what: What,
    next: u32,
}

/// Which listing.
#[derive(Clone, Copy)]
pub(crate) enum What {
    Sizes,
    Names,
}

impl What {
    /// The line of one message, without its end.
    pub(crate) fn line(self, maildrop: &Maildrop, number: u32, message: &Message) -> String {
        match self {
            Self::Sizes => format!("{number} {}", message.size),
            Self::Names => format!("{number} {}", maildrop.uidl(message)),
        }
    }
}

impl Listing {
    /// From the first message on.
    pub(crate) fn new(what: What) -> Self {
        Self { what, next: 1 }
    }

    /// Writes on until `out` is full enough; whether that was all.
    pub(crate) fn write(&mut self, maildrop: &Maildrop, out: &mut Vec<u8>) -> bool {
        for (number, message) in maildrop.listed(self.next) {
            if out.len() >= OUTPUT_BYTES_MAX {
                self.next = number;
                return false;
            }
            out.extend_from_slice(self.what.line(maildrop, number, message).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b".\r\n");
        true
    }
}
