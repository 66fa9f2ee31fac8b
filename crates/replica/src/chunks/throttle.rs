//! A rate that several keep together: each says what it took, and waits until that was its share.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Bytes a second for all who share it.
pub(crate) struct Throttle {
    /// `None`: as fast as it goes.
    bytes_per_s: Option<u64>,
    /// When what was taken so far is paid for.
    paid_at: Mutex<Option<Instant>>,
}

impl Throttle {
    pub fn new(bytes_per_s: Option<u64>) -> Self {
        Self { bytes_per_s, paid_at: Mutex::default() }
    }

    /// Counts these bytes; how long to wait before the next ones.
    pub fn take(&self, n_bytes: u64) -> Duration {
        let Some(rate) = self.bytes_per_s else { return Duration::ZERO };
        let mut paid_at = self.paid_at.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        // Why never earlier than now: what nobody took is not owed.
        let begin = paid_at.map_or(now, |at| at.max(now));
        let paid = begin + Duration::from_micros(n_bytes * 1_000_000 / rate.max(1));
        *paid_at = Some(paid);
        paid - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[tokio::test(start_paused = true)]
    async fn two_that_share_a_rate_get_it_together() {
        let throttle = Throttle::new(Some(MIB));
        assert_eq!(throttle.take(MIB), Duration::from_secs(1));
        assert_eq!(throttle.take(MIB), Duration::from_secs(2), "behind the first one");
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(throttle.take(MIB / 2), Duration::from_millis(500), "idle time is not saved up");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_nobody_waits() {
        assert_eq!(Throttle::new(None).take(1 << 40), Duration::ZERO);
    }
}
