//! Changes good input into bad.

/// Limit: octets of most inputs.
const INPUT_BYTES_MAX: usize = 8 * 1024;

/// One in so many inputs may grow to eight times that.
const LARGE_ONE_IN: u64 = 64;

/// Numbers at which something may go wrong.
const NUMBERS: [&str; 10] = [
    "0",
    "1",
    "*",
    "255",
    "65536",
    "2147483648",
    "4294967295",
    "4294967296",
    "9223372036854775808",
    "99999999999999999999",
];

/// Xorshift64*: small, fast, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn new(number: u64) -> Self {
        Self((number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `n`, which is not 0.
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// Makes inputs from these seeds and words.
pub struct Mutator {
    pub seeds: Vec<Vec<u8>>,
    pub words: &'static [&'static [u8]],
}

impl Mutator {
    /// The input of a number, always the same.
    pub fn input(&self, number: u64) -> Vec<u8> {
        let mut dice = Dice::new(number);
        let mut input = dice.of(&self.seeds).clone();
        let most = 1 << dice.below(5);
        let n_changes = 1 + dice.below(most);
        for _ in 0..n_changes {
            self.change(&mut input, &mut dice);
        }
        let is_large = dice.next().is_multiple_of(LARGE_ONE_IN);
        input.truncate(if is_large { 8 * INPUT_BYTES_MAX } else { INPUT_BYTES_MAX });
        input
    }

    fn change(&self, input: &mut Vec<u8>, dice: &mut Dice) {
        if input.is_empty() {
            input.push(dice.next() as u8);
        }
        let at = dice.below(input.len());
        let most = 1 << dice.below(8);
        let len = 1 + dice.below((input.len() - at).min(most));
        match dice.below(11) {
            0 => input[at] ^= 1 << dice.below(8),
            1 => input[at] = *dice.of(&[0, b'\r', b'\n', b'"', b'(', b'{', b'\\', 0x7f, 0xff]),
            2 => input[at] = dice.next() as u8,
            3 => drop(input.drain(at..at + len)),
            4 => {
                let piece = input[at..at + len].to_vec();
                let n_times = 1 << dice.below(8);
                let piece = piece.repeat(n_times.min(1 + INPUT_BYTES_MAX / len));
                input.splice(at..at, piece);
            }
            5 => {
                let other = dice.of(&self.seeds);
                let from = dice.below(other.len().max(1)).min(other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            6 if !self.words.is_empty() => {
                let word = *dice.of(self.words);
                input.splice(at..at, word.iter().copied());
            }
            7 => number(input, at, dice),
            8 => {
                let piece = input[at..at + len].to_vec();
                let to = dice.below(input.len());
                input.splice(to..to, piece);
            }
            9 => input.truncate(at),
            _ => {
                let n = 1 + dice.below(8);
                let octets: Vec<u8> = (0..n).map(|_| dice.next() as u8).collect();
                input.splice(at..at, octets);
            }
        }
    }
}

/// The first number from here on becomes another one; four octets do when there is none.
fn number(input: &mut Vec<u8>, at: usize, dice: &mut Dice) {
    let is_digit = |octet: &u8| octet.is_ascii_digit();
    match input[at..].iter().position(is_digit) {
        Some(first) => {
            let first = at + first;
            let len = input[first..].iter().take_while(|octet| is_digit(octet)).count();
            input.splice(first..first + len, dice.of(&NUMBERS).bytes());
        }
        None => {
            let end = input.len().min(at + 4);
            input[at..end].fill(*dice.of(&[0, 0x7f, 0xff]));
        }
    }
}
