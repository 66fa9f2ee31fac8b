#!/usr/bin/env python3
"""Measures a demo cluster and one Dovecot in turn, operation by operation, and writes the table.

    tests/bench/compare.py --mailload PATH [--only deliver,store] [--seconds 4] [--rounds 3]
                           [--write README.md]

Needs a release build of rookery, a mailload binary (the load generator that lies beside the project),
and Dovecot (apt-get install dovecot-imapd dovecot-pop3d dovecot-lmtpd). Dovecot keeps one copy and syncs
each change (mail_fsync=always); the cluster keeps three copies and answers when a majority has synced.
A row has the medians of both rates, their ratio, what is judged and must be (the ratio, if nothing else
is said) and what is aimed at, the median times of both, the CPU time that all server processes of each
side took for one operation, and both sides' errors. Absolute figures are those of one machine and one
minute. For `slow` a library is preloaded into the servers of both sides (`slow_sync.c`, built with cc), so
that every sync takes 5 ms longer. `--write` puts the table between the marks in that file. Exit status 1
if a row stays under what it must, has errors, or a side did nothing in it. Nothing else should run meanwhile.
"""
import argparse, contextlib, json, os, pathlib, platform, shutil, socket, statistics, subprocess, sys, tempfile, time

from figures import ROOT, Demo, end, run_to_end

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
# How often a mailbox that is to be filled is given what was refused.
FILLS_MAX = 3
PASSWORD = "secret"


# Operations that write, read, drain, move and wait have accounts of their own: none finds the mailboxes
# of another changed.
USERS = {0: (1, 16), 1000: (17, 20), 250: (21, 36), 200: (37, 44)}
IDLE_USERS = (45, 68)
MOVE_USERS = (69, 72)
SLOW_SYNC_MS = 5


class Operation:
    """One row: which port, what mailload is told, messages that must be there before, and the verdict: the
    ratio there must be and the one aimed at, of rates or of median times, or our longest median time."""

    def __init__(self, label, port, words, fill=0, must=None, aim=None, users=None, slow=False, judged="rate"):
        self.label, self.port, self.words, self.fill = label, port, words.split(), fill
        self.must, self.aim, self.judged = must, aim, judged
        self.users, self.slow = users or USERS[fill], slow


OPERATIONS = {
    "deliver": Operation("deliver 20 kB, 16 clients", "lmtp", "deliver --size 20k --clients 16", 0, 1.3, 2.0),
    "mix": Operation("deliver realistic mix, 16 clients", "lmtp", "deliver --size mix --clients 16", 0, 1.0, 1.5),
    "deliver1": Operation("deliver 20 kB, 1 client", "lmtp", "deliver --size 20k --clients 1", 0, 1.0, 0.6,
                          judged="p50 of Dovecot's"),
    "append": Operation("APPEND, 4 clients", "imap", "imap-append --size 20k --clients 4", 0, 0.8, 1.3),
    "store": Operation("STORE flags, 4 clients", "imap", "imap-store-flags --clients 4", 1000, 0.5, 1.0),
    "store32": Operation("STORE flags, 32 clients", "imap", "imap-store-flags --clients 32", 1000, 1.0, 2.0),
    "move": Operation("MOVE, 4 clients", "imap", "imap-move --clients 4", 1000, 1.5, 3.0, users=MOVE_USERS),
    "headers": Operation("open a mailbox of 1,000", "imap", "imap-fetch-headers --clients 4", 1000, 1.5, 3.0),
    "body": Operation("whole message", "imap", "imap-fetch-body --clients 4", 1000, 0.5, 0.8),
    "part": Operation("BODY[1]", "imap", "imap-fetch-part --clients 4", 1000, 0.7, 1.0),
    "from": Operation("SEARCH FROM", "imap", "imap-search --kind from --clients 4", 1000, 2.0, 4.0),
    "text": Operation("SEARCH TEXT", "imap", "imap-search --kind text --clients 4", 1000, 0.5, 1.0),
    "login": Operation("login cycle", "imap", "imap-login --clients 8", 1000, 1.5, 3.0),
    "drain": Operation("POP3 drain", "pop3", "pop3-drain --clients 4", 250, 0.5, 0.8),
    "mixed": Operation("mixed", "imap", "mixed --clients 8", 200, 0.8, 1.5),
    "idle": Operation("IDLE: delivery to EXISTS", "imap",
                      "imap-idle-latency --clients 24 --active 4 --pace-ms 50", 0, 10, 5, users=IDLE_USERS,
                      judged="ms p50"),
    "slow": Operation(f"deliver 20 kB, 16 clients, each sync {SLOW_SYNC_MS} ms slower", "lmtp",
                      "deliver --size 20k --clients 16", 0, 3.0, 3.0, slow=True),
}
DOVECOT_CONF = """
import_environment = $import_environment LD_PRELOAD SLOW_SYNC_MS
base_dir = {dir}/run
state_dir = {dir}/state
log_path = {dir}/log
protocols = imap pop3 lmtp
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
auth_cache_size = 10M
auth_failure_delay = 0 secs
mail_location = sdbox:~/mail
mail_fsync = always
mail_uid = mail
mail_gid = mail
first_valid_uid = 1
mail_max_userip_connections = 1000
default_client_limit = 8000
default_process_limit = 600
namespace inbox {{
  inbox = yes
  separator = /
}}
passdb {{
  driver = static
  args = password={password}
}}
userdb {{
  driver = static
  args = uid=mail gid=mail home={dir}/homes/%u allow_all_users=yes
}}
service imap-login {{
  service_count = 0
  process_limit = 2
  inet_listener imap {{
    port = {imap}
  }}
}}
service pop3-login {{
  service_count = 0
  process_limit = 2
  inet_listener pop3 {{
    port = {pop3}
  }}
}}
service imap {{
  service_count = 256
  process_min_avail = 2
}}
service pop3 {{
  service_count = 256
}}
service lmtp {{
  service_count = 0
  process_min_avail = 8
  inet_listener lmtp {{
    port = {lmtp}
  }}
}}
"""


class Dovecot:
    def __init__(self, base_port):
        program = shutil.which("dovecot", path=os.environ.get("PATH", "") + ":/usr/sbin")
        if not program:
            sys.exit("no Dovecot here: apt-get install dovecot-imapd dovecot-pop3d dovecot-lmtpd")
        self.keep = tempfile.TemporaryDirectory(prefix="dovecot-bench-")
        home = pathlib.Path(self.keep.name)
        home.chmod(0o755)
        for name in ("run", "state", "homes"):
            (home / name).mkdir()
        (home / "homes").chmod(0o777)
        self.ports = {name: base_port + k for k, name in enumerate(("imap", "pop3", "lmtp"))}
        # Those of an earlier one are let go soon.
        deadline = time.monotonic() + 15
        while taken := [port for port in self.ports.values() if is_taken(port)]:
            if time.monotonic() > deadline:
                sys.exit(f"somebody else listens on port {taken[0]}: choose another --dovecot-port")
            time.sleep(0.1)
        conf = home / "dovecot.conf"
        conf.write_text(DOVECOT_CONF.format(dir=home, password=PASSWORD, **self.ports))
        self.process = subprocess.Popen([program, "-F", "-c", str(conf)], stderr=subprocess.DEVNULL)
        try:
            for port in self.ports.values():
                wait_for(port, self.process)
        except BaseException:
            self.close()
            raise

    def address(self, port):
        return f"127.0.0.1:{self.ports[port]}"

    def pids(self):
        return [self.process.pid]

    def close(self):
        end(self.process)
        self.keep.cleanup()


class Cluster:
    def __init__(self, rookery):
        self.demo = Demo(rookery, "--accounts", "72", "--password", PASSWORD, "--no-sample-mail")

    def address(self, port):
        return ",".join(self.demo.addresses(port))

    def pids(self):
        return [p["pid"] for p in self.demo.processes()]

    def close(self):
        self.demo.close()


def is_taken(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(port, process):
    """Waits until this process listens."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline and process.poll() is None:
        if is_taken(port):
            return
        time.sleep(0.05)
    sys.exit(f"nothing listens on port {port}" + ("" if process.poll() is None else ": the server ended"))


def cpu_ms(pids):
    """What these processes and all below them took so far, those that ended included."""
    tick_ms = 1000 / os.sysconf("SC_CLK_TCK")
    took, below = {}, {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            took[int(entry.name)] = sum(map(int, fields[11:15])) * tick_ms
            below.setdefault(int(fields[1]), []).append(int(entry.name))
    total, open_pids = 0.0, list(pids)
    while open_pids:
        pid = open_pids.pop()
        total += took.pop(pid, 0.0)
        open_pids += below.pop(pid, [])
    return total


def load(a, side, port, words, users, limits):
    command = [a.mailload, *words, "--addr", side.address(port), "--password", PASSWORD,
               "--users", f"u%04d@example.test:{users[0]}-{users[1]}", *limits]
    if words[0] in ("mixed", "imap-idle-latency"):
        command += ["--lmtp", side.address("lmtp").split(",")[0]]
    if words[0] == "mixed":
        command += ["--pop3", side.address("pop3").split(",")[0]]
    done = subprocess.run(command, capture_output=True, text=True)
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


def measure(a, side, operation, filled):
    users = operation.users
    drains = operation.port == "pop3"
    if operation.fill and (drains or (side, users) not in filled):
        count = operation.fill * (users[1] - users[0] + 1)
        fill = ["deliver", "--size", "20k", "--clients", "16"]
        # Why again: Dovecot refuses one of two first messages of an account that come at the same moment.
        for _ in range(FILLS_MAX):
            filling = load(a, side, "lmtp", fill, users, ["--count", str(count)])
            count -= filling["ops"]
            if count <= 0:
                break
        else:
            sys.exit(f"{count} messages were not delivered before {operation.label}: {filling}")
        filled.add((side, users))
    before = cpu_ms(side.pids())
    limits = [] if drains else ["--seconds", str(a.seconds)]
    result = load(a, side, operation.port, operation.words, users, limits)
    result["cpu_ms"] = (cpu_ms(side.pids()) - before) / max(1, result["ops"])
    return result


def row(operation, ours, theirs):
    median = lambda results, key: statistics.median(result.get(key) or 0 for result in results)
    rates = median(ours, "ops_per_s"), median(theirs, "ops_per_s")
    p50, p99 = (tuple(median(results, key) for results in (ours, theirs)) for key in ("p50_ms", "p99_ms"))
    errors = [sum(result["errors"] for result in results) for results in (ours, theirs)]
    ratio = lambda pair: pair[0] / pair[1] if pair[1] else 0.0
    if operation.judged == "rate":
        value = ratio(rates)
        fine = value >= operation.must
    else:
        value = p50[0] if operation.judged == "ms p50" else ratio(p50)
        fine = value <= operation.must
    what = "" if operation.judged == "rate" else " " + operation.judged
    pair = lambda values, digits: " / ".join(f"{value:.{digits}f}" for value in values)
    cells = [operation.label, *(f"{rate:.0f}" for rate in rates), f"{value:.2f}{what}", f"{operation.must}",
             f"{operation.aim}", pair(p50, 1), pair(p99, 1),
             pair((median(ours, "cpu_ms"), median(theirs, "cpu_ms")), 2), pair(errors, 0)]
    # Why of both: a side that fails, or does nothing, is beaten by anybody.
    worked = all(result["ops"] > 0 for result in ours + theirs)
    return fine and worked and not any(errors), "| " + " | ".join(cells) + " |"


def machine():
    names = (line for line in open("/proc/cpuinfo") if line.startswith("model name"))
    model = next((line.split(":")[1].strip() for line in names), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    return f"{os.cpu_count()} cores ({model or platform.machine()}), {memory} GiB, Linux {platform.release()}"


def write(path, begin, end, lines):
    """Puts lines between two marks of a file."""
    head, _, rest = path.read_text().partition(begin)
    _, mark, tail = rest.partition(end)
    if not mark:
        sys.exit(f"{path} has no {begin} and {end}")
    path.write_text(head + begin + "\n" + "\n".join(lines) + "\n" + end + tail)


def slow_syncs(directory):
    """What makes the syncs of a process slow that is started with it."""
    library = pathlib.Path(directory) / "slow_sync.so"
    pathlib.Path(directory).chmod(0o755)
    source = pathlib.Path(__file__).resolve().parent / "slow_sync.c"
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, source], check=True)
    return {"LD_PRELOAD": str(library), "SLOW_SYNC_MS": str(SLOW_SYNC_MS)}


def sitting(a, operations, environment, lines):
    """Measures operations with servers that have this environment too; whether all are as they must be."""
    all_fine, filled = True, set()
    os.environ.update(environment)
    # Each is closed, whatever becomes of the other.
    with contextlib.ExitStack() as opened:
        dovecot = Dovecot(a.dovecot_port)
        opened.callback(dovecot.close)
        cluster = Cluster(a.rookery)
        opened.callback(cluster.close)
        for name in environment:
            del os.environ[name]
        for operation in operations:
            results = {cluster: [], dovecot: []}
            for _ in range(a.rounds):
                for side in (cluster, dovecot):
                    results[side].append(measure(a, side, operation, filled))
            fine, line = row(operation, results[cluster], results[dovecot])
            all_fine &= fine
            lines.append(line)
            print(line, flush=True)
    return all_fine


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mailload", required=True)
    parser.add_argument("--rookery", default=str(ROOT / "target/release/rookery"))
    parser.add_argument("--only", default=",".join(OPERATIONS))
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dovecot-port", type=int, default=19143)
    parser.add_argument("--write", type=pathlib.Path)
    a = parser.parse_args()
    unknown = [name for name in a.only.split(",") if name not in OPERATIONS]
    if unknown:
        sys.exit(f"no operation {unknown[0]}: one of {' '.join(OPERATIONS)}")
    lines = ["| operation | ours/s | Dovecot/s | ratio | must | aim | p50 ms | p99 ms | CPU ms each | errors |",
             "|---|---|---|---|---|---|---|---|---|---|"]
    print("\n".join(lines), flush=True)
    all_fine = True
    for slow in (False, True):
        operations = [OPERATIONS[name] for name in a.only.split(",") if OPERATIONS[name].slow == slow]
        if operations:
            with tempfile.TemporaryDirectory(prefix="rookery-bench-") as keep:
                all_fine &= sitting(a, operations, slow_syncs(keep) if slow else {}, lines)
    lines.append(f"\nThree nodes and two frontends against one Dovecot, all on {machine()}.")
    print(lines[-1])
    if a.write:
        write(a.write, BEGIN, END, lines)
    sys.exit(0 if all_fine else 1)


if __name__ == "__main__":
    run_to_end(main)
