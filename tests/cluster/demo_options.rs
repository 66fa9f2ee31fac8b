//! `rookery demo` as its help and the file it writes say it is.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::demo::{Demo, rookery};
use tests::imap::Imap;
use tests::pop3::Pop3;
use tests::wait;

const USER: &str = "u0001@example.test";
const N_SAMPLES: usize = 20;
/// For a debug build on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(90);
const END_WITHIN: Duration = Duration::from_secs(30);
/// For what cannot start: the ports are waited for, and processes that started are ended.
const REFUSED_WITHIN: Duration = Duration::from_secs(20);

#[test]
fn every_option_does_what_it_says() -> Result<()> {
    let password = "pass word";
    let disks = tempfile::tempdir()?;
    let disks_in = disks.path().canonicalize()?.to_string_lossy().into_owned();
    let demo = Demo::start(&[
        "--nodes=4",
        "--frontends=1",
        "--disks=2",
        "--disks-in",
        &disks_in,
        "--shards=3",
        "--accounts=5",
        "--password",
        password,
        "--no-sample-mail",
        "--spread-addresses",
    ])?;
    let cluster = demo.cluster()?;
    ensure!(Path::new(text(&cluster["ca"])?).is_file(), "no CA at {}", cluster["ca"]);
    let accounts = list(&cluster["accounts"])?;
    ensure!(accounts.len() == 5, "accounts: {accounts:?}");
    for (n, account) in (1..).zip(accounts) {
        ensure!(account["name"] == format!("u{n:04}@example.test"), "{account}");
        ensure!(account["password"] == password, "{account}");
    }
    let processes = list(&cluster["processes"])?;
    let names: Vec<_> = processes.iter().map(|process| text(&process["name"])).collect();
    let names = names.into_iter().collect::<Result<Vec<_>>>()?;
    ensure!(names == ["n1", "n2", "n3", "n4", "f1"], "{names:?}");
    for (k, process) in (1..).zip(processes) {
        described(process, k)?;
        for (n, disk) in (1..).zip(list(&process["data_dirs"])?) {
            ensure!(*disk == format!("{disks_in}/n{k}/disk{n}"), "{process}");
        }
    }
    told_by_ctl(&demo)?;
    let mut imap = Imap::login(&demo.at("f1", "imap")?, "u0005@example.test", password)?;
    imap.ok("SELECT INBOX")?;
    ensure!(imap.uids()?.is_empty(), "mail in spite of --no-sample-mail");
    Pop3::login(&demo.at("f1", "pop3")?, USER, password)?.ok("QUIT")?;
    for other in ["u0000@example.test", "u0006@example.test"] {
        ensure!(Imap::login(&demo.at("f1", "imap")?, other, password).is_err(), "{other}");
    }
    Ok(())
}

/// The k-th process of a demo with two disks per node and an address of its own for each process.
fn described(process: &Value, k: usize) -> Result<()> {
    let role = text(&process["role"])?;
    let (ports, n_disks): (&[&str], _) = match role {
        "node" => (&["grpc", "http"], 2),
        _ => (&["http", "imap", "imaps", "lmtp", "pop3", "pop3s"], 0),
    };
    let address = format!("127.0.1.{k}");
    ensure!(process["address"] == address, "{process}");
    let told = process["ports"].as_object().context("no ports")?;
    ensure!(told.keys().map(String::as_str).eq(ports.iter().copied()), "{process}");
    for port in told.values() {
        std::net::TcpStream::connect(format!("{address}:{port}")).context("a port of the file")?;
    }
    let disks = list(&process["data_dirs"])?;
    ensure!(disks.len() == n_disks, "{process}");
    for disk in disks {
        let disk = Path::new(text(disk)?);
        ensure!(disk.join("disk").is_dir(), "no disk at {}", disk.display());
        for entry in std::fs::read_dir(disk)? {
            let (entry, others) = (entry?, 0o077);
            let mode = entry.metadata()?.permissions().mode();
            ensure!(mode & others == 0, "others read mail at {}", entry.path().display());
        }
    }
    let pid = process["pid"].as_u64().context("no pid")?;
    let line = std::fs::read(format!("/proc/{pid}/cmdline"))?;
    let argv = words(&process["argv"])?;
    ensure!(line == (argv.join("\0") + "\0").as_bytes(), "{pid} is not {argv:?}");
    let from = outgoing(pid)?;
    ensure!(!from.is_empty(), "{} speaks to nobody", process["name"]);
    ensure!(from.iter().all(|ip| *ip == address), "{} speaks from {from:?}", process["name"]);
    Ok(())
}

/// The addresses from which a process holds connections that it did not accept.
fn outgoing(pid: u64) -> Result<BTreeSet<String>> {
    let mut own = BTreeSet::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        // One that was closed meanwhile is of no interest.
        let Ok(link) = std::fs::read_link(entry?.path()) else { continue };
        let link = link.to_string_lossy().into_owned();
        own.extend(
            link.strip_prefix("socket:[")
                .and_then(|inode| inode.strip_suffix(']'))
                .map(str::to_owned),
        );
    }
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/tcp"))?;
    let rows: Vec<Vec<&str>> =
        table.lines().skip(1).map(|row| row.split_whitespace().collect()).collect();
    // proc(5): local address, remote address and state in hexadecimal; the inode is the tenth field.
    let of_process = |row: &&Vec<&str>| row.len() > 9 && own.contains(row[9]);
    let listening: BTreeSet<&str> =
        rows.iter().filter(of_process).filter(|row| row[3] == "0A").map(|row| row[1]).collect();
    let connected = rows.iter().filter(of_process).filter(|row| row[3] == "01");
    connected
        .map(|row| row[1])
        .filter(|local| !listening.contains(local))
        .map(|local| {
            let (ip, _) = local.split_once(':').context("no port")?;
            let octets = u32::from_str_radix(ip, 16)?.to_ne_bytes();
            Ok(octets.map(|octet| octet.to_string()).join("."))
        })
        .collect()
}

/// `ctl --cluster FILE` counts what was asked for.
fn told_by_ctl(demo: &Demo) -> Result<()> {
    let done = demo.ctl(&["cluster", "status", "--json"])?;
    let status: Value = serde_json::from_slice(&done.stdout).context("status as JSON")?;
    let nodes = list(&status["nodes"])?;
    ensure!(nodes.len() == 4, "{status}");
    let data_shards = list(&status["shards"])?.iter().filter(|shard| shard["shard"] != 0).count();
    ensure!(data_shards == 3, "{status}");
    let done = demo.ctl(&["disk", "list"])?;
    let disks = String::from_utf8_lossy(&done.stdout).into_owned();
    for node in 1..=4 {
        let n_disks = disks.lines().filter(|line| line.contains(&format!("/n{node}/"))).count();
        ensure!(n_disks == 2, "n{node} in {disks}");
    }
    Ok(())
}

#[test]
fn the_file_starts_every_process_again() -> Result<()> {
    let mut demo = Demo::start(&["--accounts", "1"])?;
    let dir = demo.dir().to_string_lossy().into_owned();
    refused_in_one_line(&["demo", "--dir", &dir], "runs already")?;
    let mut started = Vec::new();
    for name in ["n1", "n2", "n3", "f1", "f2"] {
        demo.signal(name, "KILL")?;
        let process = demo.process(name)?;
        wait::until(END_WITHIN, "process gone with its ports", || is_gone(&process))?;
        let child = start_by_file(&demo, name)?;
        let pid = u64::from(child.0.id());
        started.push(child);
        demo.wait_healthy(true).context(name)?;
        wait::until(END_WITHIN, "the file names the new process", || {
            let told = demo.process(name)?;
            ensure!(told["pid"] == pid, "{told}");
            Ok(())
        })?;
        let frontend = if name == "f2" { "f2" } else { "f1" };
        let mut imap = wait::until(END_WITHIN, "login", || {
            Imap::login(&demo.at(frontend, "imap")?, USER, "secret")
        })?;
        imap.ok("SELECT INBOX")?;
        ensure!(imap.uids()?.len() == N_SAMPLES, "{name}: {:?}", imap.uids()?);
    }
    demo.end()?;
    refused_in_one_line(&["demo", "start", "n1", "--dir", &dir], "no demo runs")?;
    let _taken = TcpListener::bind(demo.at("n1", "grpc")?)?;
    let begun = Instant::now();
    refused_in_one_line(&["demo", "--dir", &dir], "free the port")?;
    ensure!(begun.elapsed() < REFUSED_WITHIN, "refused after {:?}", begun.elapsed());
    for child in &mut started {
        let ended = child.0.try_wait()?.context("the demo's end left a process")?;
        ensure!(ended.success(), "a process ended with {ended}");
    }
    Ok(())
}

/// One that was killed is dead before its files are closed.
fn is_gone(process: &Value) -> Result<()> {
    let line = std::fs::read(format!("/proc/{}/cmdline", process["pid"])).unwrap_or_default();
    ensure!(line.is_empty(), "{} still runs", process["name"]);
    for port in process["ports"].as_object().context("no ports")?.values() {
        TcpListener::bind(format!("{}:{port}", text(&process["address"])?))?;
    }
    Ok(())
}

/// A process; killed when dropped.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// With nothing but what the file says.
fn start_by_file(demo: &Demo, name: &str) -> Result<Started> {
    let process = demo.process(name)?;
    let argv = words(&process["argv"])?;
    let mut command = Command::new(&argv[0]);
    command.args(&argv[1..]).env_clear().current_dir("/");
    for (variable, value) in process["env"].as_object().context("no env")? {
        command.env(variable, text(value)?);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(Started(command.spawn().with_context(|| format!("start {argv:?}"))?))
}

#[test]
fn a_start_that_was_broken_off_is_finished_as_it_was_begun() -> Result<()> {
    let password = "pass \"word\\";
    let home = tempfile::tempdir()?;
    let dir = home.path().join("demo");
    let mut demo = Demo::start_in(&dir, &["--accounts", "2", "--password", password])?;
    demo.end()?;
    // As the first start leaves it until it is ready.
    std::fs::remove_file(dir.join("filled"))?;
    let demo = Demo::start_in(&dir, &["--password", "another", "--no-sample-mail"])?;
    ensure!(list(&demo.cluster()?["accounts"])?.len() == 2, "{}", demo.cluster()?);
    let mut imap = Imap::login(&demo.at("f1", "imap")?, USER, password)?;
    imap.ok("SELECT INBOX")?;
    ensure!(imap.uids()?.len() == N_SAMPLES, "{:?}", imap.uids()?);
    let none = Imap::login(&demo.at("f1", "imap")?, "u0003@example.test", "another");
    ensure!(none.is_err(), "an account of the second command line was made");
    let said = std::fs::read_to_string(home.path().join("demo.out"))?;
    ensure!(said.contains("--password, --no-sample-mail came too late"), "the demo says: {said}");
    Ok(())
}

#[test]
fn what_the_demo_prints_can_be_copied() -> Result<()> {
    let home = tempfile::tempdir()?;
    let out = home.path().join("out");
    let base = tests::demo::free_ports()?.to_string();
    let mut command = Command::new(rookery());
    command.args(["demo", "--base-port", &base]).env("TMPDIR", home.path()).stdin(Stdio::null());
    let file = std::fs::File::create(&out)?;
    let mut demo = Started(command.stdout(file.try_clone()?).stderr(file).spawn()?);
    let said = wait::until(READY_WITHIN, "demo ready", || {
        let said = std::fs::read_to_string(&out)?;
        ensure!(said.contains("Ctrl-C ends everything"), "the demo says: {said}");
        Ok(said)
    })?;
    let after = |what: &str| {
        let mut lines = said.lines().skip_while(|line| !line.starts_with(what)).skip(1);
        lines.next().with_context(|| format!("no {what}: {said}"))
    };
    let curl = after("read a message")?;
    let read = run(curl)?;
    ensure!(read.contains("Subject: Message 0 on three disks"), "{curl}: {read}");
    let message = home.path().join("message");
    std::fs::write(&message, "Subject: by hand\n\nby hand\n")?;
    run(&after("deliver a file")?.replace("FILE", &message.to_string_lossy()))?;
    let last = format!("UID={}", N_SAMPLES + 1);
    let read = run(&curl.replace("UID=1", &last))?;
    ensure!(read.contains("by hand"), "{read}");
    run(after("kill a node")?)?;
    let read = run(curl)?;
    ensure!(read.contains("Subject: Message 0 on three disks"), "{curl}: {read}");
    let pids = said.lines().filter_map(|line| line.split_whitespace().nth(2)?.parse::<u32>().ok());
    let pids: Vec<u32> = pids.collect();
    ensure!(pids.len() == 5, "five processes in the table: {said}");

    let told = Command::new("kill").args(["-INT", &demo.0.id().to_string()]).status()?;
    ensure!(told.success(), "Ctrl-C");
    let ended = wait::until(END_WITHIN, "demo ended", || demo.0.try_wait()?.context("it runs"))?;
    ensure!(ended.success(), "the demo ended with {ended}");
    nothing_runs_below(home.path())?;
    let left: Vec<_> = std::fs::read_dir(home.path())?.flatten().map(|it| it.file_name()).collect();
    ensure!(left.len() == 2, "the demo left files: {left:?}");
    Ok(())
}

fn nothing_runs_below(home: &Path) -> Result<()> {
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        let ours = line.contains(&*home.to_string_lossy());
        ensure!(!ours, "{} still runs: {line}", entry.path().display());
    }
    Ok(())
}

/// As `nohup rookery demo | head` leaves it.
#[test]
fn a_demo_nobody_reads_ends_as_a_whole() -> Result<()> {
    let home = tempfile::tempdir()?;
    let base = tests::demo::free_ports()?.to_string();
    let mut command = Command::new("sh");
    command.args(["-c", r#"trap "" HUP; exec "$0" "$@""#]).arg(rookery());
    command.args(["demo", "--base-port", &base, "--no-sample-mail"]).env("TMPDIR", home.path());
    let mut demo = Started(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?);
    let mut said = BufReader::new(demo.0.stdout.take().context("no output")?);
    let mut first = String::new();
    said.read_line(&mut first)?;
    drop(said);
    ensure!(ignores_hangup(demo.0.id())?, "the demo ends with its terminal in spite of nohup");
    let told = Command::new("kill").args(["-HUP", &demo.0.id().to_string()]).status()?;
    ensure!(told.success(), "the end of the terminal");
    wait::until(READY_WITHIN, "demo ready", || {
        let dir = std::fs::read_dir(home.path())?.flatten().next().context("no directory")?;
        let cluster = dir.path().join("cluster.json");
        let mut ctl = Command::new(rookery());
        ctl.arg("ctl").arg("--cluster").arg(cluster).args(["cluster", "health"]);
        ensure!(ctl.output()?.status.success(), "not healthy yet");
        Ok(())
    })?;
    ensure!(demo.0.try_wait()?.is_none(), "the demo ended when its reader went");
    let told = Command::new("kill").args(["-INT", &demo.0.id().to_string()]).status()?;
    ensure!(told.success(), "Ctrl-C");
    let ended = wait::until(END_WITHIN, "demo ended", || demo.0.try_wait()?.context("it runs"))?;
    ensure!(ended.success(), "the demo ended with {ended}");
    nothing_runs_below(home.path())
}

/// proc(5): the lowest bit is SIGHUP.
fn ignores_hangup(pid: u32) -> Result<bool> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.context("no SigIgn")?.trim();
    Ok(u64::from_str_radix(mask, 16)? & 1 == 1)
}

#[test]
fn a_demo_that_cannot_start_says_why() -> Result<()> {
    let home = tempfile::tempdir()?;
    std::fs::write(home.path().join("file"), "not a demo's")?;
    let dir = home.path().to_string_lossy().into_owned();
    refused_in_one_line(&["demo", "--dir", &dir], "choose an empty directory")?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port().to_string();
    let dir = home.path().join("demo").to_string_lossy().into_owned();
    let demo = |port: &str| {
        refused_in_one_line(&["demo", "--dir", &dir, "--base-port", port], "--base-port")
    };
    demo(&port)?;
    demo("65530")?;
    ensure!(std::fs::read_dir(&dir)?.next().is_none(), "half a demo is left");
    let none = home.path().join("none").to_string_lossy().into_owned();
    refused_in_one_line(&["demo", "start", "n1", "--dir", &none], "none")?;
    for bad in [["--nodes", "0"], ["--disks", "9"], ["--shards", "65"], ["--frontends", "x"]] {
        let done = Command::new(rookery()).arg("demo").args(bad).stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        ensure!(!done.status.success() && said.contains(bad[0]), "{bad:?}: {said}");
    }
    Ok(())
}

fn refused_in_one_line(arguments: &[&str], want: &str) -> Result<()> {
    let done = Command::new(rookery()).args(arguments).stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    ensure!(!done.status.success(), "{arguments:?} started");
    ensure!(said.contains(want), "{arguments:?} says {said}");
    ensure!(said.trim_end().lines().count() == 1, "{arguments:?} says more than one line: {said}");
    Ok(())
}

/// A line as a user's shell runs it; it must succeed.
fn run(line: &str) -> Result<String> {
    let done: Output = Command::new("sh").args(["-c", line]).stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    ensure!(done.status.success(), "{line}: {said}{}", String::from_utf8_lossy(&done.stderr));
    Ok(said)
}

fn list(value: &Value) -> Result<&Vec<Value>> {
    value.as_array().with_context(|| format!("not a list: {value}"))
}

fn text(value: &Value) -> Result<&str> {
    value.as_str().with_context(|| format!("not a string: {value}"))
}

fn words(value: &Value) -> Result<Vec<String>> {
    list(value)?.iter().map(|word| text(word).map(str::to_owned)).collect()
}
