//! Rows for whoever is not the one who commits.

use mailbox::Source;

use super::{Store, give_up};

/// The rows as they are, of which nothing is noted: what others read may be old by then.
pub(super) struct Aside<'s>(pub &'s Store);

impl Source for Aside<'_> {
    fn row(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.0.now(key).unwrap_or_else(|error| give_up(error.into()))
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) {
        self.0.scan(from, to, visit);
    }
}
