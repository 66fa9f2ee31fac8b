//! Flags and keywords of a message (RFC 9051 2.3.2).

use std::collections::BTreeSet;

use minicbor::{Decode, Decoder, Encode};

/// Limit: different keywords on one message; enough for every client's labels.
pub const KEYWORDS_MAX: usize = 64;
/// Limit: octets of one keyword.
pub const KEYWORD_BYTES_MAX: usize = 64;

/// The five settable system flags as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct SystemFlags(#[n(0)] pub u8);

impl SystemFlags {
    /// `\Seen`
    pub const SEEN: Self = Self(1);
    /// `\Answered`
    pub const ANSWERED: Self = Self(2);
    /// `\Flagged`
    pub const FLAGGED: Self = Self(4);
    /// `\Deleted`
    pub const DELETED: Self = Self(8);
    /// `\Draft`
    pub const DRAFT: Self = Self(16);
    /// All five.
    pub const ALL: Self = Self(31);

    /// Whether all of `other` are set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// A keyword: an IMAP atom, compared without regard to ASCII case, kept as first written.
/// Invariant: 1 to [`KEYWORD_BYTES_MAX`] printable ASCII octets, no atom-specials.
#[derive(Clone, Debug, Encode)]
#[cbor(transparent)]
pub struct Keyword(#[n(0)] String);

impl Keyword {
    /// `None` when the text is no keyword.
    pub fn new(text: &str) -> Option<Self> {
        let legal = |byte: u8| byte.is_ascii_graphic() && !b"(){%*\"\\]".contains(&byte);
        let fits = !text.is_empty() && text.len() <= KEYWORD_BYTES_MAX;
        (fits && text.bytes().all(legal)).then(|| Self(text.to_owned()))
    }

    /// The keyword as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn folded(&self) -> impl Iterator<Item = u8> + '_ {
        self.0.bytes().map(|byte| byte.to_ascii_lowercase())
    }
}

impl<'b, C> Decode<'b, C> for Keyword {
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Self::new(decoder.str()?).ok_or_else(|| minicbor::decode::Error::message("no keyword"))
    }
}

impl PartialEq for Keyword {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for Keyword {}

impl PartialOrd for Keyword {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Keyword {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.folded().cmp(other.folded())
    }
}

/// All flags of one message. `\Recent` is not among them: it belongs to a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Flags {
    /// System flags.
    #[n(0)]
    pub system: SystemFlags,
    /// Keywords, at most [`KEYWORDS_MAX`].
    #[n(1)]
    pub keywords: BTreeSet<Keyword>,
}

impl Flags {
    /// Octets of all keywords.
    pub(crate) fn n_keyword_bytes(&self) -> usize {
        self.keywords.iter().map(|keyword| keyword.as_str().len()).sum()
    }

    /// The flags after this change.
    pub fn changed(&self, change: &FlagChange) -> Self {
        match change {
            FlagChange::Replace(flags) => flags.clone(),
            FlagChange::Add(flags) => Self {
                system: SystemFlags(self.system.0 | flags.system.0),
                keywords: self.keywords.union(&flags.keywords).cloned().collect(),
            },
            FlagChange::Remove(flags) => Self {
                system: SystemFlags(self.system.0 & !flags.system.0),
                keywords: self.keywords.difference(&flags.keywords).cloned().collect(),
            },
        }
    }
}

/// What STORE does to the flags of a message.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum FlagChange {
    /// `FLAGS`
    #[n(0)]
    Replace(#[n(0)] Flags),
    /// `+FLAGS`
    #[n(1)]
    Add(#[n(0)] Flags),
    /// `-FLAGS`
    #[n(2)]
    Remove(#[n(0)] Flags),
}
