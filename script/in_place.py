"""Check the service where it stands, unrendered, and run tests/unit: the tier `unit`.

It needs .venv-service, as script/test makes and prepares it. Exit status 1 when a step is red.
`--no-pytest` leaves out tests/unit. `--coverage` measures both, and is red below the floor that
pyproject.toml has; `--all` does so, too. Other arguments go to pytest.
"""

import argparse
import importlib.util
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

# Where each lane keeps what it has measured.
COVERED = ROOT / "harness" / "inside" / "covered.py"
MEASURED = {lane: ROOT / f".coverage.{lane}" for lane in ("service", "template")}

# Pytest's exit status when no test was selected.
NONE_SELECTED = 5

_printing = threading.Lock()


@dataclass(frozen=True)
class Step:
    """One program of the check, and what it needs."""

    name: str
    command: tuple[str, ...]
    folder: Path = ROOT
    variables: dict[str, str] = field(default_factory=dict)
    shown: bool = False
    right: tuple[int, ...] = (0,)  # exit statuses

    def run(self) -> bool:
        """Whether it is green. What it printed is shown when it is red, or if it is `shown`."""
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
        green = done.returncode in self.right
        seconds = time.monotonic() - started
        with _printing:
            print(f"{'green' if green else 'RED':5} {seconds:5.1f} s  {self.name}", flush=True)
            if self.shown or not green:
                print(done.stdout, flush=True)
        return green


def of_the_service(name: str, *program: str, **variables: str) -> Step:
    """A step of the service's Python in place, with the rendered defaults as variables."""
    development = {"DEBUG": "true", "LOG_LEVEL": "ERROR"}
    command = (str(in_place.PYTHON), *in_place.DEPRECATED, *program)
    return Step(name, command, SERVICE, in_place.defaults() | development | variables)


def coverages_folder() -> str:
    """Where this Python has the package coverage, which the service's environment has not."""
    found = importlib.util.find_spec("coverage")
    assert found and found.origin, "./script/test installs coverage, which is not there."
    return str(Path(found.origin).parent)


def measured(lane: str, source: str) -> tuple[str, ...]:
    """The arguments with which coverage runs a program, so that it measures these folders."""
    configuration = f"--rcfile={ROOT / 'pyproject.toml'}"
    return ("run", configuration, f"--data-file={MEASURED[lane]}", f"--source={source}")


def verdict_of_coverage(folder: Path = ROOT) -> list[Step]:
    """The steps that add up what both lanes have measured, and compare it with the floor."""
    files = [str(path) for path in MEASURED.values() if path.exists()]
    return [
        Step("coverage combine", ("coverage", "combine", "-q", *files), folder),
        Step("coverage", ("coverage", "report"), folder, shown=True),
    ]


def right_statuses(options: list[str]) -> tuple[int, ...]:
    """The exit statuses of a green pytest. A choice among tests may be meant for another tier."""
    chooses = any(option.startswith(("-k", "-m")) for option in options)
    return (0, NONE_SELECTED) if chooses else (0,)


def of_the_template(options: list[str], coverage: bool) -> Step:
    """The step that runs tests/unit, with these options of pytest."""
    command = ("pytest", "-q", "-rs", "-p", "no:cacheprovider", "tests/unit", *options)
    if coverage:  # It cannot look into the processes of pytest-xdist.
        command = ("coverage", *measured("template", "hooks,script"), "-m", *command)
    else:
        command += ("-n", "2", "--dist", "loadgroup")
    return Step("tests/unit", command, right=right_statuses(options))


def lanes(last: list[Step], coverage: bool) -> list[list[Step]]:
    """The steps of each lane, one after the other; the lanes run side by side.

    `last` are further steps of the template's lane.
    """
    migrations = ("manage.py", "makemigrations", "--check", "--dry-run")
    tests: tuple[str, ...] = ("manage.py", "test")
    if coverage:
        tests = (str(COVERED), coverages_folder(), *measured("service", "."), *tests)
    service = [
        of_the_service("migrations", *migrations, **NO_DATABASE),
        of_the_service("the service's own tests", *tests),
    ]
    template = [
        Step("ruff check", ("ruff", "check", ".")),
        Step("ruff format", ("ruff", "format", "--check", ".")),
        Step("mypy", ("mypy",)),
    ]
    return [service, template + last]


def run_all(lane: list[Step]) -> list[str]:
    """Run each step of the lane, and return the names of the red ones."""
    return [step.name for step in lane if not step.run()]


def parse(arguments: list[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Return our own options, and those of pytest."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--no-pytest", action="store_true", help="leave out tests/unit")
    parser.add_argument("--coverage", action="store_true", help="measure it, and judge the floor")
    options, more = parser.parse_known_args(arguments)
    # With a choice of tests, the floor would be missed for no fault of theirs.
    options.coverage = options.coverage or more == ["--all"]
    return options, more


def main(arguments: list[str] | None = None) -> int:
    options, more = parse(arguments)
    started = time.monotonic()
    last = [] if options.no_pytest else [of_the_template(more, options.coverage)]
    both = lanes(last, options.coverage)
    with ThreadPoolExecutor(len(both)) as pool:
        red = [name for names in pool.map(run_all, both) for name in names]
    if options.coverage:
        red += run_all(verdict_of_coverage())
    leftovers = in_place.ignored_files(SERVICE)
    if leftovers:
        print("RED          left below the service's folder:", *leftovers, flush=True)
        red.append("leftovers")
    verdict = f"RED: {', '.join(red)}" if red else "green"
    print(f"In place, unrendered: {verdict} ({time.monotonic() - started:.0f} s)", flush=True)
    return 1 if red else 0


if __name__ == "__main__":
    sys.exit(main())
