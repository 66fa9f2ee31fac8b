"""Python's imaplib and poplib against a demo cluster: clients.py IMAP POP3 LMTP USER PASSWORD."""
import imaplib
import poplib
import smtplib
import sys
import zlib

imap_at, pop3_at, lmtp_at, user, password = sys.argv[1:]
MESSAGE = b"From: a@example.test\r\nSubject: by python\r\n\r\npython was here\r\n"


def host_port(at):
    host, port = at.rsplit(":", 1)
    return host, int(port)


class Compressed:
    """A socket behind COMPRESS=DEFLATE, with one zlib stream for each direction."""

    def __init__(self, socket):
        self.socket, self.held = socket, b""
        self.packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        self.unpacker = zlib.decompressobj(-15)

    def sendall(self, octets):
        self.socket.sendall(self.packer.compress(octets) + self.packer.flush(zlib.Z_SYNC_FLUSH))

    def until(self, is_enough):
        while not is_enough(self.held):
            octets = self.socket.recv(65536)
            assert octets, "closed"
            self.held += self.unpacker.decompress(octets)

    def read(self, n):
        self.until(lambda held: len(held) >= n)
        taken, self.held = self.held[:n], self.held[n:]
        return taken

    def readline(self):
        self.until(lambda held: b"\n" in held)
        return self.read(self.held.index(b"\n") + 1)


def compress(imap):
    """From here on imaplib talks through zlib."""
    imaplib.Commands["COMPRESS"] = ("AUTH", "SELECTED")
    check(imap._simple_command("COMPRESS", "DEFLATE"))
    through = Compressed(imap.sock)
    imap.send, imap.read, imap.readline = through.sendall, through.read, through.readline


def check(result, want="OK"):
    assert result[0] == want, result
    return result[1]


with smtplib.LMTP(*host_port(lmtp_at)) as lmtp:
    assert lmtp.sendmail("sender@example.test", [user], MESSAGE) == {}

with imaplib.IMAP4(*host_port(imap_at)) as imap:
    check(imap.login(user, password))
    check(imap.select("INBOX"))
    assert b"python was here" in check(imap.fetch("1", "(BODY[TEXT])"))[0][1]
    check(imap.create("Archive/2026"))
    assert any(b"Archive/2026" in line for line in check(imap.list()))
    check(imap.append("Archive/2026", "(\\Flagged)", None, MESSAGE))
    check(imap.copy("1", "Archive/2026"))
    assert check(imap.status("Archive/2026", "(MESSAGES UIDNEXT)"))[0].endswith(b"(MESSAGES 2 UIDNEXT 3)")
    check(imap.store("1", "+FLAGS", "\\Answered"))
    assert check(imap.search(None, "ANSWERED")) == [b"1"]
    assert b"by python" in check(imap.fetch("1", "(ENVELOPE)"))[0]
    check(imap.rename("Archive/2026", "Archive/2027"))
    check(imap.subscribe("Archive/2027"))
    assert any(b"Archive/2027" in line for line in check(imap.lsub()))
    check(imap.delete("Archive/2027"))
    check(imap.select("Archive/2027"), "NO")

pop3 = poplib.POP3(*host_port(pop3_at))
pop3.user(user)
pop3.pass_(password)
n_messages, octets = pop3.stat()
assert n_messages == 1 and octets > len(MESSAGE), (n_messages, octets)
assert b"python was here" in b"\n".join(pop3.retr(1)[1])
assert b"Subject: by python" in pop3.top(1, 0)[1]
assert len(pop3.uidl()[1]) == 1
pop3.dele(1)
pop3.quit()

with imaplib.IMAP4(*host_port(imap_at)) as imap:
    check(imap.login(user, password))
    assert check(imap.select("INBOX")) == [b"0"]

LINES = b"".join(b"line %d of a message that compresses well\r\n" % n for n in range(50_000))
with imaplib.IMAP4(*host_port(imap_at)) as imap:
    check(imap.login(user, password))
    assert "COMPRESS=DEFLATE" in check(imap.capability())[0].decode()
    compress(imap)
    assert "COMPRESS=DEFLATE" not in check(imap.capability())[0].decode()
    check(imap._simple_command("COMPRESS", "DEFLATE"), "NO")
    check(imap.append("INBOX", None, None, MESSAGE + LINES))
    check(imap.select("INBOX"))
    assert check(imap.fetch("1", "(BODY[TEXT])"))[0][1] == MESSAGE.partition(b"\r\n\r\n")[2] + LINES
    for _ in range(50):
        check(imap.noop())
    check(imap.store("1", "+FLAGS", "\\Deleted"))
    assert check(imap.expunge()) == [b"1"]

with imaplib.IMAP4(*host_port(imap_at)) as imap:
    check(imap.login(user, password))
    check(imap.append("INBOX", None, None, b"Subject: nothing else\r\n\r\n"))
    check(imap.select("INBOX"))
    assert check(imap.fetch("1", "(BODY[TEXT])"))[0][1] == b""
    check(imap.store("1", "+FLAGS", "\\Deleted"))
    assert check(imap.expunge()) == [b"1"]
