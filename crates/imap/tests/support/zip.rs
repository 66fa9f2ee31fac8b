//! The client's end of COMPRESS=DEFLATE: one compressor and one decompressor for the connection.

use miniz_oxide::deflate::CompressionLevel;
use miniz_oxide::deflate::core::{CompressorOxide, TDEFLFlush, compress};
use miniz_oxide::inflate::stream::{InflateState, inflate};
use miniz_oxide::{DataFormat, MZFlush};

pub struct Zip {
    compressor: Box<CompressorOxide>,
    inflater: Box<InflateState>,
}

impl Default for Zip {
    fn default() -> Self {
        let level = CompressionLevel::DefaultLevel;
        let compressor = CompressorOxide::with_format_and_level(DataFormat::Raw, level);
        let inflater = InflateState::new_boxed(DataFormat::Raw);
        Self { compressor: Box::new(compressor), inflater }
    }
}

impl Zip {
    /// What is sent for these octets.
    pub fn pack(&mut self, octets: &[u8]) -> Vec<u8> {
        let mut packed = vec![0; 2 * octets.len() + 1000];
        let (_, n_read, n_written) =
            compress(&mut self.compressor, octets, &mut packed, TDEFLFlush::Sync);
        assert_eq!(n_read, octets.len());
        packed.truncate(n_written);
        packed
    }

    /// What was meant by these octets; all of it is there without waiting for more.
    pub fn unpack(&mut self, mut packed: &[u8]) -> Vec<u8> {
        let (mut octets, mut room) = (Vec::new(), vec![0; 1 << 16]);
        loop {
            let done = inflate(&mut self.inflater, packed, &mut room, MZFlush::None);
            packed = &packed[done.bytes_consumed..];
            octets.extend_from_slice(&room[..done.bytes_written]);
            if packed.is_empty() && done.bytes_written < room.len() {
                return octets;
            }
            assert!(done.status.is_ok(), "{:?}", done.status);
        }
    }
}
