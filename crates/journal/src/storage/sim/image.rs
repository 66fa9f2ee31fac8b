//! One file: what is visible, what is durable, and which sectors differ.

use std::collections::BTreeSet;

use super::SECTOR;

/// Contents up to the last byte ever written; the rest up to `len` reads as zeros.
#[derive(Clone, Debug, Default)]
struct Image {
    bytes: Vec<u8>,
    len: u64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct SimFile {
    visible: Image,
    durable: Image,
    /// Sectors a sync would still write.
    dirty: BTreeSet<u64>,
    allocated: u64,
}

impl Image {
    fn write(&mut self, offset: u64, bytes: &[u8]) {
        let (start, end) = (offset as usize, offset as usize + bytes.len());
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[start..end].copy_from_slice(bytes);
        self.len = self.len.max(end as u64);
    }

    fn sector(&self, sector: u64) -> &[u8] {
        let start = ((sector * SECTOR) as usize).min(self.bytes.len());
        let end = (start + SECTOR as usize).min(self.bytes.len());
        &self.bytes[start..end]
    }

    fn copy_sector(&mut self, from: &Self, sector: u64) {
        let len = self.len;
        self.write(sector * SECTOR, from.sector(sector));
        self.len = len;
    }

    fn set_len(&mut self, len: u64) {
        self.bytes.truncate(len as usize);
        self.len = len;
    }
}

impl SimFile {
    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.visible.write(offset, bytes);
        let last = (offset + bytes.len() as u64 - 1) / SECTOR;
        self.dirty.extend(offset / SECTOR..=last);
    }

    pub fn read(&self, offset: u64, buf: &mut [u8]) -> usize {
        let n = (self.visible.len.saturating_sub(offset) as usize).min(buf.len());
        let start = (offset as usize).min(self.visible.bytes.len());
        let n_written = (self.visible.bytes.len() - start).min(n);
        buf[..n_written].copy_from_slice(&self.visible.bytes[start..start + n_written]);
        buf[n_written..n].fill(0);
        n
    }

    pub fn sync(&mut self) {
        for sector in std::mem::take(&mut self.dirty) {
            self.durable.copy_sector(&self.visible, sector);
        }
        self.durable.set_len(self.visible.len);
    }

    /// The kernel forgets that the pages were dirty; a later sync succeeds without them.
    pub fn fail_sync(&mut self) {
        self.dirty.clear();
    }

    pub fn size(&self) -> u64 {
        self.visible.len
    }

    pub fn written_len(&self) -> u64 {
        self.visible.bytes.len() as u64
    }

    pub fn allocated_bytes(&self) -> u64 {
        self.allocated
    }

    pub fn allocate(&mut self, upto: u64) {
        self.allocated = self.allocated.max(upto);
    }

    pub fn set_len(&mut self, len: u64) {
        self.visible.set_len(len);
        self.dirty.retain(|sector| sector * SECTOR < len);
        self.allocated = self.allocated.min(len);
    }

    pub fn n_unsynced(&self) -> usize {
        self.dirty.len() + usize::from(self.visible.len != self.durable.len)
    }

    pub fn cut(&mut self, keep: &mut dyn FnMut() -> bool) {
        for sector in std::mem::take(&mut self.dirty) {
            if keep() {
                self.durable.copy_sector(&self.visible, sector);
            }
        }
        if self.visible.len != self.durable.len && keep() {
            self.durable.set_len(self.visible.len);
        }
        let len = self.durable.len;
        self.durable.set_len(len);
        self.visible = self.durable.clone();
        self.allocated = self.allocated.min(len);
    }

    pub fn flip(&mut self, bit: u64) -> bool {
        let flip = |image: &mut Image| {
            let byte = image.bytes.get_mut((bit / 8) as usize);
            byte.map(|byte| *byte ^= 1 << (bit % 8)).is_some()
        };
        flip(&mut self.durable);
        flip(&mut self.visible)
    }
}
