"""Roundcube as a browser drives it: argv is IMAP host:port, LMTP host:port, CA file, user, password, and a
directory for its configuration. Served by PHP's own web server."""

import email.mime.application, email.mime.multipart, email.mime.text, http.cookiejar, json, os, re, socket
import sqlite3, smtplib, subprocess, sys, time, urllib.error, urllib.parse, urllib.request

IMAP, LMTP, CA, USER, PASSWORD, HOME = sys.argv[1:7]
ROUNDCUBE = "/var/lib/roundcube"
BLOB = bytes(range(256)) * 400


def configure():
    os.makedirs(HOME + "/temp", exist_ok=True)
    os.makedirs(HOME + "/logs", exist_ok=True)
    for name in ("defaults.inc.php", "mimetypes.php"):
        with open("/etc/roundcube/" + name) as there, open(f"{HOME}/{name}", "w") as here:
            here.write(there.read())
    with open(HOME + "/config.inc.php", "w") as file:
        file.write(f"""<?php
$config['db_dsnw'] = 'sqlite:///{HOME}/db?mode=0600';
$config['imap_host'] = 'tls://{IMAP}';
$config['imap_conn_options'] = ['ssl' => ['cafile' => '{CA}', 'verify_peer_name' => false]];
$config['des_key'] = 'a key of twenty-four by!';
$config['temp_dir'] = '{HOME}/temp';
$config['log_dir'] = '{HOME}/logs';
$config['log_driver'] = 'file';
$config['imap_debug'] = true;
$config['messages_cache'] = 'db';
$config['create_default_folders'] = true;
$config['plugins'] = [];
""")
    with open("/usr/share/roundcube/SQL/sqlite.initial.sql") as schema:
        with sqlite3.connect(HOME + "/db") as db:
            db.executescript(schema.read())


class Browser:
    def __init__(self, port):
        cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self.opener, self.port, self.token = urllib.request.build_opener(cookies), port, ""

    def get(self, query, form=None):
        data = None if form is None else urllib.parse.urlencode(form).encode()
        url = f"http://127.0.0.1:{self.port}/?" + urllib.parse.urlencode(query)
        header = {"X-Roundcube-Request": self.token}
        with self.opener.open(urllib.request.Request(url, data, header), timeout=30) as page:
            return page.read()

    def page(self, query, form=None):
        return self.get(query, form).decode("utf-8", "replace")

    def login(self):
        token = lambda page: re.search(r'"request_token":"([^"]+)"', page).group(1)
        self.token = token(self.page({"_task": "login"}))
        form = {"_token": self.token, "_task": "login", "_action": "login", "_user": USER, "_pass": PASSWORD}
        page = self.page({"_task": "login"}, form)
        check('"task":"mail"' in page, "login", page)
        self.token = token(page)
        for name in ("Drafts", "Sent", "Junk", "Trash"):
            check(f'"{name}"' in page, name, page)

    def ajax(self, task, action, form=None, **query):
        query = {"_task": task, "_action": action, "_remote": 1} | {f"_{k}": v for k, v in query.items()}
        if form is not None:
            form = {"_token": self.token, "_remote": 1} | {f"_{k}": v for k, v in form.items()}
        said = json.loads(self.get(query, form))
        check('"error"' not in said.get("exec", ""), action, said)
        return said

    def rows(self, mailbox, action="list", **query):
        """UIDs in the order they are shown in, and the text about them."""
        said = self.ajax("mail", action, mbox=mailbox, **query)["exec"]
        return re.findall(r'add_message_row\("?(\d+)', said), said

    def form(self, task, action, **form):
        form = {"_token": self.token, "_framed": 1} | {f"_{k}": v for k, v in form.items()}
        page = self.page({"_task": task, "_action": action}, form)
        check('"confirmation"' in page, action, page)
        return page


def check(is_right, what, said):
    if not is_right:
        sys.exit(f"{what}: {str(said)[:2000]}")


def deliver(n, subject):
    message = email.mime.multipart.MIMEMultipart()
    message["From"], message["To"], message["Subject"] = "Bücher <j@example.test>", USER, subject
    message["Date"], message["Message-ID"] = f"Mon, {n} Jan 2024 10:00:00 +0100", f"<{n}@example.test>"
    message.attach(email.mime.text.MIMEText(f"Hallo Wörld {n}\n", "plain", "utf-8"))
    attachment = email.mime.application.MIMEApplication(BLOB)
    attachment.add_header("Content-Disposition", "attachment", filename=("utf-8", "", "Bericht ä.bin"))
    message.attach(attachment)
    host, port = LMTP.rsplit(":", 1)
    with smtplib.LMTP(host, int(port)) as lmtp:
        lmtp.sendmail("j@example.test", [USER], message.as_bytes().replace(b"\n", b"\r\n"))


def read(browser):
    newest_first, said = browser.rows("INBOX", sort="date_DESC")
    check(newest_first == list("87654321") and "Betreff 8 älter" in said, "by date", said)
    check(browser.rows("INBOX", sort="subject_ASC")[0] == list("12345678"), "by subject", said)
    threads, said = browser.rows("INBOX", threads=1)
    check(len(threads) == 8, "threads", said)
    page = browser.page({"_task": "mail", "_action": "show", "_uid": 8, "_mbox": "INBOX"})
    check("Hallo W" in page and "Bericht" in page, "show", page)
    part = {"_task": "mail", "_action": "get", "_mbox": "INBOX", "_uid": 8, "_part": 2}
    octets = browser.get(part | {"_download": 1, "_token": browser.token})
    check(octets == BLOB, "attachment", octets[:100])
    for text, where, uids in [
        ("Betreff 3", "subject", ["3"]),
        ("älter", "subject", list("12345678")),
        ("Wörld 4", "text", ["4"]),
        ("j@example", "from", list("12345678")),
        ("nobody", "from", []),
    ]:
        found, said = browser.rows("INBOX", "search", q=text, headers=where, scope="base")
        check(sorted(found) == uids, f"search {text}", said)


def change(browser):
    for flag in ("flagged", "unread", "read"):
        browser.ajax("mail", "mark", {"uid": "7", "mbox": "INBOX", "flag": flag})
    said = browser.rows("INBOX")[1]
    check(re.search(r"add_message_row\(7,.*?\"flagged\":1", said), "flagged", said)
    browser.form("settings", "save-folder", name="Projekte & Ümläute", parent="", mbox="")
    folder = "Projekte &- &ANw-ml&AOQ-ute"
    browser.ajax("mail", "move", {"uid": "1,2", "mbox": "INBOX", "target_mbox": folder})
    browser.ajax("mail", "copy", {"uid": "3", "mbox": "INBOX", "target_mbox": folder})
    check(len(browser.rows(folder)[0]) == 3, "moved and copied", browser.rows(folder))
    browser.form("settings", "save-folder", name="Neu", parent="", mbox=folder)
    check(len(browser.rows("Neu")[0]) == 3, "renamed", browser.rows("Neu"))
    browser.ajax("mail", "move", {"uid": "4,5", "mbox": "INBOX", "target_mbox": "Trash"})
    check(len(browser.rows("Trash")[0]) == 2, "deleted", browser.rows("Trash"))
    browser.ajax("mail", "purge", {"mbox": "Trash"})
    check(browser.rows("Trash")[0] == [], "emptied", browser.rows("Trash"))
    browser.ajax("settings", "delete-folder", {"mbox": "Neu"})
    deliver(9, "later")
    said = browser.ajax("mail", "refresh", {"list": 1, "folderlist": 1, "mbox": "INBOX"}, mbox="INBOX")
    check("later" in said["exec"], "refresh", said)
    check(sorted(browser.rows("INBOX")[0]) == list("36789"), "INBOX", browser.rows("INBOX"))


def draft(browser):
    page = browser.page({"_task": "mail", "_action": "compose"})
    compose = re.search(r'"compose_id":"([^"]+)"', page).group(1)
    sender = re.search(r'name="_from".*?<option value="(\d+)"', page, re.S).group(1)
    common = {"id": compose, "from": sender, "to": "x@example.test", "draft": 1, "is_html": 0}
    page = browser.form("mail", "send", subject="Entwurf", message="eins", draft_saveid="", **common)
    saved = re.search(r'set_draft_id\("(\d+)"', page).group(1)
    browser.form("mail", "send", subject="Entwurf ü", message="zwei", draft_saveid=saved, **common)
    uids, said = browser.rows("Drafts")
    check(len(uids) == 1 and "Entwurf ü" in said, "draft", said)


def main():
    configure()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["php", "-S", f"127.0.0.1:{port}", "-t", ROUNDCUBE]
    with open(HOME + "/php", "w") as log:
        environment = os.environ | {"ROUNDCUBE_CONFIG_DIR": HOME}
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        for n in range(1, 9):
            deliver(n, f"Betreff {n} älter")
        browser = Browser(port)
        for _ in range(100):
            try:
                browser.page({"_task": "login"})
                break
            except urllib.error.URLError:
                time.sleep(0.1)
        browser.login()
        read(browser)
        change(browser)
        draft(browser)
    finally:
        server.terminate()
    errors = HOME + "/logs/errors.log"
    check(not os.path.exists(errors), "errors", os.path.exists(errors) and open(errors).read())
    with open(HOME + "/logs/imap.log", encoding="utf-8", errors="replace") as log:
        odd = [line for line in log if re.search(r"S: (A\d+|\*) (BAD|NO)\b", line)]
    check(not odd, "refused", odd)


main()
