//! The index: a sorted map of bytes on disk that can be lost at any time, because journal and
//! checkpoints give it back. Nothing here is ever synced for safety.
//!
//! The trait is small so that another engine can take sled's place; [`contract`] is what each has to
//! pass.

mod filling;
mod leaving;
mod redo;
mod sled;

use std::path::Path;

pub(crate) use self::leaving::Leaving;
pub(crate) use self::sled::SledIndex;

/// The engine could not read or write. The index is then given up and built anew.
#[derive(Clone, Debug, thiserror::Error)]
#[error("index: {0}")]
pub struct IndexError(pub String);

/// A batch of writes: key, and value or `None` for a removal.
pub(crate) type Batch = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// A sorted map of bytes whose batches are there whole or not at all after the process was killed; the last
/// of them may be missing. After a power cut one may be there in part, which the digest of all rows tells.
pub(crate) trait Index: Send + Sync {
    /// The value of exactly this key.
    fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError>;

    /// Visits `from <= key < to` in ascending order until `visit` gives false.
    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), IndexError>;

    /// Writes all of it, or nothing. Whoever reads meanwhile may see a part of it.
    fn write(&self, batch: Batch) -> Result<(), IndexError>;

    /// Writes what nobody relies on before all of it is there, and the next write or flush has come;
    /// fastest in ascending order.
    fn load(&self, rows: Batch) -> Result<(), IndexError>;

    /// Hands everything to the operating system.
    fn flush(&self) -> Result<(), IndexError>;
}

/// Opens the engine in use, `cache_bytes` being its cache.
pub(crate) fn open(dir: &Path, cache_bytes: u64) -> Result<Box<dyn Index>, IndexError> {
    Ok(Box::new(SledIndex::open(dir, cache_bytes)?))
}

/// What every engine has to pass; `open` opens the same directory again and again.
#[cfg(test)]
pub(crate) fn contract(open: &dyn Fn() -> Box<dyn Index>) {
    let index = open();
    let put = |key: &str, value: &str| (key.as_bytes().to_vec(), Some(value.as_bytes().to_vec()));
    let all = |index: &dyn Index, from: &str, to: &str, limit: usize| {
        let mut found = Vec::new();
        index
            .scan(from.as_bytes(), to.as_bytes(), &mut |key, value| {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                found.push(format!("{}={}", text(key), text(value)));
                found.len() < limit
            })
            .unwrap();
        found.join(" ")
    };
    assert_eq!(index.value(b"a").unwrap(), None);
    index.write(vec![put("b", "2"), put("a", "1"), put("ab", "3"), put("c", "")]).unwrap();
    assert_eq!(index.value(b"ab").unwrap(), Some(b"3".to_vec()));
    assert_eq!(index.value(b"c").unwrap(), Some(Vec::new()));
    assert_eq!(all(&*index, "a", "z", 9), "a=1 ab=3 b=2 c=");
    assert_eq!(all(&*index, "a", "b", 9), "a=1 ab=3");
    assert_eq!(all(&*index, "aa", "z", 1), "ab=3");
    assert_eq!(all(&*index, "b", "b", 9), "");
    assert_eq!(all(&*index, "c", "a", 9), "");
    index.write(vec![(b"b".to_vec(), None), put("a", "4"), (b"zz".to_vec(), None)]).unwrap();
    assert_eq!(all(&*index, "a", "z", 9), "a=4 ab=3 c=");
    let loaded = |n: u32| (format!("l{n:04}").into_bytes(), Some(n.to_be_bytes().to_vec()));
    let count = |index: &dyn Index| {
        let mut n_found = 0;
        let count = &mut |key: &[u8], value: &[u8]| {
            assert_eq!(loaded(n_found), (key.to_vec(), Some(value.to_vec())));
            n_found += 1;
            true
        };
        index.scan(b"l", b"m", count).unwrap();
        n_found
    };
    index.load((0..700).map(loaded).collect()).unwrap();
    index.load((700..1000).map(loaded).collect()).unwrap();
    index.flush().unwrap();
    assert_eq!(count(&*index), 1000);
    index.load((1000..1001).map(loaded).collect()).unwrap();
    index.write(vec![put("b", "7")]).unwrap();
    index.flush().unwrap();
    drop(index);
    let index = open();
    assert_eq!(all(&*index, "a", "k", 9), "a=4 ab=3 b=7 c=");
    assert_eq!(count(&*index), 1001);
}
