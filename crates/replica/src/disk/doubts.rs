//! Rows and indexes of this disk that are not what they should be.

use super::Disk;

impl Disk {
    /// Counts that a replica's rows differ from those of its peers.
    pub(crate) fn count_doubt(&self, replica: u64) -> u32 {
        let mut state = self.lock();
        state.n_rows_changed += 1;
        let count = state.doubted.entry(replica).or_default();
        *count += 1;
        *count
    }

    /// A replica's index could not be read, or written to.
    pub(crate) fn index_failed(&self, replica: u64) {
        self.lock().failed_indexes.insert(replica);
    }

    /// Whether that was so, and none was read whole or built since.
    pub(crate) fn has_index_failed(&self, replica: u64) -> bool {
        self.lock().failed_indexes.contains(&replica)
    }

    /// All of a replica's index was read, or it was built anew.
    pub(crate) fn index_is_whole(&self, replica: u64) {
        self.lock().failed_indexes.remove(&replica);
    }
}
