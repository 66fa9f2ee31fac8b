"""A node with a great many messages: what it holds, and how long it takes to come back."""
import os, pathlib, shutil, signal, socket, sys, threading, time, urllib.request

from hold import resident_kib

ACCOUNTS = 64
RECIPIENTS = 32
CLIENTS = 8


def deliver(demo, n_messages):
    """Small messages, many recipients at a time, all different."""
    failures = []

    def client(index):
        host, port = demo.addresses("lmtp")[index % 2].rsplit(":", 1)
        with socket.create_connection((host, int(port)), 60) as connection:
            stream = connection.makefile("rwb")

            def replies(n, want):
                stream.flush()
                while n:
                    reply = stream.readline()
                    if not reply.startswith(want):
                        raise OSError(f"{reply!r}")
                    n -= reply[3:4] != b"-"

            replies(1, b"220")
            stream.write(b"LHLO c\r\n")
            replies(1, b"250")
            for number in range(index, n_messages // RECIPIENTS, CLIENTS):
                stream.write(b"MAIL FROM:<a@example.test>\r\n")
                for k in range(RECIPIENTS):
                    account = (number * RECIPIENTS + k) % ACCOUNTS + 1
                    stream.write(b"RCPT TO:<u%04d@example.test>\r\n" % account)
                replies(1 + RECIPIENTS, b"250")
                stream.write(b"DATA\r\n")
                replies(1, b"354")
                stream.write(b"From: a@example.test\r\nSubject: number %d\r\nMessage-ID: <%d@x>\r\n\r\n"
                             b"text of message %d\r\n.\r\n" % (number, number, number))
                replies(RECIPIENTS, b"250")

    def guarded(index):
        try:
            client(index)
        except OSError as error:
            failures.append(error)

    clients = [threading.Thread(target=guarded, args=(index,)) for index in range(CLIENTS)]
    begun = time.monotonic()
    for one in clients:
        one.start()
    for one in clients:
        one.join()
    if failures:
        sys.exit(f"deliver: {failures[0]}")
    rate = n_messages / (time.monotonic() - begun)
    print(f"       {n_messages} messages delivered at {rate:.0f} a second", flush=True)


def until_ready(demo, name):
    """Starts a node again; milliseconds until it says that it may be counted on."""
    process = next(p for p in demo.processes() if p["name"] == name)
    url = f"http://{process['address']}:{process['ports']['http']}/readyz"
    begun = time.monotonic()
    demo.start_again(name)
    while True:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return (time.monotonic() - begun) * 1000
        except OSError:
            if time.monotonic() - begun > 600:
                sys.exit(f"{name} does not become ready")
            time.sleep(0.02)


def stop(demo, name, with_signal):
    pid = next(p["pid"] for p in demo.processes() if p["name"] == name)
    os.kill(pid, with_signal)
    while pathlib.Path(f"/proc/{pid}").exists():
        time.sleep(0.02)


def measure(demo, n_messages):
    """Rows of (name, limit, unit, value)."""
    deliver(demo, n_messages)
    demo.wait_healthy("--whole")
    nodes = demo.processes("node")
    resident = max(resident_kib(node["pid"]) for node in nodes) / 1024
    rows = [("resident", 1024, "MiB", resident)]
    stop(demo, "n1", signal.SIGTERM)
    rows.append(("clean", 5_000, "ms", until_ready(demo, "n1")))
    demo.wait_healthy("--whole")
    stop(demo, "n1", signal.SIGKILL)
    rows.append(("killed", 20_000, "ms", until_ready(demo, "n1")))
    demo.wait_healthy("--whole")
    stop(demo, "n1", signal.SIGTERM)
    indexes = [path for disk in next(n for n in nodes if n["name"] == "n1")["data_dirs"]
               for path in pathlib.Path(disk).rglob("index*") if path.is_dir()]
    if not indexes:
        sys.exit("no index was found to remove")
    for path in indexes:
        shutil.rmtree(path)
    rows.append(("rebuilt", 60_000, "ms", until_ready(demo, "n1")))
    return rows
