#!/usr/bin/env python3
"""Measures large mailboxes on a demo cluster of release processes.

    tests/bench/large.py [--threads 100000] [--messages 1000000] [--rookery PATH] [--only sort,big]

sort    one mailbox of --threads different messages: SORT, THREAD, SEARCH FROM, the first of each when the
        mailbox was just filled, some more, and the first of each after all processes were started again
big     one mailbox of --messages messages (copies of those): SELECT, FETCH 1:* (UID FLAGS) up to its
        first octet, and the longest wait of other accounts' writes while all of them are changed,
        copied, moved, expunged and deleted

One row per figure is printed; exit status 1 when a figure is over its limit, 2 when it was broken off.
Nothing else should run meanwhile. `big` takes more than half an hour on two cores (by what 60,000 messages
take), `sort` two minutes.
"""
import argparse, pathlib, random, socket, sys, threading, time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from figures import ROOT, Demo, run_to_end

LIMITS = {"SORT (DATE)": 300, "THREAD REFERENCES": 800, "SEARCH FROM": 300, "SELECT": 200,
          "FETCH 1:* (UID FLAGS), first octet": 100}
WRITE_LIMIT_MS = 100
LOOKS = {"SEARCH FROM": "UID SEARCH FROM sender4711@",
         "THREAD REFERENCES": "UID THREAD REFERENCES UTF-8 ALL",
         "SORT (DATE)": "UID SORT (REVERSE DATE) UTF-8 ALL"}
# Messages in one APPEND (RFC 3502).
AT_ONCE = 60


class Imap:
    def __init__(self, address, user):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), 600)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stream = self.socket.makefile("rb", 1 << 20)
        self.stream.readline()
        self.n_tags = 0
        self.ok(f"LOGIN {user} secret")

    def start(self, command):
        self.n_tags += 1
        self.socket.sendall(b"t%d %s\r\n" % (self.n_tags, command if isinstance(command, bytes) else command.encode()))
        return b"t%d " % self.n_tags

    def ok(self, command):
        """The untagged lines, the milliseconds to the first octet, and to the end."""
        begun = time.monotonic()
        tag, first, lines = self.start(command), None, []
        while True:
            line = self.stream.readline()
            first = first or time.monotonic()
            if line.startswith(tag):
                break
            if not line:
                sys.exit(f"{command[:60]!r}: closed")
            lines.append(line)
        if not line.startswith(tag + b"OK"):
            sys.exit(f"{command[:60]!r}: {line!r}")
        return lines, (first - begun) * 1000, (time.monotonic() - begun) * 1000


def message(n):
    """Threads of about six, some five thousand senders, dates in no order."""
    chance = random.Random(n)
    thread, rank = divmod(n, 6)
    when = time.gmtime(1_600_000_000 + chance.randrange(200_000_000))
    date = time.strftime("%a, %d %b %Y %H:%M:%S +0000", when)
    references = " ".join(f"<{thread * 6 + k}@list.example.test>" for k in range(rank))
    more = f"References: {references}\r\n" if rank else ""
    subject = ("Re: " if rank else "") + f"thread {thread} about {chance.randrange(1000)}"
    return (f"From: Sender {n % 5000} <sender{n % 5000}@example.test>\r\nTo: list@example.test\r\n"
            f"Subject: {subject}\r\nDate: {date}\r\nMessage-ID: <{n}@list.example.test>\r\n{more}\r\n"
            f"Some words of message {n}.\r\n").encode()


def fill(address, user, mailbox, n_messages, n_clients=4):
    """Appends so many different messages."""
    left = iter(range(0, n_messages, AT_ONCE))
    lock, failures = threading.Lock(), []

    def append():
        try:
            append_all(Imap(address, user))
        # Why both: a thread's own end says nothing to anybody.
        except (Exception, SystemExit) as failure:
            failures.append(failure)

    def append_all(imap):
        while True:
            with lock:
                first = next(left, None)
            if first is None:
                return
            literals = []
            for n in range(first, min(first + AT_ONCE, n_messages)):
                raw = message(n)
                literals.append(b" {%d+}\r\n%s" % (len(raw), raw))
            imap.ok(b"APPEND %s" % mailbox.encode() + b"".join(literals))

    clients = [threading.Thread(target=append) for _ in range(n_clients)]
    [client.start() for client in clients]
    [client.join() for client in clients]
    if failures:
        sys.exit(f"fill {mailbox}: {failures[0]}")


class Others:
    """Other accounts that write all the time, and how long each write took."""

    def __init__(self, addresses, users):
        self.stop = threading.Event()
        self.told = threading.Condition()
        # Begin and end of each write; the end of the last one of each account.
        self.writes, self.ends = [], [0.0] * len(users)
        self.threads = [threading.Thread(target=self.write, args=(k, addresses[k % len(addresses)], user))
                        for k, user in enumerate(users)]
        [thread.start() for thread in self.threads]

    def write(self, k, address, user):
        imap = Imap(address, user)
        raw = b"Subject: other\r\n\r\nother\r\n"
        imap.ok(b"APPEND INBOX {%d+}\r\n%s" % (len(raw), raw))
        imap.ok("SELECT INBOX")
        sign = "+"
        while not self.stop.is_set():
            begun = time.monotonic()
            imap.ok(f"UID STORE 1 {sign}FLAGS.SILENT (\\Flagged)")
            with self.told:
                self.ends[k] = time.monotonic()
                self.writes.append((begun, self.ends[k]))
                self.told.notify_all()
            sign = "-" if sign == "+" else "+"
            self.stop.wait(0.005)

    def during(self, what):
        """The longest wait, in milliseconds, of writes under way at any time meanwhile; their 99th percentile."""
        with self.told:
            self.writes.clear()
        begun = time.monotonic()
        what()
        end = time.monotonic()
        with self.told:
            # Whoever waits now is heard of when that is over.
            if not self.told.wait_for(lambda: min(self.ends) > end, 600):
                sys.exit("a write of another account does not come to its end")
            waits = sorted((done - since) * 1000 for since, done in self.writes if since < end)
        return waits[-1], waits[len(waits) * 99 // 100], end - begun

    def close(self):
        self.stop.set()
        [thread.join() for thread in self.threads]


class Table:
    is_over = False

    def row(self, name, value, limit, more=""):
        verdict = "ok" if value <= limit else "OVER"
        self.is_over |= verdict == "OVER"
        print(f"{name:44} limit {limit:4} ms: {value:8.1f} {verdict} {more}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=100_000)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--rookery", default=str(ROOT / "target/release/rookery"))
    parser.add_argument("--only", default="sort,big")
    a = parser.parse_args()
    demo, table = Demo(a.rookery, "--accounts", "16"), Table()
    try:
        addresses, user = demo.addresses("imap"), "u0001@example.test"
        imap = Imap(addresses[0], user)
        imap.ok("CREATE Threads")
        begun = time.monotonic()
        fill(addresses[0], user, "Threads", a.threads)
        there = imap.ok("STATUS Threads (MESSAGES)")[0]
        if b"MESSAGES %d)" % a.threads not in there[0]:
            sys.exit(f"not all were appended: {there}")
        print(f"{a.threads} messages appended in {time.monotonic() - begun:.0f} s", flush=True)
        if "sort" in a.only:
            sorts(imap, demo, table, user)
        if "big" in a.only:
            imap = Imap(demo.addresses("imap")[0], user)
            big(imap, demo, table, a)
    finally:
        demo.close()
    sys.exit(1 if table.is_over else 0)


def sorts(imap, demo, table, user):
    imap.ok("SELECT Threads")
    for name, command in LOOKS.items():
        first, *times = [imap.ok(command)[2] for _ in range(6)]
        table.row(f"{name}, first after the fill", first, LIMITS[name])
        shown = " ".join(f"{took:.0f}" for took in times)
        table.row(name, sorted(times)[2], LIMITS[name], f"of {shown}")
    # Once for each: one finds at hand what another one read.
    for name, command in LOOKS.items():
        demo.restart()
        imap = Imap(demo.addresses("imap")[0], user)
        imap.ok("SELECT Threads")
        first, second = [imap.ok(command)[2] for _ in range(2)]
        table.row(f"{name}, first after a restart", first, LIMITS[name], f"then {second:.0f}")


def big(imap, demo, table, a):
    imap.ok("CREATE Big")
    imap.ok("SELECT Threads")
    others = Others(demo.addresses("imap"), [f"u{k:04}@example.test" for k in range(2, 14)])
    def waits(name, what):
        longest, p99, took = others.during(what)
        table.row(f"others wait during {name}", longest, WRITE_LIMIT_MS, f"p99 {p99:.1f}, took {took:.1f} s")
    try:
        n_copies = -(-a.messages // a.threads)
        waits(f"{n_copies} COPYs of {a.threads}", lambda: [imap.ok("COPY 1:* Big") for _ in range(n_copies)])
        selects = [imap.ok("SELECT Big")[2] for _ in range(3)]
        table.row("SELECT", sorted(selects)[1], LIMITS["SELECT"], "of " + " ".join(f"{t:.0f}" for t in selects))
        lines, first, whole = imap.ok("FETCH 1:* (UID FLAGS)")
        table.row("FETCH 1:* (UID FLAGS), first octet", first, LIMITS["FETCH 1:* (UID FLAGS), first octet"],
                  f"{len(lines)} in {whole / 1000:.1f} s")
        imap.ok("CREATE Else")
        waits("STORE", lambda: imap.ok("STORE 1:* +FLAGS.SILENT (\\Seen)"))
        waits("COPY", lambda: imap.ok("COPY 1:* Else"))
        waits("MOVE", lambda: imap.ok("MOVE 1:* Else"))
        imap.ok("SELECT Else")
        selects = [imap.ok("SELECT Else")[2] for _ in range(3)]
        print(f"SELECT of twice as many: {selects}")
        waits("STORE of twice as many", lambda: imap.ok("STORE 1:* +FLAGS.SILENT (\\Deleted)"))
        half = n_copies * a.threads
        waits("EXPUNGE of half of them", lambda: imap.ok(f"UID EXPUNGE 1:{half}"))
        left = imap.ok("STATUS Else (MESSAGES)")[0]
        if b"MESSAGES %d)" % half not in left[0]:
            sys.exit(f"not half of them: {left}")
        imap.ok("UNSELECT")
        waits("DELETE of the other half, 10 s", lambda: (imap.ok("DELETE Else"), time.sleep(10)))
    finally:
        others.close()


if __name__ == "__main__":
    run_to_end(main)
