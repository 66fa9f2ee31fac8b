//! The data directories: opened, or given a new identity when they are empty, or refused.
//!
//! A directory holds a label (whose disk this is) and the disk itself. An empty directory becomes a
//! new disk; it never stands in for the one that was there before.

mod ask;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use api::placement::{ClusterId, DiskId, DiskState, META_SHARD, NodeId};
use replica::{Disk, DiskOptions};
use serde::{Deserialize, Serialize};

use self::ask::Asked;
use crate::config::Config;
use crate::error::Error;
use crate::mounts;

/// The label's file in a data directory.
const LABEL: &str = "rookery-disk.toml";
const LABEL_NEW: &str = "rookery-disk.toml.new";
/// The disk's directory in a data directory.
const DISK: &str = "disk";
/// It has this name until its label is there.
const DISK_NEW: &str = "disk.new";
/// What a fresh file system has in its root.
const LOST_AND_FOUND: &str = "lost+found";
/// Written to a disk that is to be opened, and taken away.
const PROBE: &str = "rookery-probe";
/// How long a disk may take to say whose it is, and to write so little that it is seen to live, where there
/// are others. One that is left out counts as lost at once, so it is waited for longer than storage takes to
/// come back after a power loss, and less long than a node may be away before its replicas are replaced. With
/// the time for mounts and for opening it stays within the ten minutes of `startupProbe` (deploy/kubernetes).
const LABEL_PATIENCE: Duration = Duration::from_secs(240);
/// How long it may take to be opened then: what was not checkpointed is read once, some GiB at most.
const OPEN_PATIENCE: Duration = Duration::from_secs(300);
/// How long the others wait, when they are admitted, for one that takes long to write its label.
const NOTE_PATIENCE: Duration = Duration::from_secs(10);
/// What a label is that rotted, in words that say what to do.
const DAMAGED: &str = "the label is damaged: restore it, or empty its directory to have a new disk";
/// What is said of a disk that failed in an earlier life. Why not emptied at once: it may be what is copied
/// from.
const FAILED: &str =
    "disk failed earlier: empty its directory when `rookery ctl disk list` shows no replica there";
/// Version of the label's form.
const VERSION: u32 = 1;

/// Whose disk a directory is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Label {
    version: u32,
    node: String,
    node_id: String,
    disk_id: String,
    /// Absent until the node was admitted to a cluster.
    cluster: Option<String>,
    /// Drawn at the first start after the cluster admitted the disk, and told to it.
    #[serde(default)]
    start: Option<String>,
    /// Batches the disk had at that start. Kept, since each further start writes some: an older copy
    /// that is refused must not grow until it passes for the disk.
    #[serde(default)]
    start_synced: Option<u64>,
    /// What `start` was when the cluster admitted the disk last. An older copy of the disk has another
    /// one than the cluster remembers.
    #[serde(default)]
    admitted_start: Option<String>,
}

/// One data directory.
pub(crate) struct DataDir {
    pub path: PathBuf,
    pub disk_id: DiskId,
    /// `None`: poisoned in an earlier life, or not readable now.
    pub disk: Option<Arc<Disk>>,
    label: Label,
    since: Arc<Since>,
}

/// What became of a disk since it was opened.
#[derive(Default)]
struct Since {
    /// It died, or left the cluster, and its label cannot be written.
    is_dead: AtomicBool,
    /// The cluster took it as it is, and its label says so.
    is_admitted: AtomicBool,
}

/// Why a directory is not used.
struct Refusal {
    error: Error,
    /// It lies on a disk that died, which is no reason for the others to stand still.
    is_dead: bool,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self { error, is_dead: false }
    }
}

impl Refusal {
    /// An error if the node is not to start because of it; else it is told, and given back.
    fn of_disk(self) -> Result<Error, Error> {
        if !self.is_dead {
            return Err(self.error);
        }
        tracing::error!(error = %self.error, "disk counts as failed");
        Ok(self.error)
    }
}

/// All disks of this node.
pub(crate) struct Disks {
    pub node_id: NodeId,
    /// The cluster they were admitted to.
    pub cluster: Option<ClusterId>,
    pub dirs: Vec<DataDir>,
}

impl Disks {
    /// Opens every data directory. One disk that cannot be opened does not keep the others down; one of
    /// which not even the label can be read is left out, and counts as lost for that.
    pub fn open(config: &Config, options: &DiskOptions) -> Result<Self, Error> {
        let (labels, mut dead) = read_labels(config)?;
        let known = labels.iter().filter_map(|(_, label)| label.as_ref());
        let node_id = agreed(known.clone().map(|label| label.node_id.clone()), "nodes")?;
        let cluster = agreed(known.filter_map(|label| label.cluster.clone()), "clusters")?;
        let node_id = match node_id {
            Some(text) => text.parse().map_err(|_| Error::Directory("label damaged".into()))?,
            None => match dead {
                // Why: it may be what says which node this is.
                Some(error) => return Err(error),
                None => NodeId(random()?),
            },
        };
        let cluster: Option<ClusterId> = cluster.and_then(|text| text.parse().ok());
        let (mut dirs, mut opening) = (Vec::with_capacity(labels.len()), Vec::new());
        for (path, label) in labels {
            let label = match label {
                Some(label) => label,
                None => format(path, &config.name, node_id, cluster)?,
            };
            let disk_id = label.disk_id.parse().map_err(|error| directory(path, &error))?;
            let since = Arc::default();
            let mut dir = DataDir { path: path.clone(), disk_id, disk: None, label, since };
            let options = options.clone();
            let open = move || {
                let opened = dir.open(&options).and_then(|()| dir.note_start());
                (dir, opened)
            };
            opening.push((path, Asked::begin(open).map_err(|error| directory(path, &error))?));
        }
        let deadline = deadline(config, OPEN_PATIENCE);
        for (path, asked) in opening {
            let Some((mut dir, opened)) = asked.by(deadline) else {
                dead = Some(silent(path).of_disk()?);
                continue;
            };
            if let Err(refusal) = opened {
                dead = Some(refusal.of_disk()?);
                dir.disk = None;
            }
            dirs.push(dir);
        }
        if dirs.iter().all(|dir| dir.disk.is_none()) {
            let text = "no usable disk is left: name an empty directory in data_dirs";
            return Err(dead.unwrap_or_else(|| Error::Directory(text.into())));
        }
        let ids: BTreeSet<DiskId> = dirs.iter().map(|dir| dir.disk_id).collect();
        if ids.len() != dirs.len() {
            return Err(Error::Directory("one disk is a copy of another: remove one".into()));
        }
        Ok(Self { node_id, cluster, dirs })
    }

    /// Notes on every disk that it belongs to a cluster, for ever.
    pub fn join(&self, cluster: ClusterId) -> Result<(), Error> {
        let label =
            |dir: &DataDir| Label { cluster: Some(cluster.to_string()), ..dir.label.clone() };
        // Why however long it takes: until then nothing is here that could go on.
        self.note(None, label, |_, _| {})
    }

    /// Notes on every disk that the cluster knows of this start, and lets its replicas vote. One that takes
    /// long is waited for by its own replicas alone.
    pub fn admit(&self, cluster: ClusterId) -> Result<(), Error> {
        self.admit_within(cluster, NOTE_PATIENCE)
    }

    fn admit_within(&self, cluster: ClusterId, patience: Duration) -> Result<(), Error> {
        let label = |dir: &DataDir| Label {
            cluster: Some(cluster.to_string()),
            start: None,
            start_synced: None,
            admitted_start: dir.label.start.clone(),
            ..dir.label.clone()
        };
        let deadline = (self.dirs.len() > 1).then(|| Instant::now() + patience);
        self.note(deadline, label, |disk, since| {
            disk.release();
            since.is_admitted.store(true, Ordering::Release);
        })
    }

    /// Does without disks that left the cluster, if there are others: it knows this node's and not them.
    pub fn leave_out(&self, known: &[api::placement::Disk]) {
        for dir in &self.dirs {
            let found = known.iter().find(|one| one.disk_id == dir.disk_id);
            let (disk, path) = (dir.disk_id, dir.path.display());
            match found.map(|one| one.state) {
                None => {
                    tracing::error!(%disk, %path, "disk has left this cluster: empty the directory");
                    dir.since.is_dead.store(true, Ordering::Relaxed);
                }
                // Why it is used: what it has is good until it was made anew elsewhere. A disk that fails
                // may not take the marker that says so.
                Some(DiskState::Poisoned) if !dir.has_failed() => {
                    tracing::error!(%disk, %path, "{FAILED}");
                }
                Some(_) => {}
            }
        }
    }

    /// Writes a label on every usable disk, and does on each what follows from it; an error if none is left.
    /// Who has not written it by the deadline goes on with that by itself: it is not dead, but slow.
    fn note(
        &self,
        deadline: Option<Instant>,
        label: impl Fn(&DataDir) -> Label,
        then: fn(&Disk, &Since),
    ) -> Result<(), Error> {
        let mut writing = Vec::new();
        for dir in self.dirs.iter().filter(|dir| !dir.has_failed()) {
            let (path, label) = (dir.path.clone(), label(dir));
            let (disk, since) = (dir.disk.clone(), Arc::clone(&dir.since));
            let write = move || {
                let written = write_label(&path, &label);
                match &written {
                    // Durability: the label is synced before anything follows from it.
                    Ok(()) => disk.iter().for_each(|disk| then(disk, &since)),
                    Err(refusal) => {
                        since.is_dead.fetch_or(refusal.is_dead, Ordering::Relaxed);
                        // Why only then: before that whoever waits says so.
                        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                            let error = &refusal.error;
                            tracing::error!(%error, "label not written: start this node again");
                        }
                    }
                }
                written
            };
            let asked = Asked::begin(write);
            writing.push((dir, asked.map_err(|error| directory(&dir.path, &error))?));
        }
        for (dir, asked) in writing {
            let until = deadline.unwrap_or_else(|| Instant::now() + NOTE_PATIENCE);
            let mut told = asked.by(Some(until));
            if told.is_none() && deadline.is_none() {
                let (disk, path) = (dir.disk_id, dir.path.display());
                tracing::warn!(%disk, %path, "disk is slow: this node waits for its label");
                told = asked.by(None);
            }
            match told {
                Some(Ok(())) => {}
                Some(Err(refusal)) => {
                    let error = refusal.of_disk()?;
                    if self.dirs.iter().all(DataDir::has_failed) {
                        return Err(error);
                    }
                }
                None => {
                    let (disk, path) = (dir.disk_id, dir.path.display());
                    tracing::warn!(%disk, %path, "disk is slow: its replicas vote when its label is written");
                }
            }
        }
        Ok(())
    }

    /// A usable disk by id.
    pub fn disk(&self, disk_id: DiskId) -> Option<&Arc<Disk>> {
        self.dirs.iter().find(|dir| dir.disk_id == disk_id)?.disk.as_ref()
    }

    /// How they are, as the cluster is told.
    pub fn report(&self) -> Vec<api::placement::Disk> {
        self.dirs.iter().map(|dir| dir.report(dir.n_synced())).collect()
    }

    /// How they are, as the cluster is told to be taken.
    pub fn introduce(&self) -> Vec<api::placement::Disk> {
        let had = |dir: &DataDir| dir.n_synced().or(dir.label.start_synced);
        self.dirs.iter().map(|dir| dir.report(had(dir))).collect()
    }
}

impl DataDir {
    /// Whether its disk is to be replaced.
    pub fn has_failed(&self) -> bool {
        let is_dead = self.since.is_dead.load(Ordering::Relaxed);
        is_dead || self.disk.as_ref().is_none_or(|disk| disk.is_poisoned())
    }

    /// How much is on it. Until its label says that the cluster took it that is not told: what the cluster
    /// knows of must be less than it wakes up with, should it be started once more.
    fn n_synced(&self) -> Option<u64> {
        let is_told = self.since.is_admitted.load(Ordering::Acquire);
        self.disk.as_ref().filter(|_| is_told).map(|disk| disk.n_synced())
    }

    /// Opens its disk, unless that failed in an earlier life.
    fn open(&mut self, options: &DiskOptions) -> Result<(), Refusal> {
        let (path, disk_id) = (&self.path, self.disk_id);
        let (dir, new) = (path.join(DISK), path.join(DISK_NEW));
        let is_there = |path: &Path| path.try_exists().map_err(|error| failed(path, &error));
        if !is_there(&dir)? && is_there(&new)? {
            // Durability: the label is synced, so the disk's name may be; until then it is not opened.
            let renamed = fs::rename(&new, &dir).and_then(|()| sync_dir(path));
            renamed.map_err(|error| failed(&new, &error))?;
        }
        if !is_there(&dir)? {
            let text =
                format!("{DISK} is gone: restore it, or empty the directory to have a new disk");
            return Err(directory(path, &text).into());
        }
        self.disk = match Disk::open(&dir, options.clone()) {
            Ok(disk) if disk.disk_id() == disk_id.0 => {
                if self.label.cluster.is_some() {
                    // Why not the meta group: it is what has to be asked.
                    disk.hold(META_SHARD);
                }
                Some(disk)
            }
            Ok(disk) => {
                let found = DiskId(disk.disk_id());
                let text = format!("it holds disk {found}, not {disk_id}: restore {LABEL}");
                return Err(directory(path, &text).into());
            }
            Err(error) if error.is_poisoned() => {
                tracing::error!(disk = %disk_id, path = %path.display(), %error, "{FAILED}");
                None
            }
            Err(error) if error.is_identity_lost() => {
                tracing::error!(disk = %disk_id, path = %path.display(), %error, "disk counts as failed");
                None
            }
            Err(error) if error.is_full() => {
                let needed = options.journal.segment_bytes >> 20;
                let text = format!(
                    "{error}: make room for {needed} MiB on it, or raise LimitNOFILE, then start this \
                     node again"
                );
                return Err(directory(path, &text).into());
            }
            Err(error) => {
                let is_dead = error.is_of_device();
                return Err(Refusal { is_dead, ..directory(path, &error).into() });
            }
        };
        Ok(())
    }

    /// Notes on the disk that it was started, and what it had then, if this is the first start since
    /// the cluster admitted it.
    fn note_start(&mut self) -> Result<(), Refusal> {
        let Some(had) = self.disk.as_ref().map(|disk| disk.n_recovered()) else { return Ok(()) };
        let label = &mut self.label;
        if label.start.is_some() && label.start_synced.is_some() {
            return Ok(());
        }
        if label.start.is_none() {
            label.start = Some(format!("{:016x}", random_u64()?));
        }
        label.start_synced = Some(had);
        // Durability: the disk knows this start before the cluster can hear of it.
        write_label(&self.path, label)
    }

    fn report(&self, n_synced: Option<u64>) -> api::placement::Disk {
        let usage = self.disk.as_ref().and_then(|disk| disk.usage().ok());
        api::placement::Disk {
            disk_id: self.disk_id,
            start_count: self
                .disk
                .as_ref()
                .map_or(api::placement::Disk::NOT_OPENED, |disk| disk.start_count()),
            size_bytes: usage.as_ref().map_or(0, |usage| usage.total_bytes),
            free_bytes: usage.as_ref().map_or(0, |usage| usage.free_bytes),
            state: if self.has_failed() { DiskState::Poisoned } else { DiskState::Ok },
            path: self.path.display().to_string(),
            start_id: start_id(self.label.start.as_deref()),
            previous_start_id: start_id(self.label.admitted_start.as_deref()),
            n_synced,
        }
    }
}

/// What a label says of a start, 0 for nothing.
fn start_id(text: Option<&str>) -> u64 {
    text.and_then(|text| u64::from_str_radix(text, 16).ok()).unwrap_or_default()
}

/// Whether a directory says that this node belongs to a cluster.
pub(crate) fn is_member(config: &Config) -> bool {
    let label_of = |path: &PathBuf| read_label(path, &config.name).ok().flatten();
    config.data_dirs.iter().filter_map(label_of).any(|label| label.cluster.is_some())
}

/// Whether a directory is not there, or is empty and cannot become a disk: it may be the one below the mount
/// point of a disk that is away. One that holds anything is judged by that.
pub(crate) fn is_missing(path: &Path, node: &str) -> bool {
    let is_gone = |error: io::Error| error.kind() == io::ErrorKind::NotFound;
    if fs::metadata(path).err().is_some_and(is_gone) {
        return true;
    }
    if !matches!(read_label(path, node), Ok(None)) {
        return false;
    }
    // Why so: this is how a disk begins, and what is left of it is no disk yet.
    let refused = |error: io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    fs::create_dir(path.join(DISK_NEW)).err().is_some_and(refused)
}

/// Of a directory whose disk is away, which is no reason for the others to stand still.
fn away(path: &Path, why: &str) -> Refusal {
    lost(path, &why)
}

/// Of a directory that a disk is in, but not all that tells which, which is no reason either.
fn lost(path: &Path, what: &dyn std::fmt::Display) -> Refusal {
    Refusal { is_dead: true, ..directory(path, what).into() }
}

/// Of a directory whose disk hangs, which is no reason for the others to stand still.
fn silent(path: &Path) -> Refusal {
    lost(path, &"its disk does not answer: look after it, then start this node again")
}

/// By when a disk is to answer, if the node has others.
fn deadline(config: &Config, patience: Duration) -> Option<Instant> {
    (config.data_dirs.len() > 1).then(|| Instant::now() + patience)
}

/// Directories with their labels; an empty one has none.
type Labels<'c> = Vec<(&'c PathBuf, Option<Label>)>;

/// All directories that can be used, and why the last of the others is not.
fn read_labels(config: &Config) -> Result<(Labels<'_>, Option<Error>), Error> {
    let mut asking = Vec::with_capacity(config.data_dirs.len());
    for path in &config.data_dirs {
        let (of, node, must_be_mounted) =
            (path.clone(), config.name.clone(), config.require_mounts);
        let ask = move || {
            if must_be_mounted && !mounts::is_mounted(&of) {
                return (Err(away(&of, mounts::NOT_MOUNTED)), false);
            }
            let label = read_label(&of, &node);
            if matches!(label, Ok(Some(_))) {
                probe(&of);
                return (label, false);
            }
            (label, is_missing(&of, &node))
        };
        asking.push((path, Asked::begin(ask).map_err(|error| directory(path, &error))?));
    }
    let deadline = deadline(config, LABEL_PATIENCE);
    let mut answers = Vec::with_capacity(asking.len());
    for (path, asked) in asking {
        let answer = asked.by(deadline).unwrap_or_else(|| (Err(silent(path)), false));
        answers.push((path, answer));
    }
    // Why only a member: before that it is a directory that nobody made, or gave to the node.
    let of_cluster = |(_, (label, _)): &(_, (Result<Option<Label>, Refusal>, bool))| {
        label
            .as_ref()
            .is_ok_and(|label| label.as_ref().is_some_and(|label| label.cluster.is_some()))
    };
    let is_member = answers.iter().any(of_cluster);
    let (mut labels, mut dead) = (Vec::with_capacity(answers.len()), None);
    for (path, (label, is_missing)) in answers {
        match if is_missing && is_member { Err(away(path, mounts::MISSING)) } else { label } {
            Ok(label) => labels.push((path, label)),
            Err(refusal) => dead = Some(refusal.of_disk()?),
        }
    }
    Ok((labels, dead))
}

/// Writes a little, so that a disk that hangs does so here. What comes of it does not matter: whoever opens
/// the disk finds what is wrong.
fn probe(path: &Path) {
    let file = path.join(PROBE);
    let write = || -> io::Result<()> {
        fs::write(&file, "")?;
        // Durability: none is wanted; a disk that syncs lives.
        fs::File::open(&file)?.sync_all()?;
        fs::remove_file(&file)
    };
    drop(write());
}

/// The label of a directory, `None` if the directory is empty.
fn read_label(path: &Path, node: &str) -> Result<Option<Label>, Refusal> {
    let entries = fs::read_dir(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => directory(path, &format!("{error}: create it first")).into(),
        _ => failed(path, &error),
    })?;
    let mut found = None;
    for entry in entries {
        let name = entry.map_err(|error| failed(path, &error))?.file_name();
        let name = name.to_string_lossy().into_owned();
        if name == LABEL {
            return read_label_file(path, node).map(Some);
        }
        // What a crash during formatting leaves is no disk yet.
        if ![DISK_NEW, LABEL_NEW, LOST_AND_FOUND, PROBE].contains(&name.as_str()) {
            found = Some(name);
        }
    }
    match found {
        None => Ok(None),
        Some(name) if name == DISK => {
            let text = format!("{LABEL} is gone: restore it, or name an empty directory");
            Err(lost(path, &text))
        }
        Some(name) => {
            let text = format!("it holds {name}, which is not ours: name an empty directory");
            Err(directory(path, &text).into())
        }
    }
}

fn read_label_file(path: &Path, node: &str) -> Result<Label, Refusal> {
    let file = path.join(LABEL);
    let text = fs::read(&file).map_err(|error| failed(&file, &error))?;
    let text = String::from_utf8(text).map_err(|_| lost(&file, &DAMAGED))?;
    let label: Label = toml::from_str(&text).map_err(|_| lost(&file, &DAMAGED))?;
    if label.version != VERSION {
        let text = format!("it is of version {}: use a newer program", label.version);
        return Err(directory(path, &text).into());
    }
    if label.node != node {
        let owner = &label.node;
        let text = format!("it belongs to node {owner}, not to {node}: name another directory");
        return Err(directory(path, &text).into());
    }
    Ok(label)
}

fn agreed(said: impl Iterator<Item = String>, of: &str) -> Result<Option<String>, Error> {
    let said: BTreeSet<String> = said.collect();
    if said.len() > 1 {
        let text = format!("data_dirs are disks of different {of}: name only those of this one");
        return Err(Error::Directory(text));
    }
    Ok(said.into_iter().next())
}

fn format(
    path: &Path,
    node: &str,
    node_id: NodeId,
    cluster: Option<ClusterId>,
) -> Result<Label, Error> {
    let new = path.join(DISK_NEW);
    match fs::remove_dir_all(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(directory(&new, &error));
        }
        _ => {}
    }
    fs::create_dir(&new).map_err(|error| directory(&new, &error))?;
    let disk_id = Disk::format(&new).map_err(|error| directory(&new, &error))?;
    let label = Label {
        version: VERSION,
        node: node.to_owned(),
        node_id: node_id.to_string(),
        disk_id: DiskId(disk_id).to_string(),
        cluster: cluster.map(|cluster| cluster.to_string()),
        start: None,
        start_synced: None,
        admitted_start: None,
    };
    write_label(path, &label).map_err(|refusal| refusal.error)?;
    tracing::info!(disk = %label.disk_id, path = %path.display(), "new disk");
    Ok(label)
}

fn write_label(path: &Path, label: &Label) -> Result<(), Refusal> {
    let text = toml::to_string(label).expect("a label is a flat table");
    let write = || -> io::Result<()> {
        let new = path.join(LABEL_NEW);
        let mut file = fs::File::create(&new)?;
        file.write_all(text.as_bytes())?;
        // Durability: the label is whole on the disk before its name is, and its name before the
        // disk takes any replica.
        file.sync_all()?;
        fs::rename(&new, path.join(LABEL))?;
        sync_dir(path)
    };
    write().map_err(|error| failed(path, &error))
}

fn sync_dir(path: &Path) -> io::Result<()> {
    // Durability: the names in it; what has them was synced before.
    fs::File::open(path)?.sync_all()
}

fn failed(path: &Path, error: &io::Error) -> Refusal {
    if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        let text = format!(
            "{error}: make room for a small file on it (df, df -i, quota), then start this node again"
        );
        return directory(path, &text).into();
    }
    Refusal { is_dead: replica::is_disk_dead(error), ..directory(path, error).into() }
}

fn directory(path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::Directory(format!("data directory {}: {error}", path.display()))
}

/// 16 bytes nobody has drawn before.
pub(crate) fn random() -> Result<[u8; 16], Error> {
    let mut bytes = [0; 16];
    let drawn = getrandom::fill(&mut bytes);
    drawn.map_err(|error| Error::Directory(format!("draw a random id: {error}")))?;
    Ok(bytes)
}

/// A number nobody has drawn before, and never 0.
pub(crate) fn random_u64() -> Result<u64, Error> {
    let [a, b, c, d, e, f, g, h, ..] = random()?;
    Ok(u64::from_be_bytes([a, b, c, d, e, f, g, h]).max(1))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A directory of n1 that never had any replica.
    fn labelled(path: &Path, cluster: Option<ClusterId>) {
        fs::create_dir(path).unwrap();
        format(path, "n1", NodeId([1; 16]), cluster).unwrap();
    }

    fn disks_of(dirs: &[&Path]) -> Result<Disks, Error> {
        let text = format!("name = \"n1\"\ndata_dirs = {dirs:?}\nidentity_dir = \"i\"");
        Disks::open(&Config::parse(&text).unwrap(), &DiskOptions::default())
    }

    fn opened(dirs: &[&Path]) -> Result<Vec<PathBuf>, Error> {
        Ok(disks_of(dirs)?.dirs.iter().map(|dir| dir.path.clone()).collect())
    }

    #[tokio::test]
    async fn a_directory_that_is_away_keeps_no_member_of_a_cluster_down() {
        let home = tempfile::tempdir().unwrap();
        let path = |name: &str| home.path().join(name);
        let (whole, gone) = (path("whole"), path("gone"));
        labelled(&whole, Some(ClusterId([2; 16])));
        let found = opened(&[&gone, &whole]).unwrap();
        assert_eq!(found, [whole]);
        assert!(!gone.exists());
        // Who belongs to none yet has named a directory that nobody made.
        let fresh = path("fresh");
        labelled(&fresh, None);
        let said = opened(&[&fresh, &gone]).unwrap_err().to_string();
        assert!(said.contains("create it first"), "{said}");
    }

    #[tokio::test]
    async fn nor_does_an_empty_one_that_is_somebody_elses() {
        let home = tempfile::tempdir().unwrap();
        let path = |name: &str| home.path().join(name);
        let (whole, fresh, shut) = (path("whole"), path("fresh"), path("shut"));
        fs::create_dir(&shut).unwrap();
        fs::set_permissions(&shut, fs::Permissions::from_mode(0o555)).unwrap();
        if fs::create_dir(shut.join("x")).is_ok() {
            eprintln!("skipped: root may write everywhere");
            return;
        }
        labelled(&whole, Some(ClusterId([2; 16])));
        let found = opened(&[&shut, &whole]).unwrap();
        assert_eq!(found, [whole]);
        labelled(&fresh, None);
        let said = opened(&[&fresh, &shut]).unwrap_err().to_string();
        assert!(said.contains("Permission denied"), "{said}");
    }

    /// What becomes a disk is not taken for one that is away.
    #[tokio::test]
    async fn a_disk_that_was_added_is_made() {
        let home = tempfile::tempdir().unwrap();
        let (whole, added) = (home.path().join("whole"), home.path().join("added"));
        labelled(&whole, Some(ClusterId([2; 16])));
        fs::create_dir(&added).unwrap();
        let found = opened(&[&whole, &added]).unwrap();
        assert_eq!(found, [whole, added]);
    }

    #[tokio::test]
    async fn what_is_damaged_of_one_disk_does_not_keep_the_others_down() {
        let home = tempfile::tempdir().unwrap();
        let path = |name: &str| home.path().join(name);
        let (whole, bad) = (path("whole"), path("bad"));
        labelled(&whole, Some(ClusterId([2; 16])));
        labelled(&bad, Some(ClusterId([2; 16])));
        assert_eq!(opened(&[&bad, &whole]).unwrap(), [bad.clone(), whole.clone()]);
        let label = bad.join(LABEL);
        for rotten in [&b"version = 1\nno"[..], b"\xff\xfe", b""] {
            fs::write(&label, rotten).unwrap();
            assert_eq!(opened(&[&bad, &whole]).unwrap(), std::slice::from_ref(&whole));
        }
        let said = opened(&[&bad]).unwrap_err().to_string();
        assert!(said.contains("label is damaged: restore it, or empty"), "{said}");
        fs::remove_file(&label).unwrap();
        assert_eq!(opened(&[&bad, &whole]).unwrap(), std::slice::from_ref(&whole));
        let said = opened(&[&bad]).unwrap_err().to_string();
        assert!(said.contains("rookery-disk.toml is gone"), "{said}");
    }

    #[tokio::test]
    async fn of_a_full_disk_is_said_where_it_is_and_what_to_do() {
        let home = tempfile::tempdir().unwrap();
        let (whole, full) = (home.path().join("whole"), home.path().join("full"));
        labelled(&whole, Some(ClusterId([2; 16])));
        labelled(&full, Some(ClusterId([2; 16])));
        std::os::unix::fs::symlink("/dev/full", full.join(LABEL_NEW)).unwrap();
        let said = opened(&[&full, &whole]).unwrap_err().to_string();
        let begins = format!("data directory {}: ", full.display());
        assert!(said.contains(&begins) && said.contains("room for a small file"), "{said}");
    }

    #[tokio::test]
    async fn a_disk_that_is_slow_to_write_its_label_has_not_failed() {
        let home = tempfile::tempdir().unwrap();
        let (quick, slow) = (home.path().join("quick"), home.path().join("slow"));
        let cluster = ClusterId([2; 16]);
        labelled(&quick, Some(cluster));
        labelled(&slow, Some(cluster));
        let disks = disks_of(&[&quick, &slow]).unwrap();
        // Who writes to a pipe waits for who reads.
        let pipe = slow.join(LABEL_NEW);
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        disks.admit_within(cluster, Duration::from_millis(100)).unwrap();

        assert!(disks.dirs.iter().all(|dir| !dir.has_failed()));
        let patience = Instant::now() + Duration::from_secs(30);
        while disks.dirs[0].n_synced().is_none() && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(5));
        }
        let told = disks.report();
        assert_eq!(told.iter().map(|disk| disk.state).collect::<Vec<_>>(), [DiskState::Ok; 2]);
        assert!(told[0].n_synced.is_some(), "it is admitted");
        assert_eq!(told[1].n_synced, None, "its label may never be written");
        assert_eq!(disks.introduce()[1].n_synced, disks.dirs[1].label.start_synced);
        let written = fs::read_to_string(&pipe).unwrap();
        assert!(written.contains("admitted_start"), "it waits no more: {written}");
    }
}
