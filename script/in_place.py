"""Check the service where it stands, unrendered, and run tests/unit: the tier `unit`.

It needs .venv-service, which script/test makes. Exit status 1 when a step is red. `--no-pytest`
leaves out tests/unit. Other arguments go to pytest.
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


def lanes(pytest: tuple[str, ...]) -> list[list[Step]]:
    """The steps of each lane, one after the other; the lanes run side by side.

    `pytest` is the command for the template's own unit tests; without it, they are left out.
    """
    service = [
        of_the_service("migrations", "makemigrations", "--check", "--dry-run", **NO_DATABASE),
        of_the_service("the service's own tests", "test"),
    ]
    template = [
        Step("ruff check", ("ruff", "check", ".")),
        Step("ruff format", ("ruff", "format", "--check", ".")),
        Step("mypy", ("mypy",)),
    ]
    return [service, [*template, *([Step("tests/unit", pytest)] if pytest else [])]]


def run_all(lane: list[Step]) -> list[str]:
    """Run each step of the lane, and return the names of the red ones."""
    return [step.name for step in lane if not step.run()]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-pytest", action="store_true", help="leave out tests/unit")
    options, more = parser.parse_known_args(arguments)
    started = time.monotonic()
    in_place.prepare()
    pytest = ("pytest", "-q", "-rs", "-p", "no:cacheprovider", "tests/unit", *more)
    both = lanes(() if options.no_pytest else pytest)
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
