//! When requests expire. That is said in log time, which may be ahead of the clock here: a leader's clock
//! leapt once, or the one here is behind. The shard tells it to whoever comes too late by it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mailbox::{LogTime, ShardId};
use tokio::time::Instant;
use tracing::warn;

/// What was told counts for so long. Log time that leapt stands still until the clocks come up with it;
/// whoever forgets it too early learns it again with one refusal.
const TOLD_FOR: Duration = Duration::from_secs(60);
/// Ahead by more than this, somebody's clock is wrong: a failover and a hop of NTP make less.
const AHEAD_MAX: Duration = Duration::from_secs(10);
/// A wrong clock is told of so often.
const WARN_EVERY: Duration = Duration::from_secs(3600);

/// What is known of one shard's log time.
#[derive(Default)]
pub(super) struct ShardTime {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    told: Option<(LogTime, Instant)>,
    warned_at: Option<Instant>,
}

impl ShardTime {
    /// When a request expires: before the deadline, so that what is left of it suffices to find out
    /// whether it was done.
    pub(super) fn expiry(&self, deadline: Instant) -> LogTime {
        self.state().expiry(deadline, Instant::now(), clock())
    }

    /// The shard says what log time is.
    pub(super) fn learn(&self, shard: ShardId, told: LogTime) {
        let now = Instant::now();
        let mut state = self.state();
        state.told = Some((told, now));
        let ahead = Duration::from_millis(told.0.saturating_sub(clock()));
        let is_known = state.warned_at.is_some_and(|at| now - at < WARN_EVERY);
        if ahead > AHEAD_MAX && !is_known {
            state.warned_at = Some(now);
            warn!(%shard, ahead_s = ahead.as_secs(), "log time is ahead of the clock here");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn expiry(&self, deadline: Instant, now: Instant, clock: u64) -> LogTime {
        let told = match self.told {
            Some((told, at)) if now - at < TOLD_FOR => told.0.saturating_add(millis(now - at)),
            _ => 0,
        };
        let left = deadline.saturating_duration_since(now) * 3 / 4;
        LogTime(clock.max(told).saturating_add(millis(left)))
    }
}

/// Milliseconds since 1970.
fn clock() -> u64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_counts_for_a_while() {
        let (begun, mut state) = (Instant::now(), State::default());
        let expiry = |state: &State, after_s: u64| {
            let now = begun + Duration::from_secs(after_s);
            let deadline = now + Duration::from_secs(8);
            state.expiry(deadline, now, 1_000_000 + after_s * 1_000).0
        };
        assert_eq!(expiry(&state, 0), 1_006_000);
        state.told = Some((LogTime(5_000_000), begun));
        assert_eq!(expiry(&state, 0), 5_006_000);
        assert_eq!(expiry(&state, 30), 5_036_000, "it may go on where it is ahead");
        assert_eq!(expiry(&state, TOLD_FOR.as_secs()), 1_066_000);
        state.told = Some((LogTime(0), begun));
        assert_eq!(expiry(&state, 0), 1_006_000, "the clock here is ahead");
        state.told = Some((LogTime(u64::MAX), begun));
        assert_eq!(expiry(&state, 1), u64::MAX);
    }
}
