//! DATA and BDAT: the message itself.

use bytes::Bytes;
use mailbox::AccountId;
use mailbox::dialogue::{Look, Question, Reply};

use super::{Doing, Recipient, Session, why};
use crate::PIECE_BYTES_MAX;
use crate::chunk::ChunkReader;
use crate::data::DataReader;
use crate::parse::Chunk;
use crate::refuse::{self, Words};

const LINE_END_BYTES: usize = b"\r\n".len();

/// A message on its way in.
pub(super) struct Reading {
    body: Body,
    piece: Vec<u8>,
    n_bytes: u64,
    /// How many of these are not the client's: trace fields, and the end of a last line without one.
    n_added_bytes: u64,
    /// Words for every recipient, when the message is not wanted any more.
    pub(super) refusal: Option<&'static str>,
    /// It is larger than a message may be.
    is_too_large: bool,
}

/// How it comes.
enum Body {
    Data(DataReader),
    Chunks(ChunkReader),
}

impl Reading {
    /// After DATA, with these trace fields in front.
    pub(super) fn data(trace: Vec<u8>) -> Self {
        Self::new(Body::Data(DataReader::default()), trace)
    }

    fn new(body: Body, trace: Vec<u8>) -> Self {
        let n_added_bytes = trace.len() as u64;
        Self { body, piece: trace, n_bytes: 0, n_added_bytes, refusal: None, is_too_large: false }
    }

    fn begin_chunk(&mut self, chunk: Chunk) {
        if let Body::Chunks(reader) = &mut self.body {
            reader.begin(chunk.n_bytes, chunk.is_last);
        }
    }

    /// Whether nothing is to be read before the next command.
    fn is_at_end(&self) -> bool {
        match &self.body {
            Body::Data(reader) => reader.is_at_end(),
            Body::Chunks(reader) => reader.is_at_end(),
        }
    }

    /// Whether that was the whole message.
    fn is_whole(&self) -> bool {
        match &self.body {
            Body::Data(reader) => reader.is_at_end(),
            Body::Chunks(reader) => reader.is_at_end() && reader.is_last(),
        }
    }

    fn is_full(&self) -> bool {
        self.piece.len() + LINE_END_BYTES >= PIECE_BYTES_MAX
    }

    /// Reads on, up to a full piece; the number of octets used.
    fn read(&mut self, input: &[u8]) -> usize {
        // A line end may come on top of the room.
        let room = PIECE_BYTES_MAX - self.piece.len() - LINE_END_BYTES;
        match &mut self.body {
            Body::Data(reader) => reader.read(input, &mut self.piece, room),
            Body::Chunks(reader) => reader.read(input, &mut self.piece, room),
        }
    }

    /// A message that is not wanted is read and forgotten; one that is whole ends with a line end.
    fn judge(&mut self, message_bytes_max: u64) {
        let has_bare_lf = match &self.body {
            Body::Data(reader) => reader.has_bare_lf(),
            Body::Chunks(reader) => reader.has_bare_lf(),
        };
        if has_bare_lf && self.refusal.is_none() {
            self.refusal = Some(Words::BareLf.text());
        }
        let n_bytes = self.n_bytes + self.piece.len() as u64;
        self.is_too_large |= n_bytes.saturating_sub(self.n_added_bytes) > message_bytes_max;
        if self.refusal.is_some() || self.is_too_large {
            self.piece.clear();
        } else if self.is_whole()
            && let Body::Chunks(reader) = &mut self.body
        {
            let n_before = self.piece.len();
            reader.end_line(&mut self.piece);
            self.n_added_bytes += (self.piece.len() - n_before) as u64;
        }
    }
}

impl Session {
    pub(super) fn data(&mut self) -> Result<Question, Words> {
        let question = self.begin_body()?;
        self.doing = Doing::Beginning;
        Ok(question)
    }

    /// RFC 3030 2: the chunk is read whatever becomes of it.
    pub(super) fn bdat(&mut self, chunk: Chunk) -> Option<Question> {
        let transaction = self.transaction.as_mut();
        if let Some(mut reading) = transaction.and_then(|transaction| transaction.chunks.take()) {
            reading.begin_chunk(chunk);
            self.doing = Doing::Reading(reading);
            return None;
        }
        match self.begin_body() {
            Ok(question) => {
                self.doing = Doing::BeginningChunks(chunk);
                Some(question)
            }
            Err(words) => {
                self.doing = Doing::Skipping { left: chunk.n_bytes, words };
                None
            }
        }
    }

    fn begin_body(&mut self) -> Result<Question, Words> {
        let Some(transaction) = &self.transaction else { return Err(self.mail_first()) };
        if transaction.chunks.is_some() {
            return Err(self.bad(Words::InChunks));
        }
        // RFC 2033 4.2: without a valid recipient DATA fails.
        if transaction.recipients.is_empty() {
            return Err(Words::RcptFirst);
        }
        let to = transaction.recipients.iter();
        let mut accounts: Vec<_> = to.flat_map(|to| to.accounts.iter().copied()).collect();
        accounts.sort_unstable();
        accounts.dedup();
        Ok(Question::BeginBody(accounts))
    }

    pub(super) fn chunks_begun(&mut self, chunk: Chunk, reply: &Reply) {
        let mut reading = Reading::new(Body::Chunks(ChunkReader::default()), self.trace_in_front());
        reading.begin_chunk(chunk);
        if !matches!(reply, Reply::Done) {
            reading.refusal = Some(refuse::trouble(why(reply)));
        }
        self.doing = Doing::Reading(reading);
    }

    /// Reads over octets of a chunk; whether that was its end.
    pub(super) fn skip(&mut self, left: u64, words: Words) -> bool {
        let n = usize::try_from(left).unwrap_or(usize::MAX).min(self.input.len());
        self.input.consume(n);
        let left = left - n as u64;
        if left > 0 {
            self.doing = Doing::Skipping { left, words };
            return false;
        }
        self.tell(words);
        true
    }

    /// Reads more of the message; leaves the session reading when input is short.
    pub(super) fn read(&mut self, mut reading: Reading) -> Option<Question> {
        loop {
            if !self.input.is_empty() && !reading.is_at_end() && !reading.is_full() {
                let n = reading.read(self.input.octets());
                self.input.consume(n);
            }
            // Why after each piece: one that is forgotten is not full, and reading goes on to the end.
            reading.judge(self.settings.message_bytes_max);
            let is_short = self.input.is_empty() || reading.is_at_end() || reading.is_full();
            if is_short {
                break;
            }
        }
        let is_whole = reading.is_whole();
        if !reading.piece.is_empty() && (is_whole || reading.is_full()) {
            reading.n_bytes += reading.piece.len() as u64;
            let piece = Bytes::from(std::mem::take(&mut reading.piece));
            self.doing = Doing::Storing(reading);
            return Some(Question::Body(piece));
        }
        // Why the size last: how much of it is seen before a line end that stands alone is up to the network.
        let refusal = reading.refusal.or(reading.is_too_large.then(|| Words::TooLarge.text()));
        match refusal {
            _ if !reading.is_at_end() => self.doing = Doing::Reading(reading),
            refusal if !is_whole => self.chunk_taken(reading, refusal),
            Some(words) => {
                self.doing = Doing::Dropping(words);
                return Some(Question::DropBody);
            }
            None => {
                self.doing = Doing::Ending;
                return Some(Question::EndBody);
            }
        }
        None
    }

    /// A chunk that is not the last has one reply, whoever the recipients are.
    fn chunk_taken(&mut self, reading: Reading, refusal: Option<&'static str>) {
        self.say(refusal.unwrap_or(Words::ChunkOk.text()));
        if let Some(transaction) = &mut self.transaction {
            transaction.chunks = Some(reading);
        }
    }

    /// The same words for every recipient; RFC 2033 4.2: one reply each.
    pub(super) fn tell_all(&mut self, words: &str) {
        let n_recipients = self.transaction.take().map_or(0, |all| all.recipients.len());
        for _ in 0..n_recipients {
            self.say(words);
        }
    }
}

impl Recipient {
    /// How many accounts the message is for.
    pub(super) fn n_members(&self) -> usize {
        self.accounts.len()
    }

    /// Those who get it now.
    pub(super) fn takers(&self) -> impl Iterator<Item = &AccountId> {
        let takes = |at: usize| match &self.looks {
            Some(looks) => matches!(looks.get(at), Some(Look::Takes)),
            None => true,
        };
        self.accounts.iter().enumerate().filter(move |(at, _)| takes(*at)).map(|(_, to)| to)
    }

    /// Whether one reply stands for several accounts.
    pub(super) fn is_group(&self) -> bool {
        self.n_members() > 1
    }
}
