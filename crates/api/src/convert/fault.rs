//! Service fault.

use std::time::Duration;

use bytes::Bytes;

use super::{Malformed, id};
use crate::fault::{FAULT_MAX, Fault};
use crate::placement::DiskId;
use crate::proto::fault as wire;
use wire::inflict_request::Fault as Kind;

impl From<&Fault> for Kind {
    fn from(fault: &Fault) -> Self {
        let disk_id = |disk: &DiskId| Bytes::copy_from_slice(&disk.0);
        match fault {
            Fault::Probe => Self::Probe(wire::Probe {}),
            Fault::Crash => Self::Crash(wire::Crash {}),
            Fault::Restart => Self::Restart(wire::Restart {}),
            Fault::Pause(duration) => Self::Pause(wire::Pause { duration_ms: ms(*duration) }),
            Fault::Partition { duration, peers_only } => Self::Partition(wire::Partition {
                duration_ms: ms(*duration),
                peers_only: *peers_only,
            }),
            Fault::WipeDisk(disk) => Self::WipeDisk(wire::WipeDisk { disk_id: disk_id(disk) }),
            Fault::Rot { disk, n_bits, seed } => {
                Self::Rot(wire::Rot { disk_id: disk_id(disk), n_bits: *n_bits, seed: *seed })
            }
            Fault::FillDisk { disk, duration } => Self::FillDisk(wire::FillDisk {
                disk_id: disk_id(disk),
                duration_ms: ms(*duration),
            }),
        }
    }
}

impl TryFrom<Kind> for Fault {
    type Error = Malformed;

    /// Whoever asks for a longer fault than [`FAULT_MAX`] gets that.
    fn try_from(kind: Kind) -> Result<Self, Malformed> {
        let disk_id = |bytes: &Bytes| id(bytes, "id of a disk").map(DiskId);
        Ok(match kind {
            Kind::Probe(_) => Self::Probe,
            Kind::Crash(_) => Self::Crash,
            Kind::Restart(_) => Self::Restart,
            Kind::Pause(pause) => Self::Pause(bounded(pause.duration_ms)),
            Kind::Partition(partition) => Self::Partition {
                duration: bounded(partition.duration_ms),
                peers_only: partition.peers_only,
            },
            Kind::WipeDisk(wipe) => Self::WipeDisk(disk_id(&wipe.disk_id)?),
            Kind::Rot(rot) => {
                Self::Rot { disk: disk_id(&rot.disk_id)?, n_bits: rot.n_bits, seed: rot.seed }
            }
            Kind::FillDisk(fill) => Self::FillDisk {
                disk: disk_id(&fill.disk_id)?,
                duration: bounded(fill.duration_ms),
            },
        })
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn bounded(ms: u64) -> Duration {
    Duration::from_millis(ms).min(FAULT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_survive_the_wire() {
        let (disk, duration) = (DiskId([7; 16]), Duration::from_secs(3));
        let all = [
            Fault::Probe,
            Fault::Crash,
            Fault::Restart,
            Fault::Pause(duration),
            Fault::Partition { duration, peers_only: true },
            Fault::WipeDisk(disk),
            Fault::Rot { disk, n_bits: 9, seed: 5 },
            Fault::FillDisk { disk, duration },
        ];
        for fault in all {
            assert_eq!(Fault::try_from(Kind::from(&fault)).ok(), Some(fault));
        }
    }

    #[test]
    fn no_fault_lasts_longer_than_the_limit() {
        let asked = Duration::from_secs(1 << 40);
        let partition = Fault::Partition { duration: asked, peers_only: false };
        let fill = Fault::FillDisk { disk: DiskId([7; 16]), duration: asked };
        for fault in [Fault::Pause(asked), partition, fill] {
            let told = Fault::try_from(Kind::from(&fault)).expect("well formed");
            let (Fault::Pause(duration)
            | Fault::Partition { duration, .. }
            | Fault::FillDisk { duration, .. }) = told
            else {
                panic!("{told:?} has no duration")
            };
            assert_eq!(duration, FAULT_MAX);
        }
    }
}
