//! Header fields that the envelope holds: as metadata have them, and in briefs, ready to be compared.

use bytes::{Buf, BufMut};
use mime::Addresses;
use minicbor::Decoder;
use minicbor::decode::Error;

use crate::answer::Passed;

/// A header field that the envelope holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InEnvelope {
    /// As it was written, in this field of the envelope.
    Text(usize),
    /// A list of addresses, likewise.
    List(usize),
}

/// In the order of briefs.
const KEPT: [(&str, InEnvelope); 6] = [
    ("from", InEnvelope::List(2)),
    ("subject", InEnvelope::Text(1)),
    ("to", InEnvelope::List(5)),
    ("cc", InEnvelope::List(6)),
    ("bcc", InEnvelope::List(7)),
    ("message-id", InEnvelope::Text(9)),
];

/// Stands in a brief for the length of a field that is not there.
const ABSENT: u16 = u16::MAX;

impl InEnvelope {
    /// `None` for a header field that the envelope does not hold.
    pub(super) fn of(name: &str) -> Option<Self> {
        KEPT.iter().find(|kept| name.eq_ignore_ascii_case(kept.0)).map(|kept| kept.1)
    }

    /// Adds the field of encoded metadata to a text, as a person reads it; false if there is none. What
    /// lies in front of it is passed over, what lies behind it is not looked at.
    pub(super) fn read(self, metadata: &[u8], text: &mut String) -> Result<bool, Error> {
        let mut decoder = Decoder::new(metadata);
        // Metadata, and in it first the envelope.
        decoder.array()?;
        let n_fields = decoder.array()?.unwrap_or(0) as usize;
        let (Self::Text(at) | Self::List(at)) = self;
        if at >= n_fields {
            return Ok(false);
        }
        for _ in 0..at {
            decoder.skip()?;
        }
        Ok(match self {
            Self::Text(_) => {
                let value: Option<&minicbor::bytes::ByteSlice> = decoder.decode()?;
                if let Some(value) = value {
                    mime::push_header(text, value);
                }
                value.is_some()
            }
            Self::List(_) => {
                let addresses: Addresses<'_> = decoder.decode()?;
                for (i, address) in addresses.enumerate() {
                    text.push_str(if i > 0 { ", " } else { "" });
                    mime::push_header(text, address.name.unwrap_or_default());
                    text.push_str(" <");
                    mime::push_header(text, address.mailbox.unwrap_or_default());
                    text.push('@');
                    mime::push_header(text, address.host.unwrap_or_default());
                    text.push('>');
                }
                !addresses.is_empty()
            }
        })
    }

    /// The field in a brief, folded; `None` if it is not there.
    pub(super) fn find(self, mut brief: &[u8]) -> Option<&[u8]> {
        for (_, kept) in KEPT {
            let n_bytes = brief.try_get_u16().ok()?;
            let is_there = n_bytes != ABSENT;
            let (text, rest) = brief.split_at_checked(if is_there { n_bytes.into() } else { 0 })?;
            if kept == self {
                return is_there.then_some(text);
            }
            brief = rest;
        }
        None
    }
}

/// Makes a brief of encoded metadata; none of an excerpt, whose envelope may be cut short.
pub(super) fn make_brief(metadata: &[u8], brief: &mut Vec<u8>) {
    if Passed::may_be_excerpt(metadata) {
        return;
    }
    let mut text = String::new();
    for (_, kept) in KEPT {
        text.clear();
        let is_there = kept.read(metadata, &mut text).expect("rows are verified when read");
        mime::fold_in_place(&mut text);
        // Why capped: a brief with a text so long is too long and left out.
        let n_bytes = u16::try_from(text.len()).unwrap_or(ABSENT - 1);
        brief.put_u16(if is_there { n_bytes } else { ABSENT });
        brief.extend_from_slice(text.as_bytes());
    }
}
