"""A node that lost its disk: how long until every copy is back, and what deliveries feel of it."""
import base64, json, os, random, re, shutil, socket, sys, threading, time

ACCOUNTS = 64
MESSAGE_BYTES = 200_000
FILLERS = 4
CLIENTS = 4
CALM_SECONDS = 10
GIVE_UP_SECONDS = 600


class Session:
    """One LMTP connection."""

    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self.stream = socket.create_connection((host, int(port)), 60).makefile("rwb")
        self.say(b"", b"220")
        self.say(b"LHLO wipe\r\n", b"250")

    def say(self, line, want):
        self.stream.write(line)
        self.stream.flush()
        while True:
            reply = self.stream.readline()
            if reply[3:4] != b"-":
                break
        if not reply.startswith(want):
            raise OSError(f"{line[:40]!r}: {reply!r}")

    def deliver(self, account, body):
        self.say(b"MAIL FROM:<a@example.test>\r\n", b"250")
        self.say(b"RCPT TO:<u%04d@example.test>\r\n" % account, b"250")
        self.say(b"DATA\r\n", b"354")
        self.say(b"Subject: wipe\r\n\r\n" + body + b"\r\n.\r\n", b"250")


def attachment():
    """Octets as of an attachment, none like another; base64 shrinks to three quarters."""
    text = base64.b64encode(os.urandom(MESSAGE_BYTES * 3 // 4))
    return b"\r\n".join(text[at:at + 76] for at in range(0, len(text), 76))


def fill(demo, n_bytes):
    failures = []

    def filler(index):
        try:
            session = Session(demo.addresses("lmtp")[index % 2])
            for number in range(index, n_bytes // MESSAGE_BYTES, FILLERS):
                session.deliver(number % ACCOUNTS + 1, attachment())
        except OSError as error:
            failures.append(error)

    fillers = [threading.Thread(target=filler, args=(index,)) for index in range(FILLERS)]
    begun = time.monotonic()
    for one in fillers:
        one.start()
    for one in fillers:
        one.join()
    if failures:
        sys.exit(f"fill: {failures[0]}")
    print(f"       {n_bytes >> 20} MiB delivered in {time.monotonic() - begun:.0f} s", flush=True)


class Load:
    """Small deliveries that never stop; whoever is refused has found an error."""

    def __init__(self, demo):
        self.over = threading.Event()
        self.done = [0] * CLIENTS
        self.longest = [0.0] * CLIENTS
        self.failures = []
        self.clients = [threading.Thread(target=self.work, args=(demo, index)) for index in range(CLIENTS)]
        for one in self.clients:
            one.start()

    def work(self, demo, index):
        generator = random.Random(index)
        try:
            session = Session(demo.addresses("lmtp")[index % 2])
            while not self.over.is_set():
                body = b"\r\n".join(b"%076x" % generator.getrandbits(300) for _ in range(50))
                begun = time.monotonic()
                session.deliver(generator.randrange(ACCOUNTS) + 1, body)
                self.longest[index] = max(self.longest[index], time.monotonic() - begun)
                self.done[index] += 1
        except OSError as error:
            self.failures.append(error)

    def end(self):
        self.over.set()
        for one in self.clients:
            one.join()
        if self.failures:
            sys.exit(f"deliver: {self.failures[0]}")


def measure(demo, n_bytes):
    """Rows of the table: name, limit, unit, value."""
    fill(demo, n_bytes)
    demo.wait_healthy("--whole")
    load = Load(demo)
    time.sleep(1)
    before, at = sum(load.done), time.monotonic()
    time.sleep(CALM_SECONDS)
    calm = (sum(load.done) - before) / (time.monotonic() - at)
    # Not the busiest: what a dead leader costs is another figure.
    busiest = demo.busiest_leader()["name"]
    node = next(p for p in demo.processes("node") if p["name"] != busiest)
    os.kill(node["pid"], 9)
    disk = demo.dir / node["name"] / "disk1"
    lost = re.search(r'disk_id = "(\w+)"', (disk / "rookery-disk.toml").read_text()).group(1)
    shutil.rmtree(disk)
    disk.mkdir()
    before, begun = sum(load.done), time.monotonic()
    demo.start_again(node["name"])
    whole = None
    while whole is None:
        if time.monotonic() - begun > GIVE_UP_SECONDS:
            sys.exit("not whole again: " + demo.ctl("cluster", "status").stdout)
        # As long as nobody noticed, everything looks whole.
        answer = demo.ctl("cluster", "status", "--json")
        status = {} if answer.returncode else json.loads(answer.stdout)
        if "shards" not in status:
            # The node that was asked has just started.
            continue
        is_noticed = all(one["disk"] != lost for shard in status["shards"] for one in shard["replicas"])
        for one in status["replacements"]:
            if one["eta_ms"] is not None and one["phase"] == "bodies":
                print("       shard {shard}: {done} of {total} octets, {eta_ms} ms to go".format(**one), flush=True)
        if is_noticed and demo.ctl("cluster", "health", "--whole").returncode == 0:
            whole = time.monotonic() - begun
        time.sleep(0.5)
    hurt = (sum(load.done) - before) / whole
    load.end()
    print(f"       {calm:.0f} deliveries a second before, {hurt:.0f} meanwhile; "
          f"the longest took {max(load.longest) * 1000:.0f} ms", flush=True)
    yield "wipe", 60_000, "ms until every copy is back", whole * 1000
    yield "wipe", 200, "% of the usual time for a delivery", 100 * calm / max(hurt, 0.001)
