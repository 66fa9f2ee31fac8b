#!/usr/bin/env python3
"""Measures the figures of the spine on a demo cluster of release processes.

    tests/bench/figures.py [--mailload PATH] [--only start,large,...] [--rounds 5] [--messages 1000000]
                           [--mib 2048]

start   time from `rookery demo` to ready
kill    longest time any client went without success when a leader is killed with -9
term    the same after SIGTERM
large   extra resident memory of each process while a 50 MB message is delivered
idle    extra resident memory of a frontend for 10,000 connections before login
tls     resident memory of a frontend for each of 5,000 idle sessions inside TLS
bomb    delivery of a message with 500,000 header lines
million a node with 1,000,000 small messages: its memory, and its start after a clean stop, after
        kill -9, and without its index
wipe    a node with 2 GiB of mail comes back with an empty disk: time until every copy is there, and
        how much longer deliveries take meanwhile

`kill` and `term` need a mailload binary (the load generator that lies beside the project). One row per
figure is printed; exit status 1 when a figure is over its limit, 2 when it was broken off. Nothing else should run
meanwhile.
"""
import argparse, contextlib, json, os, pathlib, random, signal, socket, subprocess, sys, tempfile, threading, time, traceback

import hold, restart, wipe
from hold import resident_kib

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIMITS = {"start": 10_000, "kill": 1_500, "term": 250, "large": 16 * 1024, "idle": 150 * 1024, "tls": 30,
          "bomb": 1_000, "million": 0, "wipe": 0}
UNITS = {"large": "KiB", "idle": "KiB", "tls": "KiB"}


BROKEN_OFF = 2


def run_to_end(main):
    """Exit status 0 and 1 are a verdict; whoever was broken off has another, and gives none. Whoever ends
    this with SIGTERM ends what it started as well."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(BROKEN_OFF))
    try:
        main()
    except SystemExit as ended:
        if not isinstance(ended.code, str):
            raise
        print(ended.code, file=sys.stderr)
        sys.exit(BROKEN_OFF)
    except Exception:
        traceback.print_exc()
        sys.exit(BROKEN_OFF)


def end(process):
    """Ends a process, in order if it can; whether it could."""
    process.terminate()
    try:
        process.wait(30)
        return True
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False


class Demo:
    def __init__(self, rookery, *options):
        self.rookery = rookery
        self.keep = tempfile.TemporaryDirectory(prefix="rookery-figures-")
        self.dir = pathlib.Path(self.keep.name) / "demo"
        self.command = [rookery, "demo", "--dir", str(self.dir), "--base-port", "18000", *options]
        self.start()

    def start(self):
        begun = time.monotonic()
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True)
        try:
            for line in self.process.stdout:
                if "Ctrl-C ends everything" in line:
                    break
            else:
                sys.exit("the demo did not start")
        except BaseException:
            self.close()
            raise
        self.ready_ms = (time.monotonic() - begun) * 1000

    def cluster(self):
        return json.loads((self.dir / "cluster.json").read_text())

    def processes(self, role=None):
        return [p for p in self.cluster()["processes"] if role in (None, p["role"])]

    def addresses(self, port):
        return [f"{p['address']}:{p['ports'][port]}" for p in self.processes("frontend")]

    def ctl(self, *arguments):
        command = [self.rookery, "ctl", "--cluster", str(self.dir / "cluster.json"), *arguments]
        return subprocess.run(command, capture_output=True, text=True)

    def wait_healthy(self, *options):
        end = time.monotonic() + 60
        while self.ctl("cluster", "health", *options).returncode:
            if time.monotonic() > end:
                sys.exit("the cluster does not become healthy: " + self.ctl("cluster", "status").stdout)
            time.sleep(0.1)

    def busiest_leader(self):
        status = json.loads(self.ctl("cluster", "status", "--json").stdout)
        leaders = [shard["leader"] for shard in status["shards"] if shard["shard"]]
        name = max(set(leaders), key=leaders.count)
        return next(p for p in self.processes() if p["name"] == name)

    def start_again(self, name):
        deadline = time.monotonic() + 60
        command = [self.rookery, "demo", "start", name, "--dir", str(self.dir)]
        while (done := subprocess.run(command, capture_output=True, text=True)).returncode:
            if time.monotonic() > deadline:
                sys.exit(f"{name} does not start again: {done.stderr}")
            time.sleep(0.1)

    def restart(self):
        """All processes end and start again, on the same directory."""
        self.process.terminate()
        self.process.wait(60)
        self.start()
        self.wait_healthy("--whole")

    def close(self):
        if not end(self.process):
            # What it started lives on without it.
            for pid in [p["pid"] for p in self.processes()]:
                with contextlib.suppress(OSError):
                    if str(self.dir) in pathlib.Path(f"/proc/{pid}/cmdline").read_text():
                        os.kill(pid, signal.SIGKILL)
        self.keep.cleanup()


def outage(demo, a, with_signal):
    """Longest wait of any client while leaders get the signal, one in each round."""
    worst = []
    for _ in range(a.rounds):
        demo.wait_healthy("--whole")
        time.sleep(1)
        load = subprocess.Popen(
            [a.mailload, "deliver", "--addr", ",".join(demo.addresses("lmtp")), "--users",
             "u%04d@example.test:1-16", "--clients", "8", "--size", "4k", "--seconds", "6", "--ride-out"],
            stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL)
        time.sleep(2)
        leader = demo.busiest_leader()
        os.kill(leader["pid"], with_signal)
        result = json.loads(load.communicate()[0].strip().splitlines()[-1])
        worst.append(result["max_unavailable_ms"])
        demo.start_again(leader["name"])
    return worst


def large(demo):
    """Extra resident memory, in KiB, of the process that needs most while 50 MB come in."""
    generator = random.Random(1)
    demo_line = lambda: bytes(generator.choices(range(33, 126), k=76)).replace(b".", b"-") + b"\r\n"
    block = b"".join(demo_line() for _ in range(20_000))
    # A node that was just started grows by what it reads back, whoever delivers meanwhile.
    demo.wait_healthy("--whole")
    deliver_large(demo, block, 3_000_000)
    pids = [p["pid"] for p in demo.processes()]
    before = {pid: resident_kib(pid) for pid in pids}
    peak = dict(before)
    stop = threading.Event()

    def watch():
        while not stop.is_set():
            for pid in pids:
                peak[pid] = max(peak[pid], resident_kib(pid))
            stop.wait(0.01)

    watcher = threading.Thread(target=watch)
    watcher.start()
    deliver_large(demo, block, 49_000_000)
    stop.set()
    watcher.join()
    return [peak[pid] - before[pid] for pid in pids]


def deliver_large(demo, block, octets):
    host, port = demo.addresses("lmtp")[0].rsplit(":", 1)
    with socket.create_connection((host, int(port)), 60) as connection:
        stream = connection.makefile("rwb")
        def say(line, want):
            stream.write(line)
            stream.flush()
            while True:
                reply = stream.readline()
                if reply[3:4] != b"-":
                    break
            if not reply.startswith(want):
                sys.exit(f"{line[:40]!r}: {reply!r}")
        say(b"", b"220")
        say(b"LHLO figures\r\n", b"250")
        say(b"MAIL FROM:<a@example.test>\r\n", b"250")
        say(b"RCPT TO:<u0001@example.test>\r\n", b"250")
        say(b"DATA\r\n", b"354")
        stream.write(b"Subject: large\r\n\r\n")
        for _ in range(octets // len(block) + 1):
            stream.write(block)
        say(b".\r\n", b"250")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mailload")
    parser.add_argument("--rookery", default=str(ROOT / "target/release/rookery"))
    parser.add_argument("--only", default=",".join(LIMITS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--mib", type=int, default=2048)
    a = parser.parse_args()
    names = a.only.split(",")
    over = False
    demo = Demo(a.rookery, "--accounts", str(restart.ACCOUNTS))
    try:
        for name in names:
            if name in ("kill", "term") and not a.mailload:
                print(f"{name:6} skipped: no --mailload given")
                continue
            if name in ("million", "wipe"):
                rows = restart.measure(demo, a.messages) if name == "million" else wipe.measure(demo, a.mib << 20)
                for row, limit, unit, value in rows:
                    verdict = "ok" if value <= limit else "OVER"
                    over |= verdict == "OVER"
                    print(f"{row:8} limit {limit} {unit}: {value:.0f} {verdict}", flush=True)
                continue
            values = {"start": lambda: [demo.ready_ms],
                      "kill": lambda: outage(demo, a, signal.SIGKILL),
                      "term": lambda: outage(demo, a, signal.SIGTERM),
                      "large": lambda: large(demo),
                      "idle": lambda: hold.idle(demo),
                      "tls": lambda: hold.sessions(demo),
                      "bomb": lambda: hold.bomb(demo)}[name]()
            unit = UNITS.get(name, "ms")
            verdict = "ok" if max(values) <= LIMITS[name] else "OVER"
            over |= verdict == "OVER"
            shown = " ".join(f"{value:.0f}" for value in values)
            print(f"{name:6} limit {LIMITS[name]} {unit}: {shown} {verdict}", flush=True)
    finally:
        demo.close()
    sys.exit(1 if over else 0)


if __name__ == "__main__":
    run_to_end(main)
