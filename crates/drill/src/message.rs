//! Messages that can be told apart and verified, whatever a server put before them.

use std::fmt::Write as _;

use crate::dice::Dice;

/// The first header field of every message of ours. What a delivering server prepends comes before it and
/// is not compared.
const TOKEN: &str = "X-Drill-Token: ";
/// Octets of a usual message.
const USUAL_BYTES: (u64, u64) = (400, 4_000);
/// Octets of one with an attachment: several chunks, and more than travels in one command.
const LARGE_BYTES: (u64, u64) = (200_000, 900_000);
/// So many of 100 are large.
const LARGE_PERCENT: u64 = 1;

/// A message with its token in it; what it takes when it comes back.
pub(crate) fn compose(token: &str, dice: &mut Dice) -> (Vec<u8>, String) {
    let (least, most) = if dice.percent(LARGE_PERCENT) { LARGE_BYTES } else { USUAL_BYTES };
    let mut text = format!(
        "{TOKEN}{token}\r\nFrom: Drill <drill@rookery.invalid>\r\nTo: canary@rookery.invalid\r\n\
         Subject: {token}\r\nDate: Thu, 01 Jan 2026 00:00:00 +0000\r\n\
         Message-ID: <{token}@rookery.invalid>\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=us-ascii\r\n\r\n"
    );
    let n_bytes = dice.range(least, most) as usize;
    while text.len() < n_bytes {
        for _ in 0..4 {
            let _ = write!(text, "{:016x}", dice.next());
        }
        text.push_str("\r\n");
    }
    let digest = digest(text.as_bytes());
    (text.into_bytes(), digest)
}

/// Token and digest of a message that came back; `None` if it is not ours.
pub(crate) fn read(octets: &[u8]) -> Option<(String, String)> {
    let is_ours = |at: &usize| octets[*at..].starts_with(TOKEN.as_bytes());
    let line_starts = octets.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    let start = std::iter::once(0).chain(line_starts.map(|(at, _)| at + 1)).find(is_ours)?;
    let ours = &octets[start..];
    let line = ours.split(|byte| *byte == b'\r' || *byte == b'\n').next()?;
    let token = std::str::from_utf8(&line[TOKEN.len()..]).ok()?;
    Some((token.to_owned(), digest(ours)))
}

fn digest(octets: &[u8]) -> String {
    blake3::hash(octets).to_hex()[..32].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_known_again_behind_trace_fields() {
        let (octets, digest) = compose("c1-1", &mut Dice::new(1));
        let delivered = [b"Return-Path: <>\r\nReceived: x\r\n".as_slice(), &octets].concat();
        assert_eq!(read(&octets), Some(("c1-1".into(), digest.clone())));
        assert_eq!(read(&delivered), Some(("c1-1".into(), digest)));
        assert_eq!(read(b"Subject: c1-1\r\n\r\n"), None);
    }

    #[test]
    fn one_bit_makes_another_digest() {
        let (mut octets, digest) = compose("c1-1", &mut Dice::new(1));
        let last = octets.len() - 5;
        octets[last] ^= 1;
        assert_ne!(read(&octets).map(|(_, digest)| digest), Some(digest));
    }
}
