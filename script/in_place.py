"""Check the service where it stands, unrendered, in two lanes: what `./script/test unit` runs.

It needs .venv-service, which script/test makes. Exit status 1 when a step is red. `--no-pytest`
leaves out the template's fast tests, for whoever runs all of them next.
"""

import argparse
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from harness import in_place
from harness.answers import ROOT, SERVICE

# The template's tests that start no server and bake little.
FAST_TESTS = (
    "tests/unit/test_in_place.py",
    "tests/unit/test_rooms.py",
    "tests/unit/test_facts.py",
    "tests/unit/test_post_gen.py",
)

# Not the developer's own database, which would be made below the template's folder.
NO_DATABASE = {"DATABASE_URL": "sqlite://:memory:"}

_printing = threading.Lock()


@dataclass(frozen=True)
class Step:
    """One program of the check, and what it needs."""

    name: str
    command: tuple[str, ...]
    folder: Path = ROOT
    variables: dict[str, str] = field(default_factory=dict)

    def run(self) -> bool:
        """Whether it is green. What it printed is shown when it is red."""
        started = time.monotonic()
        done = subprocess.run(
            self.command,
            cwd=self.folder,
            env=os.environ | self.variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        green = done.returncode == 0
        seconds = time.monotonic() - started
        with _printing:
            print(f"{'green' if green else 'RED':5} {seconds:5.1f} s  {self.name}", flush=True)
            if not green:
                print(done.stdout, flush=True)
        return green


def of_the_service(name: str, *arguments: str, **variables: str) -> Step:
    """A step that runs manage.py in place, with the rendered defaults as environment variables."""
    development = {"DEBUG": "true", "LOG_LEVEL": "ERROR"}
    command = (str(in_place.PYTHON), *in_place.DEPRECATED, "manage.py", *arguments)
    return Step(name, command, SERVICE, in_place.defaults() | development | variables)


def lanes(with_pytest: bool) -> list[list[Step]]:
    """The steps of each lane, one after the other; the lanes run side by side."""
    service = [
        of_the_service("migrations", "makemigrations", "--check", "--dry-run", **NO_DATABASE),
        of_the_service("the service's own tests", "test"),
    ]
    template = [
        Step("ruff check", ("ruff", "check", ".")),
        Step("ruff format", ("ruff", "format", "--check", ".")),
        Step("mypy", ("mypy",)),
    ]
    if with_pytest:
        pytest = ("pytest", "-q", "-p", "no:cacheprovider", *FAST_TESTS)
        template.append(Step("the template's fast tests", pytest))
    return [service, template]


def run_all(lane: list[Step]) -> list[str]:
    """Run each step of the lane, and return the names of the red ones."""
    return [step.name for step in lane if not step.run()]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-pytest", action="store_true", help="leave out the template's tests")
    options = parser.parse_args(arguments)
    started = time.monotonic()
    in_place.prepare()
    both = lanes(with_pytest=not options.no_pytest)
    with ThreadPoolExecutor(len(both)) as pool:
        red = [name for names in pool.map(run_all, both) for name in names]
    leftovers = in_place.ignored_files(SERVICE)
    if leftovers:
        print("RED          left below the service's folder:", *leftovers, flush=True)
        red.append("leftovers")
    verdict = f"RED: {', '.join(red)}" if red else "green"
    print(f"In place, unrendered: {verdict} ({time.monotonic() - started:.0f} s)", flush=True)
    return 1 if red else 0


if __name__ == "__main__":
    sys.exit(main())
