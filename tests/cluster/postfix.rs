//! A real Postfix in front: its own configuration and queue in a temporary directory, loopback only, the
//! system's own untouched. Skipped, which is said, where it is not installed or cannot run.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::demo::{Demo, free_ports};
use tests::frontend::FrontendProcess;
use tests::imap::Imap;
use tests::lmtp::Lmtp;
use tests::pop3::Pop3;
use tests::skip::skipped;
use tests::wait;

const PASSWORD: &str = "secret";

/// One that Postfix reaches over the network, one through the file of a socket.
const BY_INET: &str = "u0001@example.test";
const BY_UNIX: &str = "u0002@example.test";

/// One that needs SMTPUTF8.
const BEYOND_ASCII: &str = "jörg@example.test";

/// A frontend takes 52,428,800 by default; the rest is room for what Postfix puts in front, and more.
const LARGE_BYTES: usize = 49_000_000;

#[test]
fn postfix_delivers_large_small_and_utf8_over_inet_and_unix() -> Result<()> {
    if let Some(reason) = missing() {
        skipped(reason);
        return Ok(());
    }
    let demo = Demo::start(&["--no-sample-mail", "--accounts", "2"])?;
    let home = tempfile::tempdir()?;
    // Postfix delivers as a user of its own.
    std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755))?;
    let socket = home.path().join("lmtp");
    let frontend = FrontendProcess::start(home.path(), &with_socket(&demo, &socket)?)?;
    let postfix = Postfix::start(home.path(), &demo.at("f1", "lmtp")?, &socket)?;

    // With all that Postfix would put into the header where it is missing.
    let head = |subject: &str| {
        format!(
            "From: a@example.test\r\nTo: b@example.test\r\nSubject: {subject}\r\n\
             Date: Fri, 27 Nov 2026 12:00:00 +0000\r\nMessage-Id: <{subject}@example.test>\r\n\r\n"
        )
    };
    let small = [head("small").as_bytes(), b".dot\r\nend\r\n"].concat();
    let line = b"0123456789012345678901234567890123456789012345678901234567890123456789\r\n";
    let large =
        [head("large").as_bytes(), line.repeat(LARGE_BYTES / line.len()).as_slice()].concat();
    let mut smtp = Lmtp::connect_to_smtp(&postfix.address)?;
    for message in [&small, &large] {
        let reply = smtp.deliver_as_smtp(&[BY_INET, BY_UNIX], message)?;
        ensure!(reply.starts_with("250"), "Postfix says {reply}");
    }
    for user in [BY_INET, BY_UNIX] {
        let mut imap = Imap::login(&demo.at("f2", "imap")?, user, PASSWORD)?;
        wait::until(Duration::from_secs(60), "Postfix delivers", || {
            imap.ok("SELECT INBOX")?;
            let n = imap.uids()?.len();
            ensure!(n == 2, "{user} has {n} messages; {}", postfix.said());
            Ok(())
        })?;
        let (one, two) = (imap.fetch_body(1)?, imap.fetch_body(2)?);
        let by_size = if one.len() < two.len() { [one, two] } else { [two, one] };
        for (got, sent) in by_size.iter().zip([&small, &large]) {
            ensure!(got.ends_with(sent), "{user}: {} octets are not those sent", got.len());
        }
    }
    beyond_ascii(&demo, &postfix)?;
    drop(postfix);
    frontend.end()?;
    ensure!(!socket.exists(), "the socket's file goes with the frontend");
    Ok(())
}

/// Postfix says of a line that it does not know that nothing uses it.
#[test]
fn the_example_has_no_word_that_postfix_does_not_know() -> Result<()> {
    if !is_there("postconf") {
        skipped("postfix is not installed");
        return Ok(());
    }
    let home = tempfile::tempdir()?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("tests lies in the root")?;
    let example = std::fs::read_to_string(root.join("deploy/postfix.cf"))?;
    std::fs::write(home.path().join("main.cf"), &example)?;
    std::fs::write(home.path().join("master.cf"), "")?;
    let mut postconf = Command::new("postconf");
    let read = postconf.arg("-c").arg(home.path()).arg("-n").output().context("run postconf")?;
    ensure!(read.status.success(), "postconf: {read:?}");
    let complaint = String::from_utf8_lossy(&read.stderr);
    ensure!(!complaint.contains("unused parameter"), "{complaint}");
    let known = String::from_utf8_lossy(&read.stdout);
    for line in example.lines().filter(|line| !line.starts_with('#')) {
        ensure!(known.lines().any(|known| known == line), "{line} is not in {known}");
    }
    Ok(())
}

/// RFC 6531: what Postfix was told in UTF-8 it tells us in UTF-8, and POP3 gives it like that.
fn beyond_ascii(demo: &Demo, postfix: &Postfix) -> Result<()> {
    demo.ctl_with_input(&["account", "add", BEYOND_ASCII], PASSWORD)?;
    let message = "From: δ@π.example\r\nTo: jörg@example.test\r\nSubject: Grüße\r\n\
                   Date: Fri, 27 Nov 2026 12:00:00 +0000\r\nMessage-Id: <utf8@example.test>\r\n\r\n\
                   über\r\n";
    let mut smtp = Lmtp::connect_to_smtp(&postfix.address)?;
    smtp.command("MAIL FROM:<δ@π.example> BODY=8BITMIME SMTPUTF8", "250")?;
    smtp.command(&format!("RCPT TO:<{BEYOND_ASCII}>"), "250")?;
    smtp.command("DATA", "354")?;
    smtp.command(&format!("{message}."), "250")?;
    wait::until(Duration::from_secs(60), "Postfix delivers", || {
        let mut pop3 = Pop3::login(&demo.at("f2", "pop3")?, BEYOND_ASCII, PASSWORD)?;
        let n = pop3.lines("UIDL")?.len();
        ensure!(n == 1, "{BEYOND_ASCII} has {n} messages; {}", postfix.said());
        let got = String::from_utf8(pop3.retr(1)?)?;
        ensure!(got.starts_with("Return-Path: <δ@π.example>\r\n"), "{got}");
        ensure!(got.contains(" with UTF8LMTP id "), "{got}");
        ensure!(got.ends_with(message), "{got}");
        pop3.ok("QUIT").map(|_| ())
    })
}

/// The first frontend's configuration with other ports and a socket.
fn with_socket(demo: &Demo, socket: &Path) -> Result<toml::Table> {
    let text = std::fs::read_to_string(demo.dir().join("f1").join("config.toml"))?;
    let mut config: toml::Table = text.parse()?;
    for port in ["imap", "imaps", "pop3", "pop3s", "lmtp", "http"] {
        config.remove(port);
    }
    let mut lmtp_unix = toml::Table::new();
    lmtp_unix.insert("path".into(), socket.to_string_lossy().into_owned().into());
    lmtp_unix.insert("mode".into(), "0666".into());
    config.insert("lmtp_unix".into(), lmtp_unix.into());
    Ok(config)
}

fn is_there(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
    found.is_ok_and(|found| found.status.success())
}

fn missing() -> Option<String> {
    // SAFETY: geteuid(2) only tells.
    if unsafe { libc::geteuid() } != 0 {
        return Some("Postfix starts as root only".into());
    }
    (!is_there("/usr/sbin/postfix")).then(|| "postfix is not installed".into())
}

/// A Postfix of our own.
struct Postfix {
    config: PathBuf,
    log: PathBuf,
    address: String,
}

impl Postfix {
    fn start(home: &Path, inet: &str, socket: &Path) -> Result<Self> {
        let (config, queue) = (home.join("postfix"), home.join("queue"));
        let (data, log) = (home.join("data"), home.join("postfix.log"));
        for directory in [&config, &queue, &data] {
            std::fs::create_dir(directory)?;
        }
        let owned = Command::new("chown").arg("postfix").arg(&data).status()?;
        ensure!(owned.success(), "chown failed");
        let port = free_ports()?;
        let main = format!(
            "compatibility_level = 3.6\nqueue_directory = {queue}\ndata_directory = {data}\n\
             daemon_directory = /usr/lib/postfix/sbin\ncommand_directory = /usr/sbin\n\
             mail_owner = postfix\nsetgid_group = postdrop\nmaillog_file = {log}\n\
             maillog_file_prefixes = {home}\ninet_interfaces = 127.0.0.1\ninet_protocols = ipv4\n\
             myhostname = mta.example.test\nmydestination =\nmynetworks = 127.0.0.0/8\n\
             relay_domains = example.test\nrelay_transport = lmtp:inet:{inet}\n\
             smtputf8_enable = yes\nsmtp_dns_support_level = disabled\n\
             alias_maps =\nalias_database =\nmessage_size_limit = 60000000\n\
             mailbox_size_limit = 0\nrelay_recipient_maps =\nsmtpd_recipient_restrictions = \
             permit_mynetworks, reject\nlmtp_destination_recipient_limit = 50\n\
             transport_maps = inline:{{ {{ {BY_INET} = lmtp:inet:{inet} }}, \
             {{ {BY_UNIX} = lmtp:unix:{socket} }} }}\n",
            queue = queue.display(),
            data = data.display(),
            log = log.display(),
            home = home.display(),
            socket = socket.display(),
        );
        std::fs::write(config.join("main.cf"), main)?;
        let mut master = std::fs::File::create(config.join("master.cf"))?;
        writeln!(master, "127.0.0.1:{port} inet n - n - - smtpd")?;
        let services = [
            "cleanup unix n - n - 0 cleanup",
            "qmgr unix n - n 300 1 qmgr",
            "tlsmgr unix - - n 1000? 1 tlsmgr",
            "rewrite unix - - n - - trivial-rewrite",
            "bounce unix - - n - 0 bounce",
            "defer unix - - n - 0 bounce",
            "trace unix - - n - 0 bounce",
            "verify unix - - n - 1 verify",
            "flush unix n - n 1000? 0 flush",
            "proxymap unix - - n - - proxymap",
            "smtp unix - - n - - smtp",
            "relay unix - - n - - smtp",
            "lmtp unix - - n - - lmtp",
            "error unix - - n - - error",
            "retry unix - - n - - error",
            "anvil unix - - n - 1 anvil",
            "scache unix - - n - 1 scache",
            "postlog unix-dgram n - n - 1 postlogd",
        ];
        for service in services {
            writeln!(master, "{service}")?;
        }
        let postfix = Self { config, log, address: format!("127.0.0.1:{port}") };
        let started = postfix.run("start")?;
        ensure!(started.status.success(), "postfix start: {started:?}; {}", postfix.said());
        Ok(postfix)
    }

    fn run(&self, verb: &str) -> Result<std::process::Output> {
        let mut postfix = Command::new("/usr/sbin/postfix");
        postfix.arg("-c").arg(&self.config).arg(verb).stdin(Stdio::null());
        postfix.output().context("run postfix")
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.said());
        }
        if let Err(error) = self.run("stop") {
            eprintln!("postfix stop: {error:#}");
        }
    }
}
