//! How long things may take. The numbers stand together; see [`Timing`].

use std::time::Duration;

/// Times of one group.
///
/// openraft lets a follower wait for the leader's lease, which is `election_max`, and then for a
/// time drawn anew between `election_min` and `election_max`, before it asks for votes. So after
/// the last sign of a leader the first election begins between `election_max + election_min` and
/// twice `election_max` later: with the defaults after 0.75 to 0.9 s, and a leader that sends
/// every 0.15 s has to be silent five times before anybody moves. Pre-vote, vote and the first
/// entry are three round trips and two syncs more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timing {
    /// A leader without work sends this often.
    pub heartbeat: Duration,
    /// The shortest wait beyond the lease.
    pub election_min: Duration,
    /// The lease, and the longest wait beyond it.
    pub election_max: Duration,
    /// A proposal whose fate is not known by then is given up.
    pub propose: Duration,
    /// A request to a peer that carries entries or bodies is given up by then.
    pub peer: Duration,
    /// A disk that did not answer for so long, to a sync or to what a replica reads, leads no more.
    pub disk_hung: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(150),
            election_min: Duration::from_millis(300),
            election_max: Duration::from_millis(450),
            propose: Duration::from_secs(5),
            peer: Duration::from_secs(2),
            disk_hung: Duration::from_secs(2),
        }
    }
}

/// A snapshot may take this long from first byte to installed.
const SNAPSHOT: Duration = Duration::from_secs(3600);

impl Timing {
    /// Whether a leader whom no majority answered for so long says nothing.
    ///
    /// One that is heard and hears nobody would hold its followers back for ever. So after four
    /// leases it falls silent until each of them can have stood for election, and tries again.
    /// Not sooner, or a busy machine loses a leader that is only slow.
    pub(crate) fn is_silent(&self, alone: Duration) -> bool {
        let period = self.election_max * 2 + self.election_min;
        let beyond = alone.checked_sub(self.election_max * 4);
        beyond.is_some_and(|beyond| {
            (beyond.as_millis() / period.as_millis().max(1)).is_multiple_of(2)
        })
    }

    /// Whoever acknowledged what was sent so lately is sent no heartbeat, which would say nothing new.
    ///
    /// openraft allows less than `election_min` without a heartbeat and a tick, which is 13/64 of one. This
    /// is two thirds of that, and nothing where the times are so tight that each heartbeat is needed.
    fn acknowledged(&self) -> Duration {
        self.election_min.saturating_sub(self.heartbeat * 77 / 64) * 2 / 3
    }

    /// What openraft is told.
    pub(crate) fn config(&self, group: String) -> openraft::Config {
        let ms = |duration: Duration| duration.as_millis() as u64;
        openraft::Config {
            cluster_name: group,
            heartbeat_interval: ms(self.heartbeat),
            heartbeat_min_interval: Some(ms(self.acknowledged())),
            election_timeout_min: ms(self.election_min),
            election_timeout_max: ms(self.election_max),
            install_snapshot_timeout: ms(SNAPSHOT),
            max_payload_entries: 1024,
            max_append_entries: Some(1024),
            replication_lag_threshold: 1000,
            // Why never: a snapshot purge that races an apply can panic the core, so checkpoints
            // and purges are triggered from outside, well behind.
            snapshot_policy: openraft::SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: u64::MAX,
            api_channel_size: Some(8192),
            broadcast_submitted_on_append: Some(true),
            enable_pre_vote: Some(true),
            // Why not yet: see `supervise`.
            enable_elect: false,
            enable_leader_restore: Some(false),
            backoff: "30ms 60ms 120ms ...500ms".into(),
            ..openraft::Config::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_nobody_answers_is_silent_by_turns() {
        let timing = Timing::default();
        let is_silent = |ms| timing.is_silent(Duration::from_millis(ms));
        assert!(!is_silent(0) && !is_silent(1_799));
        assert!(is_silent(1_800) && is_silent(2_999));
        assert!(!is_silent(3_000) && is_silent(4_200));
    }

    #[test]
    fn heartbeats_are_left_out_as_far_as_openraft_allows() {
        let of = |heartbeat, election_min| Timing {
            heartbeat: Duration::from_millis(heartbeat),
            election_min: Duration::from_millis(election_min),
            election_max: Duration::from_millis(election_min + election_min / 2),
            ..Timing::default()
        };
        let least = |timing: &Timing| timing.config("a".into()).heartbeat_min_interval;
        assert_eq!(least(&Timing::default()), Some(79));
        assert_eq!(least(&of(150, 180)), Some(0));
        for heartbeat in (10..200).step_by(7) {
            for election_min in heartbeat + 1..4 * heartbeat {
                let timing = of(heartbeat, election_min);
                assert!(timing.config("a".into()).validate().is_ok(), "{timing:?}");
            }
        }
    }
}
