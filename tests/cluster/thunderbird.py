"""Thunderbird as its user drives it: argv is the demo's cluster.json, the rookery binary, and an empty
directory for profile and log. It has no screen; Marionette tells it what to do, in its own language."""

import email.message, email.policy, imaplib, json, os, re, signal, smtplib, socket, socketserver, ssl
import subprocess, sys, threading, time

CLUSTER, ROOKERY, HOME = sys.argv[1:4]
USER, OTHER, PASSWORD = "u0001@example.test", "u0002@example.test", "secret"
BLOB = bytes(range(256)) * 2400
# Thunderbird takes some seconds to start on a busy core; what it does then is there within one.
START, PATIENCE = 90, 40
# For everything: half a minute where nothing else runs, two thirds of it the two starts.
DEADLINE = 600
LOG = HOME + "/imap.moz_log"
PREFERENCES = {
    "app.update.enabled": False,
    "browser.safebrowsing.phishing.enabled": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "extensions.getAddons.cache.enabled": False,
    "extensions.systemAddon.update.enabled": False,
    "extensions.update.enabled": False,
    "mail.biff.play_sound": False,
    "mail.biff.show_alert": False,
    "mail.inappnotifications.enabled": False,
    "mail.provider.suppress_dialog_on_startup": True,
    "mail.rights.version": 1,
    "mail.server.default.use_condstore": True,
    "mail.shell.checkDefaultClient": False,
    "mailnews.confirm.moveFoldersToTrash": False,
    "mailnews.start_page.enabled": False,
    "mailnews.start_page_override.mstone": "ignore",
    # Nothing of it may ask the world, which a proxy that nobody serves sees to.
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "network.proxy.http": "127.0.0.1",
    "network.proxy.http_port": 9,
    "network.proxy.ssl": "127.0.0.1",
    "network.proxy.ssl_port": 9,
    "network.proxy.type": 1,
    "network.trr.mode": 5,
    "services.settings.server": "data:,#remote-settings-dummy/v1",
    "toolkit.telemetry.server": "data:,",
}
# What every step knows. A step is the body of an async function in Thunderbird's own process.
PRELUDE = """
const use = (path, base = "modules") => ChromeUtils.importESModule(`resource:///${base}/${path}.sys.mjs`);
const { MailServices } = use("MailServices");
const { setTimeout } = ChromeUtils.importESModule("resource://gre/modules/Timer.sys.mjs");
const sleep = ms => new Promise(done => setTimeout(done, ms));
const until = async (what, holds) => {
  for (const end = Date.now() + PATIENCE * 1000; ; await sleep(20)) {
    const value = await holds();
    if (value) return value;
    if (Date.now() > end) throw new Error("not in time: " + (typeof what == "string" ? what : what()));
  }
};
const ended = (done, failed) => (...said) => {
  const status = said.pop();
  status ? failed(new Error(`status ${status.toString(16)}`)) : done();
};
const url = begin => new Promise((done, failed) => begin({
  QueryInterface: ChromeUtils.generateQI(["nsIUrlListener"]),
  OnStartRunningUrl() {}, OnStopRunningUrl: ended(done, failed),
}));
const copied = begin => new Promise((done, failed) => begin({
  QueryInterface: ChromeUtils.generateQI(["nsIMsgCopyServiceListener"]),
  onStartCopy() {}, onProgress() {}, setMessageKey() {}, getMessageId() {}, onStopCopy: ended(done, failed),
}));
const main = () => Services.wm.getMostRecentWindow("mail:3pane");
const server = type => MailServices.accounts.accounts.map(a => a.incomingServer).find(s => s.type == type);
const root = () => server("imap").rootFolder;
const folder = path => path.split("/").reduce((parent, name) => parent.getChildNamed(name), root());
const subjects = f => [...f.messages].map(m => m.mime2DecodedSubject).sort();
const find = (f, subject) => [...f.messages].find(m => m.mime2DecodedSubject == subject);
const arrived = (f, subject) =>
  until(() => `${subject} in ${f.name}: ${subjects(f)}`, () => find(f, subject));
const bodies = f => [...f.messages].every(m => m.flags & Ci.nsMsgMessageFlags.Offline);
const update = f => f.updateFolder(main().msgWindow);
const show = async f => {
  const pane = await until("window", () => main()?.document.getElementById("tabmail")?.currentAbout3Pane);
  pane.displayFolder(f);
  await until(() => `view of ${f.name}`, () => pane.gDBView && pane.gFolder == f);
  return pane;
};
const open = async m => {
  const pane = await show(m.folder);
  await until("row", () => (pane.threadTree.selectedIndex = pane.gDBView.findIndexOfMsgHdr(m, true)) >= 0);
  return until("message", () => {
    const about = main().document.getElementById("tabmail").currentAboutMessage;
    return about?.gMessage == m && about.msgLoaded && about;
  });
};
""".replace("PATIENCE", str(PATIENCE))


class Bird:
    """One Thunderbird; Marionette's protocol is JSON with its length in front."""

    def __init__(self):
        os.makedirs(HOME + "/profile", exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with open(HOME + "/profile/user.js", "w") as file:
            for name, value in (PREFERENCES | {"marionette.port": port}).items():
                file.write(f"user_pref({json.dumps(name)}, {json.dumps(value)});\n")
        log = {"MOZ_LOG": "sync,append,IMAP:4", "MOZ_LOG_FILE": LOG.removesuffix(".moz_log")}
        command = ["thunderbird", "--headless", "--marionette", "-remote-allow-system-access", "--no-remote"]
        with open(HOME + "/out", "a") as out:
            self.process = subprocess.Popen(
                command + ["-profile", HOME + "/profile"], env=os.environ | {"HOME": HOME} | log,
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
        self.n, self.buffer = 0, b""
        self.socket = within(START, lambda: socket.create_connection(("127.0.0.1", port), 1))
        self.socket.settimeout(START)
        self.receive()
        self.call("WebDriver:NewSession", {"capabilities": {"alwaysMatch": {}}})
        self.call("Marionette:SetContext", {"value": "chrome"})
        self.call("WebDriver:SetTimeouts", {"script": START * 1000})

    def more(self):
        octets = self.socket.recv(1 << 16)
        check(octets, "Thunderbird is gone", "")
        self.buffer += octets

    def receive(self):
        while b":" not in self.buffer:
            self.more()
        length, self.buffer = self.buffer.split(b":", 1)
        while len(self.buffer) < int(length):
            self.more()
        said, self.buffer = self.buffer[: int(length)], self.buffer[int(length) :]
        return json.loads(said)

    def call(self, name, parameters):
        self.n += 1
        said = json.dumps([0, self.n, name, parameters]).encode()
        self.socket.sendall(b"%d:" % len(said) + said)
        _, _, error, result = self.receive()
        check(not error, name, error)
        return result.get("value") if isinstance(result, dict) else result

    def does(self, step, **known):
        begin = time.time()
        known = "".join(f"const {name} = {json.dumps(value)};\n" for name, value in known.items())
        script = f"{PRELUDE}{known}return (async () => {{{step}\n}})();"
        try:
            return self.call("WebDriver:ExecuteScript", {"script": script, "sandbox": "system"})
        finally:
            if os.environ.get("ROOKERY_THUNDERBIRD_TIMES"):
                print(f"{time.time() - begin:6.2f} s  {step.strip().splitlines()[0]}", flush=True)

    def leaves(self):
        self.call("Marionette:Quit", {"flags": ["eForceQuit"]})
        self.process.wait(START)

    def ends(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class Mta(socketserver.ThreadingTCPServer):
    """Takes what Thunderbird sends."""

    daemon_threads = True

    class Talk(socketserver.StreamRequestHandler):
        def handle(self):
            say = lambda line: self.wfile.write(line + b"\r\n")
            say(b"220 here")
            for line in self.rfile:
                word = line[:4].upper()
                if word == b"DATA":
                    say(b"354 go on")
                    self.server.mails.append(b"".join(iter(self.rfile.readline, b".\r\n")))
                say({b"EHLO": b"250-here\r\n250 8BITMIME", b"QUIT": b"221 bye"}.get(word, b"250 well"))

    def __init__(self):
        self.mails = []
        super().__init__(("127.0.0.1", 0), self.Talk)
        threading.Thread(target=self.serve_forever, daemon=True).start()


def check(is_right, what, said):
    if not is_right:
        sys.exit(f"{what}: {str(said)[:3000]}")


def within(seconds, attempt):
    end = time.time() + seconds
    while True:
        try:
            return attempt()
        except (OSError, imaplib.IMAP4.error):
            if time.time() > end:
                raise
            time.sleep(0.05)


def eventually(what, look, holds):
    end = time.time() + PATIENCE
    while not holds(found := look()):
        check(time.time() < end, what, found)
        time.sleep(0.05)


def cluster():
    with open(CLUSTER) as file:
        return json.load(file)


def process(name):
    return next(process for process in cluster()["processes"] if process["name"] == name)


def at(name, port):
    return "localhost", process(name)["ports"][port]


def ctl(*arguments):
    command = [ROOKERY, "ctl", "--cluster", CLUSTER, *arguments]
    return subprocess.run(command, check=True, capture_output=True).stdout


def mail(subject, blob=None):
    message = email.message.EmailMessage(policy=email.policy.SMTP)
    message["From"], message["To"], message["Subject"] = "Bücher <j@example.test>", USER, subject
    message["Date"] = "Mon, 15 Jan 2024 10:00:00 +0100"
    message["Message-ID"] = f"<{time.time_ns()}@example.test>"
    message.set_content(f"Hallo Wörld\n.\n..{subject}\n")
    if blob:
        message.add_attachment(blob, maintype="application", subtype="x-blob", filename="Bericht ä.bin")
    return message.as_bytes()


def deliver(octets, to=USER, frontend="f2"):
    with smtplib.LMTP("127.0.0.1", at(frontend, "lmtp")[1]) as lmtp:
        lmtp.sendmail("j@example.test", [to], octets)


def other_device():
    context = ssl.create_default_context(cafile=cluster()["ca"])
    imap = imaplib.IMAP4_SSL(*at("f2", "imaps"), ssl_context=context, timeout=PATIENCE)
    imap.login(USER, PASSWORD)
    imap.select("INBOX")
    return imap


def text():
    with open(LOG, encoding="utf-8", errors="replace", newline="\n") as file:
        return file.read().replace("\r", "")


def log():
    """What both sides said."""
    return [line.rstrip() for line in re.findall(r":(?:SendData|CreateNewLineFromSocket): (.*)", text())]


def set_up(bird, mta):
    with open(cluster()["ca"]) as file:
        ca = "".join(line.strip() for line in file if "-----" not in line)
    bird.does("""  // trust
Cc["@mozilla.org/security/x509certdb;1"].getService(Ci.nsIX509CertDB).addCertFromBase64(ca, "CT,,");
main().alerts = [];
MailServices.mailSession.addUserFeedbackListener({
  QueryInterface: ChromeUtils.generateQI(["nsIMsgUserFeedbackListener"]),
  onAlert: said => Boolean(main().alerts.push(said)), onCertError() {},
});""", ca=ca)
    guess = """  // account
const { AccountConfig } = use("accountcreation/AccountConfig");
const { GuessConfig } = use("accountcreation/GuessConfig");
const { ConfigVerifier } = use("accountcreation/ConfigVerifier");
const { CreateInBackend } = use("accountcreation/CreateInBackend");
const { signal } = new AbortController();
let config = new AccountConfig();
Object.assign(config.incoming, { type, hostname: "localhost", port, username: user, password });
Object.assign(config.identity, { emailAddress: user, realname: "Jörg Ü" });
if (type == "imap") await GuessConfig.guessConfig("localhost", () => {}, config, "incoming", signal);
else Object.assign(config.incoming, { socketType: 3, auth: 3 });
Object.assign(config.outgoing, { type: "smtp", hostname: "localhost", port: mta, socketType: 0, auth: 1 });
config.outgoing.addThisServer = config.rememberPassword = true;
await new ConfigVerifier(main().msgWindow, signal).verifyConfig(config);
await CreateInBackend.createAccountInBackend(config);
return [config.incoming.socketType, config.incoming.auth];
"""
    # 2 is STARTTLS, 3 is TLS; the other 3 is a password as it is. It finds that out by itself, which takes it
    # ten seconds with POP3, where it waits for an answer to what no such port understands.
    known = {"password": PASSWORD, "mta": mta.server_address[1]}
    found = bird.does(guess, type="pop3", port=at("f2", "pop3s")[1], user=OTHER, **known)
    check(found == [3, 3], "POP3", found)
    found = bird.does(guess, type="imap", port=at("f1", "imap")[1], user=USER, **known)
    check(found == [2, 3], "IMAP", found)
    flags = bird.does("""  // folders
const imap = MailServices.accounts.accounts.find(a => a.incomingServer.type == "imap");
MailServices.accounts.defaultAccount = imap;
await url(l => folder("INBOX").getNewMessages(main().msgWindow, l));
await until("folders", () => root().containsChildNamed("Trash"));
folder("Archive").clearFlag(Ci.nsMsgFolderFlags.Offline);
await show(folder("INBOX"));
const flags = Ci.nsMsgFolderFlags;
return Object.fromEntries(["Archive", "Drafts", "Junk", "SentMail", "Trash"]
  .map(flag => [flag, root().getFolderWithFlags(flags[flag])?.name]));""")
    want = {name: name for name in ("Archive", "Drafts", "Junk", "Trash")} | {"SentMail": "Sent"}
    check(flags == want, "special use", flags)


def read(bird, device):
    seen = bird.does("""  // read
const inbox = folder("INBOX");
await arrived(inbox, "Betreff 8 älter");
await until("bodies", () => bodies(inbox));
const about = await open(await arrived(inbox, "mit Anhang"));
const attachment = await until("attachment", () => about.currentAttachments?.[0]);
return [about.document.getElementById("messagepane").contentDocument.body.textContent, attachment.name,
  attachment.size, inbox.getTotalMessages(false)];""")
    check("Hallo Wörld" in seen[0] and seen[1:] == ["Bericht ä.bin", len(BLOB), 9], "read", seen)
    device.append("Archive", "(\\Seen)", None, mail("in Stücken", BLOB))
    size = bird.does("""  // attachment in pieces
const { NetUtil } = ChromeUtils.importESModule("resource://gre/modules/NetUtil.sys.mjs");
await show(folder("Archive"));
const about = await open(await arrived(folder("Archive"), "in Stücken"));
const attachment = await until("attachment", () => about.currentAttachments?.[0]);
const uri = Services.io.newURI(attachment.url);
const octets = await new Promise((done, failed) => NetUtil.asyncFetch({ uri, loadUsingSystemPrincipal: true },
  (stream, status) => status ? failed(new Error(status.toString(16)))
    : done(NetUtil.readInputStream(stream, stream.available()))));
return [octets.byteLength, [...new Uint8Array(octets)].every((octet, k) => octet == k % 256)];""")
    check(size == [len(BLOB), True], "attachment", size)
    check(any("BODY[]<0." in line for line in log()), "in pieces", log()[-20:])


def send(bird, mta):
    bird.does("""  // draft, and send
const of = (contract, type) => Cc[`@mozilla.org/messengercompose/${contract};1`].createInstance(type);
const fields = of("composefields", Ci.nsIMsgCompFields);
Object.assign(fields, { to: "x@example.test", subject: "Gesendet ü", body: "<p>Grüße</p>" });
const params = of("composeparams", Ci.nsIMsgComposeParams);
const identity = MailServices.accounts.defaultAccount.defaultIdentity;
Object.assign(params, { composeFields: fields, identity, format: Ci.nsIMsgCompFormat.HTML });
MailServices.compose.OpenComposeWindowWithParams(null, params);
const compose = await until("compose", () => Services.wm.getMostRecentWindow("msgcompose"));
await until("ready", () => compose.gMsgCompose && compose.composeEditorReady);
compose.goDoCommand("cmd_saveAsDraft");
await arrived(folder("Drafts"), "Gesendet ü");
compose.GenericSendMessage(Ci.nsIMsgCompDeliverMode.Now);
await until("sent", () => compose.closed);
update(folder("Sent"));
await arrived(folder("Sent"), "Gesendet ü");
await until("no draft", () => !subjects(folder("Drafts")).length);""")
    check(len(mta.mails) == 1 and b"x@example.test" in mta.mails[0], "sent", mta.mails)


def change(bird, device):
    def flags():
        device.noop()
        said = device.uid("FETCH", "1:*", "(FLAGS)")[1]
        return {int(uid): set(found.split()) - {"\\Recent"}
                for uid, found in re.findall(r"UID (\d+) FLAGS \((.*?)\)", str(said).replace("\\\\", "\\"))}

    told = lambda what, holds: eventually(what, flags, holds)
    bird.does("""  // flags and tags
const inbox = folder("INBOX"), [one, two, three] = [1, 2, 3].map(n => find(inbox, `Betreff ${n} älter`));
inbox.markMessagesFlagged([one], true);
inbox.markMessagesRead([two], true);
MailServices.tags.addTagForKey("wichtig", "Wichtig", "#ff0000", "");
inbox.addKeywordsToMessages([two, three], "wichtig");
inbox.addKeywordsToMessages([two, three], "$label1");
inbox.removeKeywordsFromMessages([three], "$label1");""")
    told("flags", lambda now: [now[k] for k in (1, 2, 3)]
         == [{"\\Flagged"}, {"\\Seen", "wichtig", "$label1"}, {"wichtig"}])
    device.uid("STORE", "4", "+FLAGS", "(\\Flagged $label2)")
    device.uid("STORE", "2", "-FLAGS", "(\\Seen wichtig)")
    bird.does("""  // flags of another device
await show(folder("INBOX"));
const [two, four] = [2, 4].map(n => find(folder("INBOX"), `Betreff ${n} älter`));
await until("flags", () => four.isFlagged && four.getStringProperty("keywords") == "$label2"
  && !two.isRead && two.getStringProperty("keywords") == "$label1");""")
    inner = 'Unter "ß" \\ 日本'
    bird.does("""  // folders
root().createSubfolder("Projekte & Ümläute", main().msgWindow);
await until("created", () => root().containsChildNamed("Projekte & Ümläute"));
folder("Projekte & Ümläute").createSubfolder(inner, main().msgWindow);
await until("created", () => folder("Projekte & Ümläute").containsChildNamed(inner));
folder("Projekte & Ümläute").rename("100% *neu", main().msgWindow);
await until("renamed", () => root().containsChildNamed("100% *neu"));
const there = folder("100% *neu").getChildNamed(inner), one = find(folder("INBOX"), "Betreff 1 älter");
await copied(l =>
  MailServices.copy.copyMessages(one.folder, [one], there, false, l, main().msgWindow, false));
update(there);
await arrived(there, "Betreff 1 älter");""", inner=inner)
    # It tells the server later of what it moved, and never of a second move that does not wait for that.
    bird.does("""  // move
const there = folder("100% *neu").getChildNamed(inner), inbox = folder("INBOX");
const two = [2, 3].map(n => find(inbox, `Betreff ${n} älter`));
await copied(l => MailServices.copy.copyMessages(inbox, two, there, true, l, main().msgWindow, false));
""", inner=inner)
    told("moved", lambda now: not {2, 3} & set(now))
    bird.does("""  // delete
const inbox = folder("INBOX"), two = [4, 5].map(n => find(inbox, `Betreff ${n} älter`));
await copied(l => inbox.deleteMessages(two, main().msgWindow, false, false, l, false));""")
    told("deleted", lambda now: not {4, 5} & set(now))
    bird.does("""  // archive
const { MessageArchiver } = use("MessageArchiver");
const archiver = new MessageArchiver();
const done = new Promise(done => archiver.oncomplete = done);
archiver.archiveMessages([find(folder("INBOX"), "Betreff 6 älter")]);
await done;""")
    told("archived", lambda now: 6 not in now)
    count = lambda name: re.search(rb"MESSAGES (\d+)", device.status(name, "(MESSAGES)")[1][0]).group(1)
    check(count("Trash") == b"2", "Trash", count("Trash"))
    check(count("Archive/2024") == b"1", "Archive", device.list())
    check(count('"100% *neu/Unter \\"&AN8-\\" \\\\ &ZeVnLA-"') == b"3", "moved", device.list())
    bird.does("""  // delete a folder, and empty Trash
const trash = folder("Trash");
update(trash);
await arrived(trash, "Betreff 5 älter");
folder("100% *neu").deleteSelf(main().msgWindow);
await until("in Trash", () => trash.containsChildNamed("100% *neu"));
await url(l => trash.emptyTrash(l));""")
    eventually("emptied", lambda: (str(device.list()), count("Trash")),
               lambda now: "neu" not in now[0] and now[1] == b"0")


def look(bird):
    ctl("account", "quota", USER, "--storage-bytes", "20480000", "--messages", "1000")
    found = bird.does("""  // search, and quota
const inbox = folder("INBOX"), A = Ci.nsMsgSearchAttrib, O = Ci.nsMsgSearchOp;
const search = async (attrib, op, text) => {
  const session = Cc["@mozilla.org/messenger/searchSession;1"].createInstance(Ci.nsIMsgSearchSession);
  session.addScopeTerm(Ci.nsMsgSearchScope.onlineMail, inbox);
  const term = session.createTerm(), value = term.value;
  value.attrib = attrib;
  value.str = text;
  Object.assign(term, { attrib, op, value, booleanAnd: true });
  session.appendTerm(term);
  const hits = [];
  await new Promise((done, failed) => {
    session.registerListener({ onNewSearch() {}, onSearchHit: m => hits.push(m.mime2DecodedSubject),
      onSearchDone: ended(done, failed) });
    session.search(main().msgWindow);
  });
  return hits.length;
};
const quota = await until("quota", async () => {
  update(inbox);
  await sleep(200);
  return inbox.QueryInterface(Ci.nsIMsgImapMailFolder).getQuota().map(q => [q.name, q.limit]).sort();
});
const odd = 'a "b\\\\c';
return [await search(A.Subject, O.Contains, "älter"), await search(A.Body, O.Contains, "..Betreff 8"),
  await search(A.Sender, O.DoesntContain, "Bücher"), await search(A.Body, O.Contains, odd), quota];""")
    check(found[:4] == [3, 1, 0, 0], "search", found)
    check([limit for _, limit in found[4]] == [1000, 20000], "quota", found)


def push(bird, subject):
    """What arrives while it idles is told. What another command's response tells it leaves for later."""
    bird.does("""  // idle
await show(folder("INBOX"));""")
    inbox = lambda: re.findall(r":S-INBOX:(?:SendData|CreateNewLineFromSocket): (.*)", text())
    # It may be told again of what came before.
    others = lambda said: [line for line in said if not line.endswith(" EXISTS")]
    eventually("idle", inbox, lambda said: others(said)[-1:] == ["+ idling"])
    deliver(mail(subject))
    bird.does("""  // push
await arrived(folder("INBOX"), subject);
await until("bodies", () => bodies(folder("INBOX")));""", subject=subject)


def hurt(bird, device):
    """The leader of the only shard dies, then the frontend that Thunderbird talks to."""
    status = json.loads(ctl("cluster", "status", "--json"))
    leader = next(shard["leader"] for shard in status["shards"] if shard["shard"])
    os.kill(process(leader)["pid"], signal.SIGKILL)
    bird.does("""  // the leader dies
const inbox = folder("INBOX"), m = find(inbox, "Betreff 7 älter");
inbox.markMessagesFlagged([m], true);
inbox.addKeywordsToMessages([m], "danach");""")
    eventually("flag while the leader dies", lambda: device.uid("FETCH", "7", "(FLAGS)")[1][0] or b"",
               lambda said: b"danach" in said and b"Flagged" in said)
    push(bird, "danach")
    # Bodies are here before that: those it was refused it asks for much later.
    os.kill(process("f1")["pid"], signal.SIGKILL)
    deliver(mail("ohne f1"))
    for name in "f1", leader:
        subprocess.run([ROOKERY, "demo", "start", name, "--dir", os.path.dirname(CLUSTER)], check=True,
                       capture_output=True)
    within(PATIENCE, lambda: imaplib.IMAP4(*at("f1", "imap")).logout())
    bird.does("""  // the frontend is there again
await until("new mail", async () => {
  update(folder("INBOX"));
  await sleep(300);
  return find(folder("INBOX"), "ohne f1");
});
await until("bodies", () => bodies(folder("INBOX")));""")


def come_back(device):
    """A second start asks for what changed, and for no body that is there."""
    device.uid("STORE", "8", "+FLAGS", "(\\Flagged $label3)")
    device.uid("STORE", "7", "+FLAGS", "\\Deleted")
    device.expunge()
    deliver(mail("inzwischen"))
    before = len(log())
    bird = Bird()
    try:
        bird.does("""  // second start
const inbox = folder("INBOX");
await show(inbox);
await arrived(inbox, "inzwischen");
const eight = find(inbox, "Betreff 8 älter");
await until("flags", () => eight.isFlagged && eight.getStringProperty("keywords").includes("$label3"));
await until("expunged", () => !find(inbox, "Betreff 7 älter"));
await until("bodies", () => bodies(inbox));""")
        said = log()[before:]
        fetched = [line for line in said if re.search(r"UID fetch .*BODY(\.PEEK)?\[\]", line)]
        check(len(fetched) == 1, "bodies fetched again", said)
        drain(bird)
        bird.leaves()
    finally:
        bird.ends()


def drain(bird):
    """POP3: what stays on the server comes once, and what is deleted here goes there."""
    get = """  // POP3
const pop = server("pop3").QueryInterface(Ci.nsIPop3IncomingServer);
const inbox = pop.rootFolder.getChildNamed("Inbox");
pop.leaveMessagesOnServer = pop.deleteMailLeftOnServer = true;
await url(l => MailServices.pop3.GetNewMail(main().msgWindow, l, inbox, pop));
"""
    for _ in range(2):
        found = bird.does(get + "return subjects(inbox);")
        check(found == ["Pop 1", "Pop 2", "Pop 3"], "POP3", found)
    shown = bird.does(get + """
const about = await open(find(inbox, "Pop 2"));
const text = about.document.getElementById("messagepane").contentDocument.body.textContent;
await copied(l => inbox.deleteMessages([find(inbox, "Pop 1")], main().msgWindow, true, false, l, false));
await url(l => MailServices.pop3.GetNewMail(main().msgWindow, l, inbox, pop));
return [text, about.currentAttachments?.[0]?.size];""")
    check("Hallo Wörld\n.\n..Pop 2" in shown[0] and shown[1] == len(BLOB), "POP3", shown)
    context = ssl.create_default_context(cafile=cluster()["ca"])
    with imaplib.IMAP4_SSL(*at("f1", "imaps"), ssl_context=context) as imap:
        imap.login(OTHER, PASSWORD)
        left = imap.select("INBOX")[1]
    check(left == [b"2"], "left on the server", left)


def main():
    def too_late(*_):
        sys.exit(f"not within {DEADLINE} s")

    signal.signal(signal.SIGALRM, too_late)
    signal.alarm(DEADLINE)
    for n in range(1, 9):
        deliver(mail(f"Betreff {n} älter"), frontend="f1" if n % 2 else "f2")
    deliver(mail("mit Anhang", BLOB))
    for n in range(1, 4):
        deliver(mail(f"Pop {n}", BLOB if n == 2 else None), OTHER)
    mta, bird = Mta(), Bird()
    try:
        device = other_device()
        set_up(bird, mta)
        read(bird, device)
        send(bird, mta)
        change(bird, device)
        look(bird)
        push(bird, "neue Post")
        alerts = bird.does("return main().alerts;")
        check(not alerts, "Thunderbird tells its user", alerts)
        hurt(bird, device)
        bird.leaves()
    finally:
        bird.ends()
    come_back(device)
    said = log()
    check(any("OK compressed" in line for line in said), "COMPRESS", said[:30])
    check(any("CHANGEDSINCE" in line for line in said), "CONDSTORE", said)
    odd = [line for line in said if re.match(r"(\d+|\*) (NO|BAD)\b", line)]
    check(not odd, "refused", odd)


main()
