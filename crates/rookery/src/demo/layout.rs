//! Where a demo keeps what: certificates, one directory per process with its configuration, log and
//! disks, and `cluster.json`, which tells all of it to tools.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use admin::cert::{self, Role};
use admin::cluster_file::{ClusterFile, DemoAccount, Process};
use anyhow::{Context as _, Result, bail};

use super::DemoOptions;

/// Its name in the demo's directory.
pub const CLUSTER_FILE: &str = "cluster.json";
/// There once accounts and sample mail are.
const FILLED: &str = "filled";
/// How many threads a process' tasks have; as many as there are cores if it is not set.
const WORKERS: &str = "TOKIO_WORKER_THREADS";
/// Domain of the demo's accounts; `.test` is nobody's (RFC 2606 2).
pub const DOMAIN: &str = "example.test";
/// Limit: a demo is there to be loaded from one machine with few accounts.
const DEMO_CONNECTIONS_MAX: u32 = 20_000;
/// Where all processes listen that have no address of their own.
const LOCALHOST: &str = "127.0.0.1";
/// Ports that each process reserves.
const PORTS_PER_PROCESS: u16 = 10;

/// Where free ports are looked for.
const FREE_PORTS: std::ops::Range<u16> = 15_000..30_000;
/// More than a demo of the usual size takes.
const DEMO_PORTS: u16 = 100;

/// The first of so many free ports in a row that a demo of the usual size fits.
pub fn free_ports() -> Result<u16> {
    let is_free = |port| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
    let mut bases = FREE_PORTS.step_by(usize::from(DEMO_PORTS));
    let free = bases.find(|base| (*base..base + DEMO_PORTS).all(is_free));
    free.context("no 100 free ports in a row")
}

/// A prepared directory.
pub struct Layout {
    /// The demo's directory.
    pub dir: PathBuf,
    /// `DIR/cluster.json`
    pub file: PathBuf,
    /// What is in it.
    pub cluster: ClusterFile,
    /// This program.
    pub program: String,
    /// Whether the directory held no cluster before.
    pub is_new: bool,
    /// Options that want something else than what was there already.
    pub ignored: Vec<&'static str>,
}

impl Layout {
    /// Makes what is missing in `dir`; an existing demo is taken as it is.
    pub fn prepare(dir: &Path, options: &DemoOptions) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        let dir = dir.canonicalize().with_context(|| format!("open {}", dir.display()))?;
        let file = dir.join(CLUSTER_FILE);
        let program = std::env::current_exe().context("find this program")?;
        let program = program.to_string_lossy().into_owned();
        if file.exists() {
            let cluster = ClusterFile::read(&file)?;
            // Why not by the file alone: the first start may have been broken off.
            let is_new = !dir.join(FILLED).exists();
            let ignored = ignored(options, &cluster);
            return Ok(Self { dir, file, cluster, program, is_new, ignored });
        }
        if fs::read_dir(&dir)?.next().is_some() {
            bail!("{} holds files but no demo: choose an empty directory", dir.display());
        }
        let plan = Plan { dir: &dir, options, program: &program };
        // Why first: a directory that holds half a demo could not be used again.
        plan.check_ports()?;
        let made = plan.make().and_then(|cluster| cluster.write(&file).map(|()| cluster));
        if made.is_err() {
            clear(&dir);
        }
        let cluster = made?;
        Ok(Self { dir, file, cluster, program, is_new: true, ignored: Vec::new() })
    }

    /// The next start finds everything.
    pub fn note_filled(&self) -> Result<()> {
        fs::write(self.dir.join(FILLED), "").context("note that the demo is filled")
    }
}

/// Options that say neither what is there nor what nobody said.
fn ignored(options: &DemoOptions, cluster: &ClusterFile) -> Vec<&'static str> {
    let usual = DemoOptions::usual();
    let n_of = |role: &str| cluster.processes.iter().filter(|one| one.role == role).count();
    let differs =
        |wanted: u32, usual: u32, there: usize| wanted != usual && wanted as usize != there;
    let first = cluster.processes.first();
    let port = first.and_then(|node| node.ports.get("grpc")).map_or(0, |port| usize::from(*port));
    let n_disks = first.map_or(0, |node| node.data_dirs.len());
    let password = cluster.accounts.first().map(|account| account.password.as_str());
    let is_spread = cluster.processes.iter().any(|one| one.address != LOCALHOST);
    let disks_in = options.disks_in.as_ref().and_then(|dir| std::path::absolute(dir).ok());
    let shards = |there: u16| differs(options.shards.into(), usual.shards.into(), there.into());
    let is_elsewhere = |dir: PathBuf| first.is_some_and(|node| !is_below(&dir, &node.data_dirs));
    let all = [
        ("--base-port", differs(options.base_port.into(), usual.base_port.into(), port)),
        ("--nodes", differs(options.nodes.into(), usual.nodes.into(), n_of("node"))),
        (
            "--frontends",
            differs(options.frontends.into(), usual.frontends.into(), n_of("frontend")),
        ),
        ("--disks", differs(options.disks.into(), usual.disks.into(), n_disks)),
        ("--shards", cluster.n_shards.is_some_and(shards)),
        ("--accounts", differs(options.accounts, usual.accounts, cluster.accounts.len())),
        (
            "--password",
            options.password != usual.password
                && password.is_some_and(|password| password != options.password),
        ),
        ("--no-sample-mail", options.no_sample_mail && cluster.has_sample_mail == Some(true)),
        ("--spread-addresses", options.spread_addresses && !is_spread),
        ("--disks-in", disks_in.is_some_and(is_elsewhere)),
    ];
    all.into_iter().filter_map(|(name, is_ignored)| is_ignored.then_some(name)).collect()
}

fn is_below(dir: &Path, disks: &[PathBuf]) -> bool {
    disks.iter().all(|disk| disk.starts_with(dir))
}

/// Takes away what is in a directory that was empty before.
fn clear(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type());
        let is_dir = kind.is_ok_and(|kind| kind.is_dir());
        // Why the result is dropped: why the demo could not be made is what is told.
        drop(if is_dir { fs::remove_dir_all(path) } else { fs::remove_file(path) });
    }
}

/// The table of processes the demo prints.
pub fn table(cluster: &ClusterFile) -> String {
    let mut text = format!("{:<6}{:<10}{:<8}{:<14}ports\n", "name", "role", "pid", "address");
    for process in &cluster.processes {
        let ports: Vec<String> =
            process.ports.iter().map(|(name, port)| format!("{name} {port}")).collect();
        let Process { name, role, pid, address, .. } = process;
        let ports = ports.join(", ");
        text += &format!("{name:<6}{role:<10}{pid:<8}{address:<14}{ports}\n");
    }
    text
}

struct Plan<'a> {
    dir: &'a Path,
    options: &'a DemoOptions,
    program: &'a str,
}

impl Plan<'_> {
    /// All ports the demo will take are there and free.
    fn check_ports(&self) -> Result<()> {
        let n_processes = self.options.nodes + self.options.frontends;
        let n_places = if self.options.spread_addresses { 1 } else { n_processes };
        if self.options.base_port.checked_add(n_places * PORTS_PER_PROCESS).is_none() {
            bail!("ports end at 65535: choose a lower --base-port");
        }
        for k in 0..n_processes {
            let (address, first) = self.place(k);
            for port in first..first + PORTS_PER_PROCESS {
                if let Err(error) = std::net::TcpListener::bind((address.as_str(), port)) {
                    bail!("listen on {address}:{port}: {error}: choose another --base-port");
                }
            }
        }
        Ok(())
    }

    fn make(&self) -> Result<ClusterFile> {
        let authority = self.dir.join("ca");
        cert::create_authority(&authority)?;
        let identity = self.dir.join("admin");
        cert::issue_identity(&authority, Role::Admin, "demo", &identity)?;
        let mut processes = Vec::new();
        let n_nodes = self.options.nodes;
        let nodes: Vec<String> = (0..n_nodes).map(|k| self.grpc_of_node(k)).collect();
        for k in 0..n_nodes {
            processes.push(self.node(k, &nodes, &authority)?);
        }
        let hosts = self.server_hosts();
        for k in 0..self.options.frontends {
            cert::issue_server(
                &authority,
                &hosts,
                &self.dir.join(format!("f{}", k + 1)).join("server"),
            )?;
            processes.push(self.frontend(k, &nodes, &authority)?);
        }
        let accounts = (1..=self.options.accounts).map(|n| DemoAccount {
            name: format!("u{n:04}@{DOMAIN}"),
            password: self.options.password.clone(),
        });
        let (ca, accounts) = (authority.join(cert::CA_FILE), accounts.collect());
        // Why noted: the start that forms and fills the cluster may be another one.
        let n_shards = Some(self.options.shards);
        let has_sample_mail = Some(!self.options.no_sample_mail);
        Ok(ClusterFile { ca, identity, accounts, processes, n_shards, has_sample_mail })
    }

    fn server_hosts(&self) -> Vec<String> {
        let mut hosts = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let n_processes = self.options.nodes + self.options.frontends;
        hosts.extend((0..n_processes).map(|k| format!("127.0.1.{}", k + 1)));
        hosts
    }

    /// Address and first port of the k-th process, nodes first.
    fn place(&self, k: u16) -> (String, u16) {
        if self.options.spread_addresses {
            (format!("127.0.1.{}", k + 1), self.options.base_port)
        } else {
            (LOCALHOST.into(), self.options.base_port + k * PORTS_PER_PROCESS)
        }
    }

    fn grpc_of_node(&self, k: u16) -> String {
        let (address, port) = self.place(k);
        format!("{address}:{port}")
    }

    fn node(&self, k: u16, nodes: &[String], authority: &Path) -> Result<Process> {
        let name = format!("n{}", k + 1);
        let (address, port) = self.place(k);
        let home = self.dir.join(&name);
        cert::issue_identity(authority, Role::Node, &name, &home.join("identity"))?;
        let disks = match &self.options.disks_in {
            Some(dir) => std::path::absolute(dir).context("find the disks' directory")?.join(&name),
            None => home.clone(),
        };
        let disks: Vec<PathBuf> =
            (1..=self.options.disks).map(|n| disks.join(format!("disk{n}"))).collect();
        let mut config = toml::Table::new();
        config.insert("name".into(), name.clone().into());
        config.insert("data_dirs".into(), strings(disks.iter().map(|disk| disk.to_string_lossy())));
        config.insert("listen".into(), format!("{address}:{port}").into());
        config.insert("http".into(), format!("{address}:{}", port + 1).into());
        config.insert("join".into(), strings(nodes.iter()));
        config.insert("identity_dir".into(), path_value(&home.join("identity")));
        config.insert("allow_drills".into(), true.into());
        if self.options.spread_addresses {
            config.insert("bind".into(), address.clone().into());
        }
        for disk in &disks {
            fs::create_dir_all(disk).with_context(|| format!("create {}", disk.display()))?;
        }
        let argv = self.argv("node", &home, &config)?;
        let ports = BTreeMap::from([("grpc".to_owned(), port), ("http".to_owned(), port + 1)]);
        let (role, env) = ("node".into(), self.env());
        Ok(Process { name, role, pid: 0, argv, env, data_dirs: disks, address, ports })
    }

    fn frontend(&self, k: u16, nodes: &[String], authority: &Path) -> Result<Process> {
        let name = format!("f{}", k + 1);
        let (address, port) = self.place(self.options.nodes + k);
        let home = self.dir.join(&name);
        cert::issue_identity(authority, Role::Frontend, &name, &home.join("identity"))?;
        let mut config = toml::Table::new();
        config.insert("name".into(), name.clone().into());
        config.insert("seeds".into(), strings(nodes.iter()));
        config.insert("identity".into(), path_value(&home.join("identity")));
        config.insert(
            "tls_certificate".into(),
            path_value(&home.join("server").join(cert::CERT_FILE)),
        );
        config.insert("tls_key".into(), path_value(&home.join("server").join(cert::KEY_FILE)));
        config.insert("allow_plain_login".into(), true.into());
        config.insert("connections_max".into(), DEMO_CONNECTIONS_MAX.into());
        config.insert("connections_per_account_max".into(), DEMO_CONNECTIONS_MAX.into());
        if self.options.spread_addresses {
            config.insert("bind".into(), address.clone().into());
        }
        let mut ports = BTreeMap::new();
        let services = ["http", "imap", "imaps", "pop3", "pop3s", "lmtp"];
        for (offset, service) in services.into_iter().enumerate() {
            let port = port + 1 + offset as u16;
            config.insert(service.into(), format!("{address}:{port}").into());
            ports.insert(service.to_owned(), port);
        }
        let argv = self.argv("frontend", &home, &config)?;
        let (role, env, data_dirs) = ("frontend".into(), self.env(), Vec::new());
        Ok(Process { name, role, pid: 0, argv, env, data_dirs, address, ports })
    }

    /// Why: each process would take all cores for itself, and their threads get into each other's way:
    /// a delivery costs a sixth more that way on two cores.
    fn env(&self) -> BTreeMap<String, String> {
        if std::env::var_os(WORKERS).is_some() {
            return BTreeMap::new();
        }
        let n_cores = std::thread::available_parallelism().map_or(1, usize::from);
        let n_processes = usize::from(self.options.nodes + self.options.frontends);
        let n_workers = (n_cores / n_processes.max(1)).max(1);
        BTreeMap::from([(WORKERS.to_owned(), n_workers.to_string())])
    }

    fn argv(&self, verb: &str, home: &Path, config: &toml::Table) -> Result<Vec<String>> {
        let path = home.join("config.toml");
        fs::write(&path, config.to_string())
            .with_context(|| format!("write {}", path.display()))?;
        let path = path.to_string_lossy().into_owned();
        Ok(vec![self.program.to_owned(), verb.into(), "--config".into(), path])
    }
}

fn strings<S: AsRef<str>>(items: impl Iterator<Item = S>) -> toml::Value {
    toml::Value::Array(items.map(|item| toml::Value::from(item.as_ref())).collect())
}

fn path_value(path: &Path) -> toml::Value {
    toml::Value::from(path.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> DemoOptions {
        let base_port = free_ports().unwrap();
        DemoOptions { base_port, nodes: 1, frontends: 1, ..DemoOptions::usual() }
    }

    #[test]
    fn a_demo_that_could_not_be_made_leaves_its_directory_empty() {
        let home = tempfile::tempdir().unwrap();
        let (dir, file) = (home.path().join("demo"), home.path().join("file"));
        fs::write(&file, "no directory").unwrap();
        // The certificates are made before the disks.
        let options = DemoOptions { disks_in: Some(file), ..small() };
        assert!(Layout::prepare(&dir, &options).is_err());
        assert!(fs::read_dir(&dir).unwrap().next().is_none());
        let layout = Layout::prepare(&dir, &small()).unwrap();
        assert!(layout.is_new && layout.file.exists());
    }

    #[test]
    fn options_that_come_too_late_are_named() {
        let home = tempfile::tempdir().unwrap();
        let options = DemoOptions { disks: 2, ..small() };
        Layout::prepare(home.path(), &options).unwrap();
        let named = |options: &DemoOptions| Layout::prepare(home.path(), options).unwrap().ignored;
        assert!(named(&options).is_empty(), "they are what is there");
        assert!(named(&DemoOptions::usual()).is_empty(), "nobody said anything");
        let other = DemoOptions { nodes: 5, password: "other".into(), ..options };
        assert_eq!(named(&other), ["--nodes", "--password"]);
        let other = DemoOptions { shards: 2, no_sample_mail: true, ..DemoOptions::usual() };
        assert_eq!(named(&other), ["--shards", "--no-sample-mail"]);
        let disks_in = Some(home.path().join("elsewhere"));
        let other = DemoOptions { disks: 3, spread_addresses: true, disks_in, ..small() };
        let all = ["--base-port", "--disks", "--spread-addresses", "--disks-in"];
        let told = named(&other);
        // Another free port may be the same.
        assert!(told == all || told == all[1..], "{told:?}");
    }
}
