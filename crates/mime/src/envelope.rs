//! The ENVELOPE of a message.

use minicbor::{Decode, Encode};

use crate::address::addresses;
use crate::header::unfold;
use crate::limits::{CUT_ADDRESSES_MAX, CUT_FIELD_BYTES_MAX};
use crate::scanner::Fields;
use crate::token::Budget;

/// RFC 9051 7.5.2: ENVELOPE. Values are unfolded but still RFC 2047-encoded, as IMAP sends them.
///
/// Invariant: no value of it has CR, LF or NUL in it; 8-bit octets it may have.
#[derive(Encode, Decode, Clone, Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    /// Date.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub date: Option<Vec<u8>>,
    /// Subject.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub subject: Option<Vec<u8>>,
    /// From.
    #[n(2)]
    pub from: Vec<Address>,
    /// Sender; From if there is none.
    #[n(3)]
    pub sender: Vec<Address>,
    /// Reply-To; From if there is none.
    #[n(4)]
    pub reply_to: Vec<Address>,
    /// To.
    #[n(5)]
    pub to: Vec<Address>,
    /// Cc.
    #[n(6)]
    pub cc: Vec<Address>,
    /// Bcc.
    #[n(7)]
    pub bcc: Vec<Address>,
    /// In-Reply-To.
    #[cbor(n(8), with = "minicbor::bytes")]
    pub in_reply_to: Option<Vec<u8>>,
    /// Message-Id.
    #[cbor(n(9), with = "minicbor::bytes")]
    pub message_id: Option<Vec<u8>>,
}

/// One address, or a marker of a group: RFC 9051 7.5.2.
///
/// A group starts with an address whose `host` is `None` and whose `mailbox` is the group's name,
/// and ends with one where both are `None`. An address that lacks a part has it empty.
#[derive(Encode, Decode, Clone, Debug, Default, PartialEq, Eq)]
pub struct Address {
    /// The personal name.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub name: Option<Vec<u8>>,
    /// The at-domain-list of a source route.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub adl: Option<Vec<u8>>,
    /// The local part, unquoted.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub mailbox: Option<Vec<u8>>,
    /// The domain.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub host: Option<Vec<u8>>,
}

impl Envelope {
    /// Reads the fields of one header block.
    pub(crate) fn read(fields: &Fields, budget: &mut Budget) -> Envelope {
        let text = |name: &str| fields.value(name).map(|value| unfold(value).into_owned());
        let mut list = |name: &str| {
            fields.value(name).map(|value| addresses(value, budget)).unwrap_or_default()
        };
        let from = list("from");
        Envelope {
            date: text("date"),
            subject: text("subject"),
            sender: list("sender"),
            reply_to: list("reply-to"),
            to: list("to"),
            cc: list("cc"),
            bcc: list("bcc"),
            in_reply_to: text("in-reply-to"),
            message_id: text("message-id"),
            from,
        }
        .with_defaults(budget)
    }

    /// Keeps the first addresses of each list and the first octets of each value.
    pub(crate) fn cut(&mut self) {
        let texts =
            [&mut self.date, &mut self.subject, &mut self.in_reply_to, &mut self.message_id];
        texts.into_iter().flatten().for_each(|text| text.truncate(CUT_FIELD_BYTES_MAX));
        let lists = [
            &mut self.from,
            &mut self.sender,
            &mut self.reply_to,
            &mut self.to,
            &mut self.cc,
            &mut self.bcc,
        ];
        for list in lists {
            list.truncate(CUT_ADDRESSES_MAX);
            for address in list {
                let Address { name, adl, mailbox, host } = address;
                let parts = [name, adl, mailbox, host].into_iter().flatten();
                parts.for_each(|part| part.truncate(CUT_FIELD_BYTES_MAX));
            }
        }
    }

    /// RFC 9051 7.5.2: an absent or empty Sender or Reply-To is From.
    fn with_defaults(mut self, budget: &mut Budget) -> Envelope {
        for list in [&mut self.sender, &mut self.reply_to] {
            if list.is_empty() {
                list.extend(self.from.iter().take_while(|_| budget.take()).cloned());
            }
        }
        self
    }
}
