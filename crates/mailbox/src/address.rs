//! Mail addresses in the one canonical form that the directory is keyed by.

use minicbor::{Decode, Decoder, Encode};
use unicode_normalization::UnicodeNormalization;

/// Limit: octets of a local part (RFC 5321 4.5.3.1.1), doubled for UTF-8.
pub const LOCAL_BYTES_MAX: usize = 128;
/// Limit: octets of a domain (RFC 5321 4.5.3.1.2).
pub const DOMAIN_BYTES_MAX: usize = 255;
/// Separates the account from the detail in `user+detail` (RFC 5233).
pub const DETAIL_SEPARATOR: char = '+';

/// The local part that stands for every one nobody has.
const CATCH_ALL: &str = "*";

/// An address in canonical form, version 1: NFC, local part lowercased, domain lowercased with
/// U-labels as A-labels (IDNA), no detail.
/// Invariant: exactly one `@` separates non-empty parts; no control characters or spaces.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode)]
#[cbor(transparent)]
pub struct Address(#[n(0)] String);

/// Why a text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an address of the form user@domain")]
pub struct NotAnAddress;

impl Address {
    /// The canonical address and the detail (`user+detail@domain`), which is not part of it.
    pub fn parse(text: &str) -> Result<(Self, Option<String>), NotAnAddress> {
        let (local, domain) = text.rsplit_once('@').ok_or(NotAnAddress)?;
        let local = unquote(local).ok_or(NotAnAddress)?;
        let local: String = local.nfc().flat_map(char::to_lowercase).nfc().collect();
        let (user, detail) = match local.split_once(DETAIL_SEPARATOR) {
            Some((user, detail)) if !user.is_empty() => (user, Some(detail.to_owned())),
            _ => (local.as_str(), None),
        };
        let domain =
            idna::domain_to_ascii(domain.trim_end_matches('.')).map_err(|_| NotAnAddress)?;
        let legal = |c: char| !c.is_control() && !c.is_whitespace() && c != '@';
        let fits = !user.is_empty() && user.len() <= LOCAL_BYTES_MAX && user.chars().all(legal);
        let place = !domain.is_empty() && domain.len() <= DOMAIN_BYTES_MAX;
        if fits && place && domain.chars().all(legal) {
            Ok((Self(format!("{user}@{domain}")), detail))
        } else {
            Err(NotAnAddress)
        }
    }

    /// The whole address.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands behind the `@`.
    pub fn domain(&self) -> &str {
        self.0.rsplit_once('@').map_or("", |(_, domain)| domain)
    }

    /// The address that gets what is for nobody at this address's domain: `*@domain`.
    pub fn catch_all(&self) -> Self {
        Self(format!("{CATCH_ALL}@{}", self.domain()))
    }

    /// Whether it is one of these.
    pub fn is_catch_all(&self) -> bool {
        self.0.strip_prefix(CATCH_ALL).is_some_and(|rest| rest.starts_with('@'))
    }

    /// Which of the 1,024 directory slots keeps this address.
    pub fn directory_slot(&self) -> u16 {
        let hash = blake3::hash(self.0.as_bytes());
        u16::from_be_bytes([hash.as_bytes()[0], hash.as_bytes()[1]]) % DIRECTORY_SLOTS
    }
}

/// Directory slots; the meta group maps each to a shard. Fixed for ever, since it is a modulus.
pub const DIRECTORY_SLOTS: u16 = 1024;

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'b, C> Decode<'b, C> for Address {
    /// Takes what has the form; that it is canonical was made sure of when it was parsed.
    fn decode(decoder: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let text = decoder.str()?;
        let fits = text.len() <= LOCAL_BYTES_MAX + 1 + DOMAIN_BYTES_MAX;
        match text.rsplit_once('@') {
            Some((local, domain)) if fits && !local.is_empty() && !domain.is_empty() => {
                Ok(Self(text.to_owned()))
            }
            _ => Err(minicbor::decode::Error::message("no address")),
        }
    }
}

/// A quoted local part (RFC 5321 4.1.2) without its quotes; others as they are.
fn unquote(local: &str) -> Option<String> {
    let Some(inner) = local.strip_prefix('"') else {
        return Some(local.to_owned());
    };
    let inner = inner.strip_suffix('"')?;
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' { chars.next()? } else { c });
    }
    Some(out)
}
