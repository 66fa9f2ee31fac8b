#!/usr/bin/env python3
"""Measures everything there is a figure for, one after the other, and writes both tables of the README.

    tests/bench/all.py --mailload PATH [--write README.md] [--messages 1000000]

Runs compare.py, figures.py and large.py (each says what it measures and needs) and passes on what they
print. Exit status 1 if anything is not as it must be, 2 if one of them was broken off; then the table of
figures is not written. Nothing else should run meanwhile; it takes two hours on two cores, most of them
for the mailbox of --messages messages.
"""
import argparse, pathlib, re, subprocess, sys

from compare import machine, write
from figures import ROOT, run_to_end

BENCH = pathlib.Path(__file__).resolve().parent
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
LINE = re.compile(r"(?P<what>.+?) +limit +(?P<limit>\d+) (?P<unit>[^:]+): +"
                  r"(?P<value>.+?) (?P<verdict>ok|OVER)\b(?P<more>.*)")


def run(lines, program, *arguments):
    """Runs one of them, keeps a row for each figure it prints, and gives whether all was well."""
    command = [sys.executable, str(BENCH / program), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        for line in process.stdout:
            print(line, end="", flush=True)
            if found := LINE.match(line):
                more = found["more"].strip()
                value = found["value"] + (f" ({more})" if more else "")
                cells = [found["what"], value, f"{found['limit']} {found['unit']}", found["verdict"]]
                lines.append("| " + " | ".join(cells) + " |")
        status = process.wait()
        if status not in (0, 1):
            sys.exit(f"{program} was broken off with status {status}")
        return status == 0
    finally:
        process.terminate()
        process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mailload", required=True)
    parser.add_argument("--rookery", default=str(ROOT / "target/release/rookery"))
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--write", type=pathlib.Path)
    a = parser.parse_args()
    both = ["--mailload", a.mailload, "--rookery", a.rookery]
    size = ["--rookery", a.rookery, "--messages", str(a.messages)]
    lines = ["| figure | measured | limit | |", "|---|---|---|---|"]
    fine = [run([], "compare.py", *both, *(["--write", str(a.write)] if a.write else [])),
            run(lines, "figures.py", *both, "--messages", str(a.messages)),
            run(lines, "large.py", *size)]
    lines.append(f"\nMailboxes and nodes of {a.messages:,} messages; {machine()}.")
    if a.write:
        write(a.write, BEGIN, END, lines)
    sys.exit(0 if all(fine) else 1)


if __name__ == "__main__":
    run_to_end(main)
