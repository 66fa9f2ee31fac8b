//! The seed's numbers, for everything a run decides by chance.

use std::sync::{Arc, Mutex, PoisonError};

use crate::entropy;

/// A stream of numbers; clones draw from the same stream.
#[derive(Clone)]
pub struct Dice(Arc<Mutex<u64>>);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(seed)))
    }

    /// A stream of its own, so that what one part draws does not shift the others.
    pub fn fork(&self) -> Self {
        Self::new(self.next())
    }

    pub fn next(&self) -> u64 {
        entropy::next(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// From `low` to `high`, both included.
    pub fn range(&self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    /// True in so many of 1,000 cases.
    pub fn chance(&self, per_mille: u64) -> bool {
        self.next() % 1000 < per_mille
    }

    /// One of these.
    pub fn pick<'a, T>(&self, of: &'a [T]) -> &'a T {
        &of[(self.next() % of.len() as u64) as usize]
    }
}
