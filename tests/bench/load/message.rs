//! Messages that compress and parse about as real mail does, and chance that can be repeated.

/// A small generator of pseudo-random numbers (xorshift).
pub struct Chance(u64);

impl Chance {
    /// Different for each seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Less than `below`.
    pub fn below(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below.max(1)
    }
}

const WORDS: &[&str] = &[
    "the", "meeting", "invoice", "please", "tomorrow", "regards", "attached", "report", "and",
    "of", "to", "in", "schedule", "project", "thanks", "review", "draft", "budget", "with",
    "question",
];

/// One message of about this many octets; 0 draws a size: mostly a few kB, seldom large. Half of the
/// body is words, half is what base64 looks like.
pub fn compose(chance: &mut Chance, size: usize, number: u64) -> Vec<u8> {
    let size = match size {
        0 => match chance.below(100) {
            0..50 => 2_000 + chance.below(4_000) as usize,
            50..85 => 8_000 + chance.below(24_000) as usize,
            85..98 => 40_000 + chance.below(160_000) as usize,
            _ => 1_000_000,
        },
        size => size,
    };
    let from = chance.below(500);
    let mut out = format!(
        "From: Sender {from} <sender{from}@example.test>\r\nTo: <someone@example.test>\r\n\
         Subject: message {number} about the {}\r\nDate: Tue, 14 Jan 2025 10:00:00 +0000\r\n\
         Message-ID: <{number}.{}@example.test>\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=utf-8\r\n\r\n",
        WORDS[chance.below(WORDS.len() as u64) as usize],
        chance.below(u64::MAX),
    )
    .into_bytes();
    while out.len() < size {
        let begin = out.len();
        if chance.below(2) == 0 {
            while out.len() < begin + 66 {
                out.extend_from_slice(WORDS[chance.below(WORDS.len() as u64) as usize].as_bytes());
                out.push(b' ');
            }
        } else {
            (0..76).for_each(|_| out.push(b'A' + chance.below(26) as u8));
        }
        out.extend_from_slice(b"\r\n");
    }
    out
}
