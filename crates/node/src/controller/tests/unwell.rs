//! Which replicas cannot run where they are.

use super::super::Memory;
use super::*;

#[test]
fn one_that_waits_for_a_disk_that_hangs_could_still_run_there() {
    let world = World::new(3, 1, 1);
    let (placement, mut heard) = (world.placement(), world.reports());
    let mut memory = Memory::new();
    heard.get_mut("n1").unwrap().report.replicas.clear();
    memory.note_unwell(&placement, &heard);
    assert!(!memory.unwell.is_empty(), "its node does not tell of it");
    let hangs = DiskScrub { disk_id: disk_id(1, 0), unanswered_ms: 3_000, ..DiskScrub::default() };
    heard.get_mut("n1").unwrap().report.scrubs.push(hangs);
    memory.note_unwell(&placement, &heard);
    assert!(memory.unwell.is_empty(), "{:?}", memory.unwell);
}
