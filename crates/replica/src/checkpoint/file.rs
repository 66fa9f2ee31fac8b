//! One checkpoint file: a base with all rows, or a delta with those that changed since. Sorted,
//! compressed, covered by one BLAKE3, and never changed once it has its name.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{BufMut, Bytes};

use crate::codec::Reader;
use crate::store::Applied;

const MAGIC: &[u8; 8] = b"RKcheck1";
const HASH_BYTES: u64 = 32;
const COMPRESSION_LEVEL: i32 = 1;
/// Limit: far above any row, so that a damaged length does not allocate.
const ROW_BYTES_MAX: u32 = 16 << 20;
const HEAD_BYTES_MAX: usize = 1 << 20;
const END: u32 = u32::MAX;

/// A key and its value, `None` for a row that is gone.
pub(crate) type Row = (Vec<u8>, Option<Vec<u8>>);

/// What a file says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// First log index this file covers; 0 for a base.
    pub from: u64,
    /// How far it goes.
    pub applied: Applied,
}

impl Head {
    fn encode(&self) -> Vec<u8> {
        let applied = self.applied.encode();
        let mut out = Vec::with_capacity(applied.len() + 32);
        out.put_slice(MAGIC);
        out.put_u64(self.from);
        out.put_u32(applied.len() as u32);
        out.put_slice(&applied);
        out.put_u32(crc32c::crc32c(&out));
        out
    }

    /// The name a file with this head has.
    pub fn name(&self) -> String {
        format!("{:020}-{:020}.ckpt", self.from, self.applied.next_index())
    }
}

/// One file, kept open: it stays readable when it is replaced.
#[derive(Debug)]
pub(crate) struct Part {
    pub path: PathBuf,
    pub head: Head,
    pub len: u64,
    file: File,
    rows_at: u64,
}

/// Octets of a part that are synced at a time. The system writes no more of them at once, so that a sync of
/// the journal on the same disk, which somebody waits for, is never far behind them in the disk's queue.
const PIECE_BYTES: usize = 256 << 10;

/// A file that is synced piece by piece.
struct SyncingFile(File);

impl Write for SyncingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.0.write(&bytes[..bytes.len().min(PIECE_BYTES)])?;
        // Durability: none that counts (`write_to` syncs the whole); see `PIECE_BYTES`.
        self.0.sync_data()?;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes of a part, hashed on their way out.
struct HashingFile {
    file: BufWriter<SyncingFile>,
    hasher: blake3::Hasher,
}

impl Write for HashingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Reads a part from a position of its own.
struct PartReader {
    part: Arc<Part>,
    at: u64,
    end: u64,
}

impl Read for PartReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let len = buf.len().min(left);
        let n = self.part.file.read_at(&mut buf[..len], self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

impl Part {
    /// Writes rows, which come in ascending order, and gives the file once it was read back.
    pub fn write(
        dir: &Path,
        head: &Head,
        rows: &mut dyn Iterator<Item = io::Result<Row>>,
    ) -> io::Result<Arc<Self>> {
        let path = dir.join(head.name());
        let beside = dir.join(format!("{}.new", head.name()));
        let written = Self::write_to(&beside, head, rows);
        // Durability: contents before the name, and read back before it: whatever has a name may be what the
        // next start goes on with, and that removes the files which it takes the place of.
        let verified = written.and_then(|()| Self::open(&beside)?.verify());
        if let Err(error) = verified.and_then(|()| std::fs::rename(&beside, &path)) {
            // Why the result is dropped: what stays only takes space, and goes with the next base.
            drop(std::fs::remove_file(&beside));
            return Err(error);
        }
        // Durability: the name before anybody counts on the file.
        sync_dir(dir)?;
        Self::open(&path)
    }

    fn write_to(
        path: &Path,
        head: &Head,
        rows: &mut dyn Iterator<Item = io::Result<Row>>,
    ) -> io::Result<()> {
        let file = BufWriter::with_capacity(PIECE_BYTES, SyncingFile(File::create(path)?));
        let mut out = HashingFile { file, hasher: blake3::Hasher::new() };
        out.write_all(&head.encode())?;
        let mut encoder = zstd::stream::write::Encoder::new(out, COMPRESSION_LEVEL)?;
        for row in rows {
            let (key, value) = row?;
            encoder.write_all(&(key.len() as u32).to_be_bytes())?;
            let value_len = value.as_ref().map_or(END, |value| value.len() as u32);
            encoder.write_all(&value_len.to_be_bytes())?;
            encoder.write_all(&key)?;
            encoder.write_all(value.as_deref().unwrap_or_default())?;
        }
        encoder.write_all(&END.to_be_bytes())?;
        let mut out = encoder.finish()?;
        let hash = out.hasher.finalize();
        out.file.write_all(hash.as_bytes())?;
        let file = out.file.into_inner().map_err(|error| error.into_error())?;
        // Durability: the whole part, before it gets its name.
        file.0.sync_all()
    }

    /// Opens a file and reads its head.
    pub fn open(path: &Path) -> io::Result<Arc<Self>> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        let mut start = vec![0; HEAD_BYTES_MAX.min(len as usize)];
        file.read_exact_at(&mut start, 0)?;
        let mut reader = Reader(start.clone().into());
        let bad = || io::Error::new(io::ErrorKind::InvalidData, "damaged checkpoint head");
        if reader.array::<8>().map_err(|_| bad())? != *MAGIC {
            return Err(bad());
        }
        let from = reader.u64().map_err(|_| bad())?;
        let applied_len = reader.u32().map_err(|_| bad())? as usize;
        let applied: Bytes = reader.bytes(applied_len).map_err(|_| bad())?;
        let crc_at = 20 + applied_len;
        if reader.u32().map_err(|_| bad())? != crc32c::crc32c(&start[..crc_at]) {
            return Err(bad());
        }
        let applied = Applied::decode(applied).ok_or_else(bad)?;
        let rows_at = crc_at as u64 + 4;
        if len < rows_at + HASH_BYTES {
            return Err(bad());
        }
        let head = Head { from, applied };
        Ok(Arc::new(Self { path: path.to_path_buf(), head, len, file, rows_at }))
    }

    /// Reads all of it and compares the hash.
    pub fn verify(self: &Arc<Self>) -> io::Result<()> {
        let end = self.len - HASH_BYTES;
        let mut reader = PartReader { part: self.clone(), at: 0, end };
        let mut hasher = blake3::Hasher::new();
        let mut buf = vec![0; 1 << 20];
        loop {
            let n = reader.read(&mut buf)?;
            if n == 0 {
                break;
            }
            hasher.update(&buf[..n]);
        }
        let mut stored = [0; HASH_BYTES as usize];
        self.file.read_exact_at(&mut stored, end)?;
        if reader.at != end || *hasher.finalize().as_bytes() != stored {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "damaged checkpoint file"));
        }
        Ok(())
    }

    /// What its hash covers, and the hash that is stored behind.
    pub fn hashed(&self) -> io::Result<(u64, blake3::Hash)> {
        let end = self.len - HASH_BYTES;
        let mut stored = [0; HASH_BYTES as usize];
        self.file.read_exact_at(&mut stored, end)?;
        Ok((end, stored.into()))
    }

    /// Its rows, ascending.
    pub fn rows(self: &Arc<Self>) -> io::Result<PartRows> {
        let end = self.len - HASH_BYTES;
        let reader = PartReader { part: self.clone(), at: self.rows_at, end };
        let reader = BufReader::with_capacity(256 << 10, reader);
        let decoder = zstd::stream::read::Decoder::with_buffer(reader)?;
        Ok(PartRows { decoder: BufReader::new(decoder), ended: false })
    }

    /// Some of its bytes, for sending it elsewhere.
    pub fn bytes_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let left = self.len.saturating_sub(offset);
        let mut buf = vec![0; len.min(usize::try_from(left).unwrap_or(len))];
        self.file.read_exact_at(&mut buf, offset)?;
        Ok(buf.into())
    }
}

/// The rows of one file.
pub(crate) struct PartRows {
    decoder: BufReader<zstd::stream::read::Decoder<'static, BufReader<PartReader>>>,
    ended: bool,
}

impl PartRows {
    fn next_row(&mut self) -> io::Result<Option<Row>> {
        let key_len = self.len()?;
        if key_len == END {
            return Ok(None);
        }
        let value_len = self.len()?;
        if key_len > ROW_BYTES_MAX || (value_len > ROW_BYTES_MAX && value_len != END) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "damaged checkpoint row"));
        }
        let mut key = vec![0; key_len as usize];
        self.decoder.read_exact(&mut key)?;
        if value_len == END {
            return Ok(Some((key, None)));
        }
        let mut value = vec![0; value_len as usize];
        self.decoder.read_exact(&mut value)?;
        Ok(Some((key, Some(value))))
    }

    fn len(&mut self) -> io::Result<u32> {
        let mut len = [0; 4];
        self.decoder.read_exact(&mut len)?;
        Ok(u32::from_be_bytes(len))
    }
}

impl Iterator for PartRows {
    type Item = io::Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let row = self.next_row().transpose();
        self.ended = !matches!(row, Some(Ok(_)));
        row
    }
}

/// Whether an error says that a file is not as it was written, and not that this process could not look.
pub(crate) fn is_damage(error: &io::Error) -> bool {
    let kinds = [io::ErrorKind::InvalidData, io::ErrorKind::UnexpectedEof];
    kinds.contains(&error.kind()) || journal::is_unreadable(error)
}

/// Makes a directory if it is not there, and those above it, with durable names.
pub(crate) fn make_dir(dir: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = dir.ancestors().take_while(|dir| !dir.exists()).collect();
    std::fs::create_dir_all(dir)?;
    // Durability: the names of directories, before anybody counts on what is in them.
    let above = missing.into_iter().filter_map(Path::parent);
    above.filter(|dir| !dir.as_os_str().is_empty()).try_for_each(sync_dir)
}

/// Makes names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    // Durability: names that were made, changed or taken away; their files' contents are synced before.
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_made_with_those_above_it_and_only_once() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("checkpoints/1");
        make_dir(&deep).unwrap();
        std::fs::write(deep.join("file"), "rows").unwrap();
        make_dir(&deep).unwrap();
        assert_eq!(std::fs::read(deep.join("file")).unwrap(), b"rows");
        make_dir(&deep.join("file")).unwrap_err();
    }

    #[test]
    fn a_file_that_cannot_be_written_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let head = Head { from: 0, applied: Applied::default() };
        let rows = [Ok((vec![1], Some(vec![2]))), Err(io::ErrorKind::StorageFull.into())];
        Part::write(dir.path(), &head, &mut rows.into_iter()).unwrap_err();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let rows = [Ok((vec![1], Some(vec![2])))];
        Part::write(dir.path(), &head, &mut rows.into_iter()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
