"""What a frontend holds for clients that do nothing, and how long a header of a great many lines takes."""
import pathlib, resource, socket, ssl, sys, time

IDLE = 10_000
SESSIONS = 5_000
HEADER_LINES = 500_000
PER_ADDRESS = 1_000


def resident_kib(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


def raise_files(wanted):
    """As many open files as the system allows; how many connections that is good for."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    room = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard - 200)
    if room < wanted:
        print(f"only {room} connections: the hard limit of open files is {hard}")
    return room


def connect(number, address):
    """From many addresses of loopback, so that ports do not run out."""
    host, port = address.rsplit(":", 1)
    source = (f"127.9.{number // PER_ADDRESS}.1", 0)
    return socket.create_connection((host, int(port)), 60, source_address=source)


def idle(demo):
    """Extra resident KiB of a frontend for 10,000 connections before login."""
    frontend = demo.processes("frontend")[0]
    n = raise_files(IDLE)
    before = resident_kib(frontend["pid"])
    held = []
    for number in range(n):
        connection = connect(number, demo.addresses("imap")[0])
        if not connection.recv(4).startswith(b"* OK"):
            sys.exit(f"connection {number} was turned away")
        held.append(connection)
    grown = resident_kib(frontend["pid"]) - before
    for connection in held:
        connection.close()
    return [grown * IDLE / n]


def sessions(demo):
    """Resident KiB of a frontend for each of 5,000 idle sessions inside TLS."""
    frontend = demo.processes("frontend")[0]
    trust = ssl.create_default_context(cafile=demo.cluster()["ca"])
    host = demo.addresses("imaps")[0].rsplit(":", 1)[0]
    n = raise_files(SESSIONS)

    def session(number):
        inside = trust.wrap_socket(connect(number, demo.addresses("imaps")[0]), server_hostname=host)
        stream = inside.makefile("rb")
        stream.readline()
        for tag, command in (("a", f"LOGIN u{number % 16 + 1:04}@example.test secret"), ("b", "SELECT INBOX")):
            inside.sendall(f"{tag} {command}\r\n".encode())
            while not (line := stream.readline()).startswith(tag.encode() + b" "):
                if not line:
                    sys.exit(f"session {number} ended")
            if b" OK" not in line:
                sys.exit(f"session {number}: {line!r}")
        inside.sendall(b"c IDLE\r\n")
        if not stream.readline().startswith(b"+"):
            sys.exit(f"session {number} does not idle")
        stream.close()
        return inside

    first = [session(number) for number in range(100)]
    before = resident_kib(frontend["pid"])
    held = [session(number) for number in range(100, 100 + n)]
    grown = resident_kib(frontend["pid"]) - before
    for one in first + held:
        one.close()
    return [grown / n]


def bomb(demo):
    """Milliseconds from the first octet of a message with 500,000 header lines to its 250."""
    message = b"".join(b"X-%d: y\r\n" % n for n in range(HEADER_LINES)) + b"\r\nbody\r\n.\r\n"
    times = []
    for _ in range(3):
        with socket.create_connection(demo.addresses("lmtp")[0].rsplit(":", 1), 60) as connection:
            stream = connection.makefile("rwb")

            def say(octets, want):
                stream.write(octets)
                stream.flush()
                while (reply := stream.readline())[3:4] == b"-":
                    pass
                if not reply.startswith(want):
                    sys.exit(f"{octets[:40]!r}: {reply!r}")

            say(b"", b"220")
            say(b"LHLO figures\r\n", b"250")
            say(b"MAIL FROM:<a@example.test>\r\n", b"250")
            say(b"RCPT TO:<u0001@example.test>\r\n", b"250")
            say(b"DATA\r\n", b"354")
            begun = time.monotonic()
            say(message, b"250")
            times.append((time.monotonic() - begun) * 1000)
    return times
