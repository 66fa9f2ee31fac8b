//! One flipped bit, put right from the checksum.
//!
//! Up to 655 bytes CRC-32C keeps any two strings at least six bits apart. So the one bit whose turning
//! makes a checksum right is the bit that turned, and what two to four turned bits left is never
//! taken for it. That saves the short things for which no peer has a copy: a lost vote costs the
//! replica its identity, and a lost head hides everything behind it.

/// Limit: below the length up to which the distance of the checksum is six.
pub(crate) const MEND_BYTES_MAX: usize = 512;

/// `bytes` with the one bit turned that makes them verify, if there is one.
pub(crate) fn mended(bytes: &[u8], verifies: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
    if bytes.len() > MEND_BYTES_MAX {
        return None;
    }
    let mut bytes = bytes.to_vec();
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        if verifies(&bytes) {
            return Some(bytes);
        }
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    None
}

#[cfg(test)]
mod tests {
    use crc32c::crc32c;

    use super::*;

    #[test]
    fn one_bit_is_put_right_and_two_are_not() {
        let right: Vec<u8> = (0..300).map(|i| (i * 31 % 251) as u8).collect();
        let crc = crc32c(&right);
        let verifies = |bytes: &[u8]| crc32c(bytes) == crc;
        for bit in (0..right.len() * 8).step_by(7) {
            let mut rotten = right.clone();
            rotten[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(mended(&rotten, verifies), Some(right.clone()), "bit {bit}");
            rotten[(bit / 8 + 41) % 300] ^= 4;
            assert_eq!(mended(&rotten, verifies), None, "bit {bit} and another");
        }
        assert_eq!(mended(&[0; MEND_BYTES_MAX + 1], |_| true), None);
    }
}
