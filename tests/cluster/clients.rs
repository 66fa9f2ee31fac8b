//! Real mail clients against a demo cluster; those that are not installed are skipped, which is said.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use tests::demo::Demo;
use tests::imap::Imap;
use tests::skip::has_program;

const USER: &str = "u0001@example.test";
const PASSWORD: &str = "secret";
const MARK: &str = "octets that only this message has";

#[test]
fn real_clients_read_and_write() -> Result<()> {
    let demo = Demo::start(&["--no-sample-mail", "--accounts", "5"])?;
    let home = tempfile::tempdir()?;
    deliver_with_rookery(&demo, home.path())?;
    read_with_curl(&demo)?;
    use_with_python(&demo)?;
    deliver_with_swaks(&demo)?;
    sync_with_mbsync(&demo, home.path())?;
    sync_with_offlineimap(&demo, home.path())?;
    sync_with_interimap(&demo, home.path())?;
    read_with_mutt(&demo, home.path())?;
    fetch_with_fetchmail(&demo, home.path())?;
    fetch_with_mpop(&demo, home.path())
}

fn deliver_with_rookery(demo: &Demo, home: &Path) -> Result<()> {
    let file = home.join("message");
    std::fs::write(&file, format!("From: a@example.test\nSubject: first\n\n{MARK}\n"))?;
    let dir = demo.dir().to_string_lossy().into_owned();
    let mut deliver = Command::new(tests::demo::rookery());
    deliver.args(["demo", "deliver"]).arg(&file).args(["--to", USER, "--dir", &dir]);
    run(&mut deliver, "rookery demo deliver").map(|_| ())
}

fn read_with_curl(demo: &Demo) -> Result<()> {
    if !has_program("curl") {
        return Ok(());
    }
    let imaps = demo.at("f1", "imaps")?;
    let pop3s = demo.at("f2", "pop3s")?;
    let cluster = demo.cluster()?;
    let ca = cluster["ca"].as_str().context("no CA")?;
    for url in [format!("imaps://{imaps}/INBOX;UID=1"), format!("pop3s://{pop3s}/1")] {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--cacert", ca, "-u", &format!("{USER}:{PASSWORD}"), &url]);
        let said = run(&mut curl, "curl")?;
        ensure!(said.contains(MARK), "curl {url}: {said}");
    }
    let imap = demo.at("f1", "imap")?;
    let mut starttls = Command::new("curl");
    starttls.args(["-sS", "--ssl-reqd", "--cacert", ca, "-u", &format!("{USER}:{PASSWORD}")]);
    starttls.arg(format!("imap://{imap}/INBOX;UID=1"));
    ensure!(run(&mut starttls, "curl STARTTLS")?.contains(MARK), "curl with STARTTLS");
    Ok(())
}

fn use_with_python(demo: &Demo) -> Result<()> {
    if !has_program("python3") {
        return Ok(());
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster").join("clients.py");
    let mut python = Command::new("python3");
    python.arg(script).args([
        demo.at("f2", "imap")?,
        demo.at("f1", "pop3")?,
        demo.at("f1", "lmtp")?,
    ]);
    python.args(["u0002@example.test", PASSWORD]);
    run(&mut python, "python3").map(|_| ())
}

fn deliver_with_swaks(demo: &Demo) -> Result<()> {
    if !has_program("swaks") {
        return Ok(());
    }
    let lmtp = demo.at("f2", "lmtp")?;
    let mut swaks = Command::new("swaks");
    swaks.args([
        "--protocol",
        "LMTP",
        "--server",
        &lmtp,
        "--to",
        &format!("{USER},u0003@example.test"),
    ]);
    swaks.args(["--from", "sender@example.test", "--header", "Subject: by swaks", "--body", MARK]);
    let said = run(&mut swaks, "swaks")?;
    let accepted = said.lines().filter(|line| line.starts_with("<-  250 2.")).count();
    ensure!(accepted >= 2, "swaks: {said}");
    let mut unknown = Command::new("swaks");
    unknown.args(["--protocol", "LMTP", "--server", &lmtp, "--to", "nobody@example.test"]);
    let said = String::from_utf8_lossy(&unknown.output()?.stdout).into_owned();
    ensure!(said.contains("550 5.1.1"), "swaks to nobody: {said}");
    Ok(())
}

fn sync_with_mbsync(demo: &Demo, home: &Path) -> Result<()> {
    if !has_program("mbsync") {
        return Ok(());
    }
    let (host, port) = split(&demo.at("f1", "imap")?)?;
    let maildir = home.join("maildir");
    std::fs::create_dir_all(&maildir)?;
    let base = maildir.display();
    let config = format!(
        "IMAPStore far\nHost {host}\nPort {port}\nUser {USER}\nPass {PASSWORD}\n\
         {tls} None\nAuthMechs LOGIN\n\nMaildirStore near\nPath {base}/\nInbox {base}/INBOX\n\
         SubFolders Verbatim\n\nChannel all\nFar :far:\nNear :near:\nPatterns *\nCreate Both\n\
         Expunge Both\nSyncState *\n",
        tls = mbsync_tls_word()
    );
    let file = home.join("mbsyncrc");
    std::fs::write(&file, config)?;
    let sync = || {
        let mut mbsync = Command::new("mbsync");
        run(mbsync.arg("-c").arg(&file).arg("-a").env("HOME", home), "mbsync")
    };
    sync()?;
    let new = maildir.join("INBOX").join("new");
    let cur = maildir.join("INBOX").join("cur");
    let message = |dir: &Path| std::fs::read_dir(dir).ok().and_then(|mut all| all.next()?.ok());
    let found = message(&new).or_else(|| message(&cur)).context("mbsync fetched nothing")?;
    ensure!(
        std::fs::read_to_string(found.path())?.contains("example.test"),
        "mbsync: wrong message"
    );
    // The other way: a message put into the Maildir goes up, a flag set there too.
    std::fs::write(
        maildir.join("INBOX").join("cur").join("1.local.host:2,S"),
        "Subject: up\n\nup\n",
    )?;
    sync()?;
    let mut imap = tests::imap::Imap::login(&demo.at("f2", "imap")?, USER, PASSWORD)?;
    imap.ok("SELECT INBOX")?;
    let found = imap.ok("SEARCH SUBJECT up SEEN")?;
    ensure!(found[0].text.len() > "* SEARCH".len(), "mbsync: what went up is not there: {found:?}");
    Ok(())
}

fn sync_with_offlineimap(demo: &Demo, home: &Path) -> Result<()> {
    if !has_program("offlineimap") {
        return Ok(());
    }
    let (host, port) = split(&demo.at("f2", "imap")?)?;
    let maildir = home.join("offline");
    let config = home.join("offlineimaprc");
    let text = format!(
        "[general]\naccounts = all\nmetadata = {meta}\nui = basic\n[Account all]\n\
         localrepository = near\nremoterepository = far\n[Repository near]\ntype = Maildir\n\
         localfolders = {maildir}\n[Repository far]\ntype = IMAP\nremotehost = {host}\n\
         remoteport = {port}\nremoteuser = {USER}\nremotepass = {PASSWORD}\nssl = no\n\
         starttls = no\nauth_mechanisms = PLAIN\nusecompression = yes\n",
        meta = home.join("offline-meta").display(),
        maildir = maildir.display(),
    );
    std::fs::write(&config, text)?;
    let sync = || {
        let mut offlineimap = Command::new("timeout");
        offlineimap.args(["60", "offlineimap", "-o", "-c"]).arg(&config).env("HOME", home);
        run(&mut offlineimap, "offlineimap")
    };
    let said = sync()?;
    let inbox = maildir.join("INBOX");
    let all = |dir: &str| -> Vec<_> {
        std::fs::read_dir(inbox.join(dir)).into_iter().flatten().flatten().collect()
    };
    let entries = all("new").into_iter().chain(all("cur"));
    let mut texts = entries.filter_map(|entry| std::fs::read_to_string(entry.path()).ok());
    ensure!(texts.any(|text| text.contains(MARK)), "offlineimap fetched nothing: {said}");
    std::fs::write(inbox.join("cur").join("1.offline.host:2,S"), "Subject: later\n\nlater\n")?;
    sync()?;
    let mut imap = tests::imap::Imap::login(&demo.at("f1", "imap")?, USER, PASSWORD)?;
    imap.ok("SELECT INBOX")?;
    let found = imap.ok("SEARCH SUBJECT later SEEN")?;
    ensure!(found[0].text.len() > "* SEARCH".len(), "offlineimap put nothing up: {found:?}");
    Ok(())
}

/// isync 1.5 renamed SSLType to TLSType.
fn mbsync_tls_word() -> &'static str {
    let version = Command::new("mbsync").arg("--version").output();
    let said = version.map(|done| String::from_utf8_lossy(&done.stdout).into_owned());
    if said.is_ok_and(|text| text.contains(" 1.4")) { "SSLType" } else { "TLSType" }
}

/// It brings 128 messages in one APPEND.
fn sync_with_interimap(demo: &Demo, home: &Path) -> Result<()> {
    const N_MESSAGES: usize = 130;
    if !has_program("interimap") {
        return Ok(());
    }
    let message = |n: usize| format!("Subject: {n}\r\n\r\n{n}\r\n").into_bytes();
    let mut near = Imap::login(&demo.at("f1", "imap")?, "u0004@example.test", PASSWORD)?;
    (0..N_MESSAGES).try_for_each(|n| near.append("INBOX", &message(n)))?;
    let side = |name: &str, frontend: &str, user: &str| -> Result<String> {
        let (host, port) = split(&demo.at(frontend, "imaps")?)?;
        Ok(format!(
            "[{name}]\ntype = imaps\nhost = {host}\nport = {port}\nusername = {user}\n\
             password = {PASSWORD}\nSSL_verify = NO\n"
        ))
    };
    let local = side("local", "f1", "u0004@example.test")?;
    let remote = side("remote", "f2", "u0005@example.test")?;
    let config = home.join("interimap");
    let database = home.join("interimap.db");
    std::fs::write(&config, format!("database = {}\n{local}{remote}", database.display()))?;
    set_private(&config)?;
    let sync = || {
        let mut interimap = Command::new("interimap");
        interimap.arg(format!("--config={}", config.display())).env("HOME", home);
        run(&mut interimap, "interimap")
    };
    let said = sync()?;
    let mut far = Imap::login(&demo.at("f1", "imap")?, "u0005@example.test", PASSWORD)?;
    let says = |imap: &mut Imap, command: &str, words: &str| -> Result<()> {
        let all = imap.ok(command)?;
        ensure!(all.iter().any(|one| one.text.contains(words)), "interimap: {all:?} {said}");
        Ok(())
    };
    says(&mut far, "STATUS INBOX (MESSAGES)", &format!("MESSAGES {N_MESSAGES}"))?;
    far.ok("SELECT INBOX")?;
    far.ok("UID STORE 1:7 +FLAGS.SILENT (\\Flagged)")?;
    far.ok("UID MOVE 100:130 Archive")?;
    sync()?;
    near.ok("SELECT INBOX")?;
    says(&mut near, "UID SEARCH FLAGGED", "SEARCH 1 2 3 4 5 6 7")?;
    says(&mut near, "STATUS Archive (MESSAGES)", "MESSAGES 31")
}

fn read_with_mutt(demo: &Demo, home: &Path) -> Result<()> {
    if !has_program("mutt") {
        return Ok(());
    }
    let (host, port) = split(&demo.at("f2", "imap")?)?;
    let user = USER.replace('@', "%40");
    let copy = home.join("by-mutt");
    let config = home.join("muttrc");
    std::fs::write(
        &config,
        format!(
            "set imap_user={USER}\nset imap_pass={PASSWORD}\nset ssl_starttls=no\n\
             set ssl_force_tls=no\nset mbox_type=mbox\nset confirmcreate=no\nset confirmappend=no\n\
             set delete=no\nset quit=yes\nset copy=no\nset header_cache=\"\"\n\
             push \"<tag-pattern>~A<enter><tag-prefix><copy-message>{}<enter><exit>\"\n",
            copy.display()
        ),
    )?;
    let mut mutt = Command::new("mutt");
    mutt.arg("-n").arg("-F").arg(&config).arg("-R");
    mutt.args(["-f", &format!("imap://{user}@{host}:{port}/INBOX")]);
    mutt.env("TERM", "vt100").env("HOME", home);
    let wrapped = format!("{mutt:?}");
    // mutt wants a terminal: `script` gives it one.
    if !has_program("script") {
        return Ok(());
    }
    let mut bounded = Command::new("timeout");
    bounded.arg("30").arg("script").args(["-qec", &wrapped, "/dev/null"]);
    bounded.env("TERM", "vt100").env("HOME", home);
    let said = bounded.stdin(Stdio::null()).output()?;
    let copied = std::fs::read_to_string(&copy).unwrap_or_default();
    ensure!(
        copied.contains(MARK),
        "mutt copied nothing: {}",
        String::from_utf8_lossy(&said.stdout)
    );
    Ok(())
}

fn fetch_with_fetchmail(demo: &Demo, home: &Path) -> Result<()> {
    if !has_program("fetchmail") {
        return Ok(());
    }
    let (host, port) = split(&demo.at("f1", "pop3")?)?;
    let copy = home.join("by-fetchmail");
    let config = home.join("fetchmailrc");
    std::fs::write(
        &config,
        format!(
            "poll {host} protocol POP3 port {port} uidl\n user \"{USER}\" password \"{PASSWORD}\" \
             sslproto \"\" keep fetchall no rewrite mda \"cat >>{}\"\n",
            copy.display()
        ),
    )?;
    set_private(&config)?;
    let mut fetchmail = Command::new("fetchmail");
    fetchmail.arg("-f").arg(&config).arg("-v").env("HOME", home).env("FETCHMAILHOME", home);
    let said = run(&mut fetchmail, "fetchmail")?;
    let copied = std::fs::read_to_string(&copy).unwrap_or_default();
    ensure!(copied.contains(MARK), "fetchmail: {said}");
    Ok(())
}

fn fetch_with_mpop(demo: &Demo, home: &Path) -> Result<()> {
    if !has_program("mpop") {
        return Ok(());
    }
    let (host, port) = split(&demo.at("f2", "pop3")?)?;
    let config = home.join("mpoprc");
    let copy = home.join("by-mpop");
    std::fs::write(
        &config,
        format!(
            "account default\nhost {host}\nport {port}\nuser {USER}\npassword {PASSWORD}\ntls off\n\
             auth user\nkeep on\nreceived_header off\nuidls_file {}\ndelivery mbox {}\n",
            home.join("uidls").display(),
            copy.display()
        ),
    )?;
    set_private(&config)?;
    let said = run(Command::new("mpop").arg("-C").arg(&config).env("HOME", home), "mpop")?;
    let copied = std::fs::read_to_string(&copy).unwrap_or_default();
    ensure!(copied.contains(MARK), "mpop: {said}");
    Ok(())
}

fn run(command: &mut Command, what: &str) -> Result<String> {
    let done = command.stdin(Stdio::null()).output().with_context(|| format!("run {what}"))?;
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    if !done.status.success() {
        bail!("{what}: {}\n{said}\n{}", done.status, String::from_utf8_lossy(&done.stderr));
    }
    Ok(said)
}

fn split(address: &str) -> Result<(String, String)> {
    let (host, port) = address.rsplit_once(':').context("no port")?;
    Ok((host.to_owned(), port.to_owned()))
}

fn set_private(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?)
}
