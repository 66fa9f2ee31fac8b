//! Rows that apply looked at lately, so that it does not ask the index for the same few rows, or for
//! rows that are not there, with every command.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use mailbox::RowChanges;

/// Limit: keys and values kept. What one account's commands look at is some 20 rows of 100 bytes.
const BYTES_MAX: usize = 512 << 10;
/// Larger rows are seldom looked at twice.
const ROW_BYTES_MAX: usize = 1 << 10;
/// What a row costs besides its key and value.
const OVERHEAD_BYTES: usize = 64;

/// Rows as they are now, absent ones too.
#[derive(Default)]
pub(crate) struct Recent {
    rows: HashMap<Vec<u8>, Option<Vec<u8>>, RandomState>,
    bytes: usize,
}

impl Recent {
    /// A row, if it is known.
    pub fn get(&self, key: &[u8]) -> Option<&Option<Vec<u8>>> {
        self.rows.get(key)
    }

    /// The index has this.
    pub fn note(&mut self, key: &[u8], value: &Option<Vec<u8>>) {
        let size = key.len() + value.as_ref().map_or(0, Vec::len);
        if size > ROW_BYTES_MAX {
            return;
        }
        if self.bytes > BYTES_MAX {
            // Why all: the few that matter are back with the next commands.
            *self = Self::default();
        }
        self.bytes += size + OVERHEAD_BYTES;
        self.rows.insert(key.to_vec(), value.clone());
    }

    /// These rows are something else from now on.
    pub fn change(&mut self, changes: &RowChanges) {
        for (key, value) in changes {
            let Some(known) = self.rows.get_mut(key) else { continue };
            let before = known.as_ref().map_or(0, Vec::len);
            let after = value.as_ref().map_or(0, Vec::len);
            if key.len() + after <= ROW_BYTES_MAX {
                known.clone_from(value);
                self.bytes = self.bytes + after - before;
            } else {
                self.rows.remove(key);
                self.bytes -= key.len() + before + OVERHEAD_BYTES;
            }
        }
    }
}
