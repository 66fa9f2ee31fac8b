//! Keys for SORT (RFC 5256, 5957) and THREAD.

use minicbor::{Decode, Encode};

use crate::date::date;
use crate::envelope::{Address, Envelope};
use crate::limits::{MESSAGE_ID_BYTES_MAX, REFERENCES_MAX, SORT_KEY_BYTES_MAX};
use crate::scanner::Fields;
use crate::subject::{base_subject, truncated};
use crate::word::decode_header;

/// What SORT and THREAD compare. Text is not case-folded.
#[derive(Encode, Decode, Clone, Debug, Default, PartialEq, Eq)]
pub struct SortKeys {
    /// The sent date in UTC. `None` if there is no valid Date: RFC 5256 2.2 then says to use the
    /// arrival.
    #[n(0)]
    pub date_unix_s: Option<i64>,
    /// Minutes east of UTC that the sent date was written with: SENTON and its kin compare the
    /// date as written.
    #[n(1)]
    pub date_zone_min: i32,
    /// RFC 5256 2.1: the base subject.
    #[n(2)]
    pub subject_base: String,
    /// True if the subject marks a reply or forward.
    #[n(3)]
    pub has_re: bool,
    /// Local part of the first From address, or the name of a group.
    #[n(4)]
    pub from_addr: String,
    /// Local part of the first To address.
    #[n(5)]
    pub to_addr: String,
    /// Local part of the first Cc address.
    #[n(6)]
    pub cc_addr: String,
    /// RFC 5957: the first From address as it is displayed: its name, else the address; of a group
    /// its name.
    #[n(7)]
    pub display_from: String,
    /// The same for To.
    #[n(8)]
    pub display_to: String,
    /// The Message-Id without its angle brackets.
    #[n(9)]
    pub message_id: Option<String>,
    /// RFC 5256 3: the ids of References, oldest first; without any, the first of In-Reply-To.
    #[n(10)]
    pub references: Vec<String>,
}

impl SortKeys {
    pub(crate) fn read(fields: &Fields, envelope: &Envelope) -> SortKeys {
        let date = envelope.date.as_deref().and_then(date);
        let (subject_base, has_re) = base_subject(envelope.subject.as_deref().unwrap_or_default());
        SortKeys {
            date_unix_s: date.map(|(unix_s, _)| unix_s),
            date_zone_min: date.map_or(0, |(_, zone_min)| zone_min),
            subject_base,
            has_re,
            from_addr: local_part(&envelope.from),
            to_addr: local_part(&envelope.to),
            cc_addr: local_part(&envelope.cc),
            display_from: display(&envelope.from),
            display_to: display(&envelope.to),
            message_id: envelope.message_id.as_deref().and_then(|ids| message_ids(ids).next()),
            references: references(fields, envelope),
        }
    }
}

/// RFC 5256 3: addr-mailbox of the first address, which of a group is its name.
fn local_part(list: &[Address]) -> String {
    let mailbox = list.first().and_then(|address| address.mailbox.as_deref());
    mailbox.map(|mailbox| key(decode_header(mailbox))).unwrap_or_default()
}

/// RFC 5957 3.
fn display(list: &[Address]) -> String {
    let Some(Address { name, mailbox, host, .. }) = list.first() else { return String::new() };
    let name = name.as_deref().map(decode_header).filter(|name| !name.is_empty());
    let mailbox = || mailbox.as_deref().map(decode_header).unwrap_or_default();
    key(match (name, host) {
        (Some(name), _) => name,
        (None, Some(host)) => format!("{}@{}", mailbox(), decode_header(host)),
        (None, None) => mailbox(),
    })
}

fn key(text: String) -> String {
    truncated(&text, SORT_KEY_BYTES_MAX).to_owned()
}

fn references(fields: &Fields, envelope: &Envelope) -> Vec<String> {
    let mut ids: Vec<String> =
        fields.value("references").map(|ids| message_ids(ids).collect()).unwrap_or_default();
    if ids.is_empty() {
        ids.extend(envelope.in_reply_to.as_deref().and_then(|ids| message_ids(ids).next()));
    }
    if ids.len() > REFERENCES_MAX {
        // The root holds the thread together, the nearest ancestors place the message in it.
        ids.drain(1..=ids.len() - REFERENCES_MAX);
    }
    ids
}

/// The message-ids of a value without angle brackets; quotes in them are taken out, so that both
/// ways to write an id are equal (RFC 5256 3).
fn message_ids(value: &[u8]) -> impl Iterator<Item = String> + '_ {
    value.split(|byte| *byte == b'<').skip(1).filter_map(|piece| {
        let id = &piece[..piece.iter().position(|byte| *byte == b'>')?];
        let id: Vec<u8> = id
            .iter()
            .copied()
            .filter(|byte| !byte.is_ascii_whitespace() && !matches!(byte, b'"' | b'\\'))
            .take(MESSAGE_ID_BYTES_MAX)
            .collect();
        (!id.is_empty()).then(|| String::from_utf8_lossy(&id).into_owned())
    })
}
