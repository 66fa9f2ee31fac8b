//! `rookery ctl disk`: disks and what they carry.

use anyhow::{Context as _, Result, bail};
use api::placement::{Disk, DiskId, DiskState, Node, Placement};
use clap::Subcommand;
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use tokio::time::Instant;

use crate::cluster::{self, ClusterStatus};
use crate::follow::{self, AWAY_MAX, Left};
use crate::show::say;
use crate::target::Target;

/// `rookery ctl disk`
#[derive(Subcommand)]
pub(crate) enum DiskVerb {
    /// Show disks with what they carry
    List,
    /// Move all replicas away from a disk and wait until it is empty; it is never used again
    Retire {
        /// Its id or the beginning of it, or NODE:DIRECTORY
        disk: String,
        /// Begin, and do not wait
        #[arg(long)]
        no_wait: bool,
    },
    /// Verify everything on a disk now, as fast as it goes, and wait until what is damaged is healed
    Scrub {
        /// Its id or the beginning of it, or NODE:DIRECTORY
        disk: String,
    },
}

/// Does what the command line says.
pub(crate) async fn run(target: &Target, verb: DiskVerb) -> Result<()> {
    match verb {
        DiskVerb::List => list(target).await,
        DiskVerb::Retire { disk, no_wait } => retire(target, &disk, no_wait).await,
        DiskVerb::Scrub { disk } => scrub(target, &disk).await,
    }
}

async fn list(target: &Target) -> Result<()> {
    let status = cluster::status(target).await?;
    let placement = status.known()?;
    let mut table = Table::new();
    table.load_preset(NOTHING);
    table.set_header(["node", "directory", "disk", "state", "free", "size", "replicas"]);
    let gib = |bytes: u64| format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30));
    for node in &placement.nodes {
        for disk in &node.disks {
            let told = status.told(&node.name, disk.disk_id);
            let (free, size) = told.map_or((0, 0), |told| (told.free_bytes, told.size_bytes));
            table.add_row([
                node.name.clone(),
                disk.path.clone(),
                disk.disk_id.to_string(),
                state(&status, &node.name, disk).to_owned(),
                gib(free),
                gib(size),
                n_replicas(placement, disk.disk_id).to_string(),
            ]);
        }
    }
    say(table);
    Ok(())
}

/// How a disk is, in one word.
fn state(status: &ClusterStatus, node: &str, disk: &Disk) -> &'static str {
    match (disk.state, status.is_reachable(node), status.told(node, disk.disk_id)) {
        (DiskState::Poisoned, _, _) => "FAILED",
        (DiskState::Retired, _, _) => "retired",
        (_, false, _) => "AWAY",
        (_, true, None) => "GONE",
        (_, true, _) if status.hung_for(node, disk.disk_id).is_some() => "HANGS",
        (DiskState::Draining, _, _) => "retiring",
        (DiskState::Ok, true, Some(told)) if told.is_full() => "FULL",
        (DiskState::Ok, _, _) => "ok",
    }
}

fn n_replicas(placement: &Placement, disk: DiskId) -> usize {
    let replicas = placement.shards.iter().flat_map(|shard| &shard.replicas);
    replicas.filter(|one| one.disk_id == disk).count()
}

async fn retire(target: &Target, said: &str, no_wait: bool) -> Result<()> {
    let status = cluster::status(target).await?;
    let placement = status.known()?;
    let disk = find(placement, said)?;
    target.admin()?.retire_disk(disk).await.context("retire disk")?;
    if no_wait {
        say(format_args!(
            "disk {disk} is being emptied: `rookery ctl cluster status` shows how far it is"
        ));
        return Ok(());
    }
    let left = |status: &ClusterStatus| {
        let placement = status.known()?;
        Ok(match n_replicas(placement, disk) {
            0 => Left::Done,
            n => Left::Still(format!("disk {disk} has {n} replicas left")),
        })
    };
    follow::until(target, left).await.with_context(|| {
        format!("disk {disk} stays on its way out, and is emptied as soon as that can be done")
    })?;
    say(format_args!(
        "disk {disk} is empty: take its directory out of data_dirs at the next restart"
    ));
    Ok(())
}

async fn scrub(target: &Target, said: &str) -> Result<()> {
    let status = cluster::status(target).await?;
    let placement = status.known()?;
    let disk = find(placement, said)?;
    let has_it = |node: &&Node| node.disks.iter().any(|one| one.disk_id == disk);
    let node = placement.nodes.iter().find(has_it).context("its node has left")?.name.clone();
    let n_passes = target.admin()?.scrub_disk(&node, disk).await.context("scrub disk")?;
    let (mut n_damaged, mut uptime_ms, mut away) = (0, 0, None);
    let left = |status: &ClusterStatus| {
        // Why: a process that begins anew knows nothing of what it was asked, and one that is gone says
        // what it said last.
        match status.uptime_ms(&node) {
            Some(now_ms) if now_ms >= uptime_ms => (uptime_ms, away) = (now_ms, None),
            Some(_) => bail!("{node} was restarted meanwhile: repeat the command"),
            None if away.get_or_insert_with(Instant::now).elapsed() < AWAY_MAX => {}
            None => bail!("{node} is away: repeat the command when it is back"),
        }
        if status.told(&node, disk).is_some_and(|told| told.state == DiskState::Poisoned) {
            bail!("disk {disk} has failed: what it has is not verified");
        }
        let told = status.scrub(&node, disk).with_context(|| format!("{node} tells nothing"))?;
        if told.n_unrepairable > 0 {
            bail!("disk {disk}: {} bodies are damaged, and no peer has them", told.n_unrepairable);
        }
        n_damaged = told.n_damaged;
        let n_open = told.n_damaged.saturating_sub(told.n_repaired);
        Ok(match (told.n_passes >= n_passes, n_open) {
            (true, 0) => Left::Done,
            (true, n) => Left::Still(format!("{n} damages are being healed")),
            (false, _) => {
                Left::Still(format!("disk {disk}: {} MiB verified", told.verified_bytes >> 20))
            }
        })
    };
    follow::until_at_last(target, left).await?;
    say(format_args!(
        "disk {disk} is verified; {n_damaged} damages found and healed since {node} started"
    ));
    Ok(())
}

/// The one disk that is meant.
fn find(placement: &Placement, said: &str) -> Result<DiskId> {
    let disks = placement.nodes.iter().flat_map(|node| {
        node.disks.iter().map(move |disk| (format!("{}:{}", node.name, disk.path), disk.disk_id))
    });
    let is_meant = |(place, id): &(String, DiskId)| {
        place == said || (!said.is_empty() && id.to_string().starts_with(said))
    };
    let meant: Vec<_> = disks.filter(is_meant).collect();
    match meant.as_slice() {
        [(_, id)] => Ok(*id),
        [] => bail!("no disk {said}: see `rookery ctl disk list`"),
        several => bail!("{} disks are {said}: say its id", several.len()),
    }
}
