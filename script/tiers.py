"""Run the tests in three tiers: what ./script/test does once it has installed what they need.

unit  the service in place, unrendered: lint, types, its own tests; and tests/unit
bake  tests/bake: every combination of answers is rendered and judged by parsers
live  tests/live: real servers, real workers, real supervisor

Only `--all` runs the tests that are marked `all`. Other arguments are pytest's.
Exit status 1 when a tier is red.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import redis_server, tallies

TIERS = ("unit", "bake", "live")
WHOLE = "--all"
CORES = os.cpu_count() or 1
# A bake keeps a core busy. The live tests mostly wait.
PROCESSES = {"bake": CORES, "live": 3 * CORES}


def chosen(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Split a command line into the tiers that it names, by default all, and pytest's options."""
    count = next((n for n, word in enumerate(arguments) if word not in TIERS), len(arguments))
    named, options = arguments[:count], arguments[count:]
    if options and not options[0].startswith("-"):
        sys.exit(f"./script/test: {options[0]!r} is no tier and no path: see ./script/test --help")
    return [tier for tier in TIERS if tier in named] or list(TIERS), options


def command_of(tier: str, options: list[str]) -> list[str]:
    """The command that runs this tier."""
    if tier == "unit":
        return [sys.executable, "-m", "script.in_place", *options]
    # Each test is handed out by itself, but for groups that share what is dear to make.
    side_by_side = ["-n", str(PROCESSES[tier]), "--dist", "loadgroup"]
    return ["pytest", "-q", "-rs", f"tests/{tier}", *side_by_side, *options]


def run(tier: str, options: list[str], proven: Path) -> bool:
    """Run a tier, and return whether it is green. What it has proven goes to the file `proven`."""
    command = command_of(tier, options)
    print(f"\n{tier}: {' '.join(command)}", flush=True)
    variables = os.environ | {tallies.FILE: str(proven)}
    started = time.monotonic()
    green = subprocess.run(command, env=variables).returncode == 0
    print(f"{tier}: {'green' if green else 'RED'} ({time.monotonic() - started:.0f} s)", flush=True)
    return green


def main(arguments: list[str]) -> int:
    tiers, options = chosen(arguments)
    with tempfile.TemporaryDirectory() as folder:
        proven = Path(folder, "proven")
        red = [tier for tier in tiers if not run(tier, options, proven)]
        print("\nProven by these tests:")
        print(*(f"  {line}" for line in tallies.from_file(proven)), sep="\n")
    if "live" in tiers and not redis_server.find_server():
        print("THE LIVE TESTS WERE SKIPPED for want of a redis-server with TLS: half a verdict.")
    if WHOLE not in options:
        print("./script/test --all varies what they have shown.")
    print(f"{', '.join(tiers)}: {'RED: ' + ', '.join(red) if red else 'green'}", flush=True)
    return 1 if red else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
