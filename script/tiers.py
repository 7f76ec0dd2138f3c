"""Run the tests in three tiers: what ./script/test does once it has installed what they need.

unit  the service in place, unrendered: lint, types, its own tests; and tests/unit
bake  tests/bake: every combination of answers is rendered and judged by parsers
live  tests/live: real servers, real workers, real supervisor

Only `--all` runs the tests that are marked `all`. Other arguments are pytest's.
Exit status 1 when a tier is red, or when the live tests were asked for and found no server.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import redis_server, tallies
from script.in_place import right_statuses

TIERS = ("unit", "bake", "live")
WHOLE = "--all"
CORES = os.cpu_count() or 1
# A bake keeps a core busy. The live tests mostly wait, each beside whole services.
PROCESSES = {"bake": CORES, "live": min(3 * CORES, 12)}


def chosen(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Split a command line into the tiers that it names, by default all, and pytest's options."""
    ours = (*TIERS, WHOLE)
    count = next((n for n, word in enumerate(arguments) if word not in ours), len(arguments))
    named, options = arguments[:count], arguments[count:]
    if options and not options[0].startswith("-"):
        sys.exit(f"./script/test: {options[0]!r} is no tier and no path: see ./script/test --help")
    tiers = [tier for tier in TIERS if tier in named] or list(TIERS)
    if "--coverage" in options and tiers != ["unit"]:
        sys.exit("./script/test: only the tier unit has --coverage")
    return tiers, [WHOLE] * (WHOLE in named) + options


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
    status = subprocess.run(command, env=variables).returncode
    green = status in right_statuses(options)
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
        if "live" in arguments or WHOLE in arguments or os.environ.get("CI"):
            red.append("live, skipped")
    elif not red and WHOLE not in options:
        print("./script/test --all also runs what varies these tests, or is slow.")
    verdict = f"RED: {', '.join(red)}" if red else "green"
    print(f"{', '.join(tiers)}: {verdict}", flush=True)
    return 1 if red else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
