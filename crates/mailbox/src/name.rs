//! Mailbox names: components, never a joined string.

use minicbor::{Decode, Decoder, Encode};
use unicode_normalization::UnicodeNormalization;

/// Limit: levels of a mailbox name; deeper trees only come from loops in clients.
pub const LEVELS_MAX: usize = 32;
/// Limit: octets of one component.
pub const COMPONENT_BYTES_MAX: usize = 255;

/// The full name of a mailbox. `INBOX` as first component is case-insensitive (RFC 9051 5.1).
/// Invariant: 1 to [`LEVELS_MAX`] components, each NFC, 1 to [`COMPONENT_BYTES_MAX`] octets, without
/// control characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode)]
#[cbor(transparent)]
pub struct MailboxName(#[n(0)] Vec<String>);

impl MailboxName {
    /// The mailbox every account has.
    pub fn inbox() -> Self {
        Self(vec!["INBOX".into()])
    }

    /// `None` when a rule of the type is broken.
    pub fn new<S: AsRef<str>>(components: impl IntoIterator<Item = S>) -> Option<Self> {
        let mut all: Vec<String> =
            components.into_iter().map(|part| part.as_ref().nfc().collect()).collect();
        let legal = |part: &String| {
            let fits = !part.is_empty() && part.len() <= COMPONENT_BYTES_MAX;
            fits && !part.chars().any(char::is_control)
        };
        if all.is_empty() || all.len() > LEVELS_MAX || !all.iter().all(legal) {
            return None;
        }
        if all[0].eq_ignore_ascii_case("INBOX") {
            all[0] = "INBOX".into();
        }
        Some(Self(all))
    }

    /// A name, or a pattern for names, in the form in which they are kept.
    pub fn compose(text: &str) -> String {
        text.nfc().collect()
    }

    /// Splits at `separator`.
    pub fn parse(text: &str, separator: char) -> Option<Self> {
        Self::new(text.split(separator))
    }

    /// From the root down.
    pub fn components(&self) -> &[String] {
        &self.0
    }

    /// The last component.
    pub fn leaf(&self) -> &str {
        self.0.last().expect("a name has at least one component")
    }

    /// The mailbox above, if any.
    pub fn parent(&self) -> Option<Self> {
        (self.0.len() > 1).then(|| Self(self.0[..self.0.len() - 1].to_vec()))
    }

    /// Whether this is INBOX itself.
    pub fn is_inbox(&self) -> bool {
        self.0.len() == 1 && self.0[0] == "INBOX"
    }

    /// Whether this lies below `other`.
    pub fn is_below(&self, other: &Self) -> bool {
        self.0.len() > other.0.len() && self.0.starts_with(&other.0)
    }

    /// Octets of the joined name.
    pub(crate) fn size_bytes(&self) -> usize {
        size_bytes(&self.0)
    }

    /// The components joined by `separator`.
    pub fn join(&self, separator: char) -> String {
        self.0.join(&separator.to_string())
    }
}

/// Octets of these components with one more between each two.
pub(crate) fn size_bytes(components: &[String]) -> usize {
    components.iter().map(|component| component.len() + 1).sum::<usize>().saturating_sub(1)
}

impl<'b, C> Decode<'b, C> for MailboxName {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let components: Vec<String> = decoder.decode()?;
        Self::new(components).ok_or_else(|| minicbor::decode::Error::message("no mailbox name"))
    }
}
