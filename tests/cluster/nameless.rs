//! Hosts are known by their names, and nobody resolves names for a while: who runs goes on, who is started
//! again comes back, and who cannot do anything waits, and says for what.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::demo::Demo;
use tests::hosts::Hosts;
use tests::lmtp::Lmtp;
use tests::{http, inside, wait};

const USER: &str = "u0001@example.test";
const NODES: [&str; 3] = ["n1", "n2", "n3"];
/// A debug build on two cores.
const WORKS: Duration = Duration::from_secs(60);

#[test]
fn nodes_come_back_and_mail_goes_on_while_no_name_resolves() -> Result<()> {
    let test = "nameless::nodes_come_back_and_mail_goes_on_while_no_name_resolves";
    let Some(dir) = inside::enter(test)? else { return Ok(()) };
    let Some(hosts) = Hosts::none(&dir)? else { return Ok(()) };
    let options = ["--spread-addresses", "--no-sample-mail", "--accounts", "1"];
    let mut demo = Demo::start_in(&dir.join("demo"), &options)?;
    demo.end()?;
    let names = name(&demo)?;
    hosts.set(&names)?;
    demo.begin()?;
    let status = String::from_utf8(demo.ctl(&["cluster", "status", "--json"])?.stdout)?;
    ensure!(status.contains("n1.example.test:"), "nodes go by their addresses: {status}");
    for node in NODES {
        wait::until(WORKS, "ready", || http::page(&demo.at(node, "http")?, "/readyz"))?;
    }
    demo.explain(deliver(&demo, "f1"))?;
    hosts.set(&[])?;
    // One after the other, so that each finds the others by nothing but where they come from.
    for node in NODES {
        kill(&demo, node)?;
        demo.explain(wait::until(WORKS, "mail goes on", || deliver(&demo, "f1")))?;
        demo.start_again(node)?;
        let ready = || http::page(&demo.at(node, "http")?, "/readyz");
        demo.explain(wait::until(WORKS, "ready again", ready)).context(node)?;
    }
    demo.explain(deliver(&demo, "f1"))?;
    waits_and_says_so(&demo, &hosts, &names)
}

/// Nobody connects to a frontend that is started: it waits for a name.
fn waits_and_says_so(demo: &Demo, hosts: &Hosts, names: &[(String, String)]) -> Result<()> {
    let log = demo.dir().join("f2").join("log");
    let n_said =
        |what: &str| std::fs::read_to_string(&log).unwrap_or_default().matches(what).count();
    let what = ["no node can be reached", "name does not resolve"];
    let before = what.map(n_said);
    kill(demo, "f2")?;
    demo.start_again("f2")?;
    demo.explain(wait::until(WORKS, "it says what it waits for", || {
        let now = what.map(n_said);
        ensure!(now.iter().zip(&before).all(|(now, before)| now > before), "{before:?}, {now:?}");
        Ok(())
    }))?;
    hosts.set(names)?;
    demo.explain(wait::until(WORKS, "it serves", || deliver(demo, "f2")))
}

/// From the next start on all processes know nodes by names; which, with their addresses.
fn name(demo: &Demo) -> Result<Vec<(String, String)>> {
    let cluster = demo.cluster()?;
    let processes = cluster["processes"].as_array().context("no processes")?;
    let mut names = Vec::new();
    for node in NODES {
        let process = demo.process(node)?;
        let address = process["address"].as_str().context("no address")?.to_owned();
        names.push((format!("{node}.example.test"), address));
    }
    for process in processes {
        let process = process["name"].as_str().context("no name")?;
        let path = demo.dir().join(process).join("config.toml");
        let mut config: toml::Table = std::fs::read_to_string(&path)?.parse()?;
        for key in ["join", "seeds"] {
            let Some(list) = config.get_mut(key) else { continue };
            for at in list.as_array_mut().context("no list")? {
                *at = named(at.as_str().context("no text")?, &names)?.into();
            }
        }
        if NODES.contains(&process) {
            let listen = config["listen"].as_str().context("no text")?.to_owned();
            config.insert("advertise".to_owned(), named(&listen, &names)?.into());
        }
        std::fs::write(&path, config.to_string())?;
    }
    Ok(names)
}

/// The same place, by its host's name.
fn named(place: &str, names: &[(String, String)]) -> Result<String> {
    let (host, port) = place.rsplit_once(':').context("no port")?;
    let (name, _) = names.iter().find(|(_, address)| address == host).context("no node's")?;
    Ok(format!("{name}:{port}"))
}

fn kill(demo: &Demo, process: &str) -> Result<()> {
    let pid = demo.process(process)?["pid"].as_u64().context("no pid")?;
    demo.signal(process, "KILL")?;
    wait::until(WORKS, "killed", || {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        ensure!(line.is_empty(), "{process} still runs");
        Ok(())
    })
}

fn deliver(demo: &Demo, frontend: &str) -> Result<()> {
    let mut lmtp = Lmtp::connect(&demo.at(frontend, "lmtp")?)?;
    let replies = lmtp.transaction(&[USER], b"Subject: mail\r\n\r\ngoes on\r\n")?;
    ensure!(replies.iter().all(|reply| reply.starts_with("250")), "{replies:?}");
    Ok(())
}
