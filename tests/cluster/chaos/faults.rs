//! What is done to a cluster of three nodes and two frontends, one fault at a time. Each is over when
//! [`Field::play`] returns; that everything is whole again is waited for by who asked.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use drill::Load;
use tests::demo::Demo;
use tests::skip::skipped;
use tests::volume::Volume;
use tests::wait;
use tests::wires::Wires;

/// The nodes.
pub const NODES: [&str; 3] = ["n1", "n2", "n3"];
const FRONTENDS: [&str; 2] = ["f1", "f2"];
const ALL: [&str; 5] = ["n1", "n2", "n3", "f1", "f2"];
/// Beyond every lease and every keepalive.
const LASTING: Duration = Duration::from_secs(4);
/// What a cluster with one node less may take until every client gets something done: a debug build.
const GOES_ON: Duration = Duration::from_secs(60);
/// A killed process is gone by then.
const GONE: Duration = Duration::from_secs(10);
/// Bits turned over on one disk.
const ROT_BITS: u32 = 24;

/// One kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9`.
    Kill,
    /// The same to a frontend.
    KillFrontend,
    /// SIGSTOP, beyond every lease.
    Pause,
    /// A node is cut off from everybody.
    Cut,
    /// A node is heard by nobody, or hears nobody.
    CutOneWay,
    /// Two processes are cut off from each other.
    CutPair,
    /// The disk of a stopped node is empty.
    Wipe,
    /// Bits of a stopped node's files are turned over.
    Rot,
    /// A disk is full.
    Full,
    /// A node loses power: what was not synced is gone.
    PowerOfOne,
    /// All nodes do, at the same moment.
    PowerOfAll,
}

impl Fault {
    /// All kinds.
    pub const ALL: [Self; 11] = [
        Self::Kill,
        Self::KillFrontend,
        Self::Pause,
        Self::Cut,
        Self::CutOneWay,
        Self::CutPair,
        Self::Wipe,
        Self::Rot,
        Self::Full,
        Self::PowerOfOne,
        Self::PowerOfAll,
    ];
}

/// What is hurt, and chance.
pub struct Field<'a> {
    demo: &'a Demo,
    load: &'a Load,
    /// One for each node, or none at all.
    disks: Vec<Volume>,
    wires: Option<Wires>,
    state: u64,
}

impl<'a> Field<'a> {
    pub fn new(
        demo: &'a Demo,
        load: &'a Load,
        disks: Vec<Volume>,
        wires: Option<Wires>,
        seed: u64,
    ) -> Self {
        Self { demo, load, disks, wires, state: seed }
    }

    /// One of these.
    pub fn draw<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.number(from.len() as u64) as usize]
    }

    /// SplitMix64, below a bound.
    fn number(&mut self, below: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below.max(1)
    }

    /// A node: more often than not the one that leads most.
    fn victim(&mut self) -> Result<&'static str> {
        let any = self.draw(&NODES);
        if self.number(3) == 0 {
            return Ok(any);
        }
        let leader = wait::until(GOES_ON, "a leader", || self.demo.busiest_leader())?;
        NODES.into_iter().find(|node| *node == leader).context("the leader is none of ours")
    }

    /// Does it; what was done to whom, or `None` where the machine does not allow it.
    pub fn play(&mut self, fault: Fault) -> Result<Option<String>> {
        let needs_disks = matches!(fault, Fault::Full | Fault::PowerOfOne | Fault::PowerOfAll);
        let needs_wires = matches!(fault, Fault::Cut | Fault::CutOneWay | Fault::CutPair);
        if needs_disks && self.disks.is_empty() || needs_wires && self.wires.is_none() {
            skipped(format!("{fault:?}, see above"));
            return Ok(None);
        }
        match fault {
            Fault::Kill => {
                let node = self.victim()?;
                self.kill(node)
            }
            Fault::KillFrontend => {
                let frontend = self.draw(&FRONTENDS);
                self.kill(frontend)
            }
            Fault::Pause => self.pause(),
            Fault::Cut | Fault::CutOneWay | Fault::CutPair => self.cut(fault),
            Fault::Wipe => self.wipe(),
            Fault::Rot => self.rot(),
            Fault::Full => self.full(),
            Fault::PowerOfOne => {
                let node = self.victim()?;
                self.power(&[node])?;
                Ok(format!("{node} lost power"))
            }
            Fault::PowerOfAll => {
                self.power(&NODES)?;
                Ok("all nodes lost power".into())
            }
        }
        .map(Some)
    }

    /// Every client gets something done while one node is hurt.
    fn goes_on(&self) -> Result<()> {
        self.load.progress(1, GOES_ON).context("the others go on")
    }

    fn kill(&self, process: &str) -> Result<String> {
        self.kill_now(process)?;
        self.goes_on()?;
        self.demo.start_again(process)?;
        Ok(format!("{process} was killed"))
    }

    fn kill_now(&self, node: &str) -> Result<()> {
        let pid = self.demo.process(node)?["pid"].as_u64().context("no pid")?;
        self.demo.signal(node, "KILL")?;
        wait::until(GONE, "killed", || {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            ensure!(line.is_empty(), "{node} still runs");
            Ok(())
        })
    }

    fn pause(&mut self) -> Result<String> {
        let node = self.victim()?;
        self.demo.signal(node, "STOP")?;
        std::thread::sleep(LASTING);
        let went_on = self.goes_on();
        self.demo.signal(node, "CONT")?;
        went_on?;
        Ok(format!("{node} stood still"))
    }

    fn cut(&mut self, fault: Fault) -> Result<String> {
        let node = self.victim()?;
        let (what, pairs) = match fault {
            Fault::CutPair => {
                let others: Vec<&str> = ALL.into_iter().filter(|other| *other != node).collect();
                let other = self.draw(&others);
                let pairs = vec![(node, other), (other, node)];
                (format!("{node} and {other} were cut off from each other"), pairs)
            }
            _ => {
                let others = || ALL.into_iter().filter(|other| *other != node);
                let out: Vec<_> = others().map(|other| (node, other)).collect();
                let back: Vec<_> = others().map(|other| (other, node)).collect();
                match (fault, self.number(2)) {
                    (Fault::Cut, _) => (format!("{node} was cut off"), [out, back].concat()),
                    (_, 0) => (format!("{node} was heard by nobody"), out),
                    _ => (format!("{node} heard nobody"), back),
                }
            }
        };
        let wires = self.wires.as_ref().context("no wires")?;
        for (from, to) in pairs {
            wires.cut(&self.address(from)?, &self.address(to)?)?;
        }
        std::thread::sleep(LASTING);
        let went_on = self.goes_on();
        let n_vanished = wires.mend()?;
        went_on.context(what.clone())?;
        Ok(format!("{what} ({n_vanished} packets vanished)"))
    }

    fn address(&self, process: &str) -> Result<String> {
        let process = self.demo.process(process)?;
        process["address"].as_str().map(str::to_owned).context("no address")
    }

    fn disk_of(&self, node: &str) -> Result<PathBuf> {
        let process = self.demo.process(node)?;
        process["data_dirs"][0].as_str().map(PathBuf::from).context("no disk")
    }

    fn volume_of(&self, node: &str) -> Result<&Volume> {
        let at = NODES.iter().position(|one| *one == node).context("no such node")?;
        self.disks.get(at).context("no disk of its own")
    }

    fn wipe(&mut self) -> Result<String> {
        let node = self.victim()?;
        self.kill_now(node)?;
        for entry in fs::read_dir(self.disk_of(node)?)? {
            let path = entry?.path();
            match path.is_dir() {
                _ if path.ends_with("lost+found") => {}
                true => fs::remove_dir_all(path)?,
                false => fs::remove_file(path)?,
            }
        }
        self.demo.start_again(node)?;
        Ok(format!("the disk of {node} was wiped"))
    }

    fn rot(&mut self) -> Result<String> {
        let node = self.victim()?;
        self.kill_now(node)?;
        let mut files = Vec::new();
        used_files(&self.disk_of(node)?.join("disk"), &mut files)?;
        for _ in 0..ROT_BITS {
            let at = self.number(files.iter().map(|(_, used)| used).sum());
            self.turn_over(&files, at)?;
        }
        self.demo.start_again(node)?;
        Ok(format!("{ROT_BITS} bits turned over on {node}"))
    }

    /// Turns a bit over in the byte `at` of all files one after the other.
    fn turn_over(&mut self, files: &[(PathBuf, u64)], mut at: u64) -> Result<()> {
        for (path, used) in files {
            if at >= *used {
                at -= used;
                continue;
            }
            let file = OpenOptions::new().read(true).write(true).open(path)?;
            let mut byte = [0];
            file.read_exact_at(&mut byte, at)?;
            file.write_all_at(&[byte[0] ^ (1 << self.number(8))], at)?;
            break;
        }
        Ok(())
    }

    fn full(&mut self) -> Result<String> {
        let node = self.victim()?;
        self.volume_of(node)?.fill(0)?;
        std::thread::sleep(LASTING);
        let went_on = self.goes_on();
        self.volume_of(node)?.relieve()?;
        went_on?;
        Ok(format!("the disk of {node} was full"))
    }

    /// Power fails at these nodes at the same moment, and comes back.
    fn power(&self, nodes: &[&str]) -> Result<()> {
        // They stand still first, so that none sees another's disk, or its own, fail.
        for node in nodes {
            self.demo.signal(node, "STOP")?;
        }
        for node in nodes {
            self.volume_of(node)?.lose_power()?;
        }
        for node in nodes {
            self.kill_now(node)?;
        }
        if nodes.len() == 1 {
            self.goes_on()?;
        }
        for node in nodes {
            self.volume_of(node)?.get_power()?;
            self.demo.start_again(node)?;
        }
        Ok(())
    }
}

/// All files below a directory that hold anything but zeros, and how far they do.
fn used_files(dir: &Path, into: &mut Vec<(PathBuf, u64)>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            used_files(&path, into)?;
            continue;
        }
        let used = fs::read(&path)?.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
        if used > 0 {
            into.push((path, used as u64));
        }
    }
    into.sort();
    Ok(())
}
