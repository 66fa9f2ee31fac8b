//! COMPRESS=DEFLATE (RFC 4978): what lies between a session and its client once both agreed on it.
//!
//! Promises: octets are taken apart only as far as the session has room for them, so a small input
//! that stands for a huge one costs no more than the huge one would; while a session is silent
//! neither direction holds more than what the next octet needs.

use bytes::{Buf as _, Bytes, BytesMut};
use miniz_oxide::DataFormat;
use miniz_oxide::deflate::CompressionLevel;
use miniz_oxide::deflate::core::{CompressorOxide, TDEFLFlush, compress};
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::{
    TINFL_FLAG_HAS_MORE_INPUT, TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY,
};
use miniz_oxide::inflate::core::{BlockBoundaryState, DecompressorOxide, decompress_with_limit};

use crate::limits::{PENDING_BYTES_MAX, SEND_BYTES};

/// How far back DEFLATE may refer (RFC 1951).
const WINDOW_BYTES: usize = 32 * 1024;
/// Octets compressed at once.
const STEP_BYTES: usize = 16 * 1024;
/// What a compressor adds at most to so many octets and a flush.
const STEP_OVERHEAD_BYTES: usize = 1024;

/// What the client sent cannot be taken apart; nothing behind it can be understood either.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Damaged;

/// Both directions.
pub(crate) struct Layer {
    inflater: Inflater,
    deflater: Deflater,
    /// Compressed octets of the client, not looked at.
    received: BytesMut,
}

impl Layer {
    /// The first octets came with the command that switched it on.
    pub(crate) fn new(received: BytesMut) -> Self {
        Self { inflater: Inflater::new(), deflater: Deflater::new(), received }
    }

    /// Takes in what came.
    pub(crate) fn receive(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
    }

    /// Whether there is something to take apart.
    pub(crate) fn has_more(&self) -> bool {
        self.inflater.has_more || !self.received.is_empty()
    }

    /// Whether more may come.
    pub(crate) fn wants_input(&self) -> bool {
        self.received.len() < PENDING_BYTES_MAX
    }

    /// Octets taken apart so far.
    pub(crate) fn n_inflated(&self) -> u64 {
        self.inflater.n_inflated
    }

    /// Takes apart what was received, at most so many octets of it.
    pub(crate) fn inflate(&mut self, n_max: usize, to: impl FnMut(&[u8])) -> Result<(), Damaged> {
        self.inflater.inflate(&mut self.received, n_max, to)
    }

    /// Adds octets on their way to the client.
    pub(crate) fn deflate(&mut self, bytes: &[u8]) {
        self.deflater.add(bytes);
    }

    /// Whether enough has gathered to be sent.
    pub(crate) fn is_full(&self) -> bool {
        self.deflater.ready.len() >= SEND_BYTES
    }

    /// Everything added so far, so that the client can read it; `None` if it can already.
    pub(crate) fn flush(&mut self) -> Option<Bytes> {
        self.deflater.flush();
        self.take_ready()
    }

    /// What is ready to be sent.
    pub(crate) fn take_ready(&mut self) -> Option<Bytes> {
        let ready = std::mem::take(&mut self.deflater.ready);
        (!ready.is_empty()).then(|| ready.into())
    }

    /// The client is silent: lets go of what can be made again.
    pub(crate) fn rest(&mut self) {
        self.deflater.rest();
        if !self.has_more() {
            self.received = BytesMut::new();
            self.inflater.rest();
        }
    }
}

/// Takes apart.
struct Inflater {
    state: State,
    n_inflated: u64,
    /// Octets are known that there was no room for.
    has_more: bool,
}

enum State {
    Working(Box<Working>),
    /// Between two blocks of the stream: all that is needed to go on is what it may refer to.
    Resting(BlockBoundaryState, Box<[u8]>),
}

struct Working {
    decompressor: DecompressorOxide,
    window: Box<[u8]>,
    /// Where in the window the next octet goes.
    at: usize,
    /// Octets of the window that were ever written.
    n_filled: usize,
    is_between_blocks: bool,
}

impl Working {
    fn new(boundary: &BlockBoundaryState, before: &[u8]) -> Self {
        let mut window = vec![0; WINDOW_BYTES].into_boxed_slice();
        window[..before.len()].copy_from_slice(before);
        Self {
            decompressor: DecompressorOxide::from_block_boundary_state(boundary),
            window,
            at: before.len() % WINDOW_BYTES,
            n_filled: before.len(),
            is_between_blocks: true,
        }
    }

    /// What later octets may refer to, oldest first.
    fn before(&self) -> Box<[u8]> {
        if self.n_filled < WINDOW_BYTES {
            return self.window[..self.n_filled].into();
        }
        [&self.window[self.at..], &self.window[..self.at]].concat().into()
    }
}

impl Inflater {
    fn new() -> Self {
        let state = State::Resting(BlockBoundaryState::default(), Box::default());
        Self { state, n_inflated: 0, has_more: false }
    }

    fn working(&mut self) -> &mut Working {
        if let State::Resting(boundary, before) = &self.state {
            self.state = State::Working(Box::new(Working::new(boundary, before)));
        }
        match &mut self.state {
            State::Working(working) => working,
            State::Resting(..) => unreachable!("it was just set to work"),
        }
    }

    fn inflate(
        &mut self,
        from: &mut BytesMut,
        mut n_max: usize,
        mut to: impl FnMut(&[u8]),
    ) -> Result<(), Damaged> {
        let flags = TINFL_FLAG_HAS_MORE_INPUT | TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY;
        while n_max > 0 && (self.has_more || !from.is_empty()) {
            let working = self.working();
            let Working { decompressor, window, at, .. } = working;
            let (status, n_read, n_written) =
                decompress_with_limit(decompressor, from, window, *at, n_max, flags);
            from.advance(n_read);
            to(&working.window[working.at..working.at + n_written]);
            working.at = (working.at + n_written) % WINDOW_BYTES;
            working.n_filled = (working.n_filled + n_written).min(WINDOW_BYTES);
            working.is_between_blocks = status == TINFLStatus::BlockBoundary;
            self.n_inflated += n_written as u64;
            n_max -= n_written;
            self.has_more = match status {
                TINFLStatus::HasMoreOutput => true,
                TINFLStatus::BlockBoundary | TINFLStatus::NeedsMoreInput => false,
                // RFC 4978 has no end of the stream but that of the connection.
                _ => return Err(Damaged),
            };
        }
        Ok(())
    }

    fn rest(&mut self) {
        let State::Working(working) = &self.state else { return };
        if working.is_between_blocks
            && let Some(boundary) = working.decompressor.block_boundary_state()
        {
            self.state = State::Resting(boundary, working.before());
        }
    }
}

/// Puts together.
struct Deflater {
    compressor: Option<Box<CompressorOxide>>,
    /// Whether the client cannot read all yet.
    has_held_back: bool,
    ready: Vec<u8>,
}

impl Deflater {
    fn new() -> Self {
        Self { compressor: None, has_held_back: false, ready: Vec::new() }
    }

    fn add(&mut self, bytes: &[u8]) {
        for step in bytes.chunks(STEP_BYTES) {
            self.run(step, TDEFLFlush::None);
            self.has_held_back = true;
        }
    }

    fn flush(&mut self) {
        if std::mem::take(&mut self.has_held_back) {
            self.run(&[], TDEFLFlush::Sync);
        }
    }

    fn run(&mut self, mut bytes: &[u8], flush: TDEFLFlush) {
        let compressor = self.compressor.get_or_insert_with(|| {
            let level = CompressionLevel::BestSpeed;
            Box::new(CompressorOxide::with_format_and_level(DataFormat::Raw, level))
        });
        loop {
            let before = self.ready.len();
            self.ready.resize(before + bytes.len() + STEP_OVERHEAD_BYTES, 0);
            let room = &mut self.ready[before..];
            let n_room = room.len();
            let (_, n_read, n_written) = compress(compressor, bytes, room, flush);
            self.ready.truncate(before + n_written);
            bytes = &bytes[n_read..];
            if bytes.is_empty() && n_written < n_room {
                return;
            }
        }
    }

    fn rest(&mut self) {
        // A flush ends on a whole octet, and another compressor refers to nothing before it.
        if !self.has_held_back {
            self.compressor = None;
        }
        if self.ready.is_empty() {
            self.ready = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A client whose compressor lives as long as the connection.
    struct Peer(CompressorOxide);

    impl Peer {
        fn new() -> Self {
            let level = CompressionLevel::DefaultLevel;
            Self(CompressorOxide::with_format_and_level(DataFormat::Raw, level))
        }

        fn say(&mut self, bytes: &[u8]) -> Vec<u8> {
            let mut out = vec![0; 2 * bytes.len() + 1000];
            let (_, n_read, n) = compress(&mut self.0, bytes, &mut out, TDEFLFlush::Sync);
            assert_eq!(n_read, bytes.len());
            out.truncate(n);
            out
        }
    }

    fn inflated(layer: &mut Layer, n_max: usize) -> Vec<u8> {
        let mut all = Vec::new();
        layer.inflate(n_max, |piece| all.extend_from_slice(piece)).expect("not damaged");
        all
    }

    #[test]
    fn a_resting_layer_is_small_and_goes_on() {
        let (mut layer, mut peer) = (Layer::new(BytesMut::new()), Peer::new());
        let line = b"a UID FETCH 1:* (UID FLAGS RFC822.SIZE BODY.PEEK[HEADER])\r\n";
        let mut lens = Vec::new();
        for _ in 0..5 {
            let sent = peer.say(line);
            lens.push(sent.len());
            layer.receive(&sent);
            assert_eq!(inflated(&mut layer, 1000), line);
            layer.deflate(b"* OK\r\n");
            assert!(layer.flush().is_some());
            layer.rest();
            assert!(layer.deflater.compressor.is_none());
            match &layer.inflater.state {
                State::Resting(_, before) => assert_eq!(before.len() % line.len(), 0),
                State::Working(_) => panic!("it does not rest"),
            }
        }
        assert!(lens[4] < lens[0] / 2, "the client refers to what it sent before: {lens:?}");
    }

    #[test]
    fn a_bomb_is_taken_apart_no_further_than_there_is_room() {
        let (mut layer, mut peer) = (Layer::new(BytesMut::new()), Peer::new());
        let bomb = peer.say(&vec![b'x'; 50_000_000]);
        assert!(bomb.len() < 100_000);
        layer.receive(&bomb);
        assert_eq!(inflated(&mut layer, 10_000).len(), 10_000);
        assert!(layer.received.len() > bomb.len() / 2, "most of it is not looked at");
        assert_eq!(layer.n_inflated(), 10_000);
    }

    #[test]
    fn noise_and_an_end_of_the_stream_are_damage() {
        for bytes in [&[0xff; 8][..], &miniz_oxide::deflate::compress_to_vec(b"NOOP\r\n", 6)] {
            let mut layer = Layer::new(BytesMut::from(bytes));
            assert_eq!(layer.inflate(1000, |_| {}), Err(Damaged));
        }
    }

    fn piece() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(0u8..4, 0..40_000)
    }

    proptest! {
        #[test]
        fn octets_come_back_in_any_cuts_with_any_rests(
            pieces in prop::collection::vec((piece(), any::<bool>()), 1..8),
            cut in 1usize..5000,
            n_max in 1usize..70_000,
        ) {
            let (mut layer, mut peer) = (Layer::new(BytesMut::new()), Peer::new());
            let mut other = Inflater::new();
            for (piece, rests) in pieces {
                let mut back = Vec::new();
                for cut in peer.say(&piece).chunks(cut) {
                    layer.receive(cut);
                    loop {
                        let some = inflated(&mut layer, n_max);
                        back.extend_from_slice(&some);
                        if some.len() < n_max {
                            break;
                        }
                    }
                }
                prop_assert_eq!(&back, &piece);
                layer.deflate(&piece);
                let mut sent = BytesMut::from(&layer.flush().unwrap_or_default()[..]);
                if rests {
                    layer.rest();
                }
                let mut back = Vec::new();
                let taken = other.inflate(&mut sent, usize::MAX, |some| back.extend_from_slice(some));
                prop_assert_eq!(taken, Ok(()));
                prop_assert_eq!(back, piece);
            }
        }

        #[test]
        fn no_octets_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut layer = Layer::new(BytesMut::from(&bytes[..]));
            let _ = layer.inflate(100_000, |_| {});
            layer.rest();
        }
    }
}
