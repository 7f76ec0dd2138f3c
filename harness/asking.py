"""The scripts of inside/, run by a service's own Python with its own settings."""

import json
import sys
from pathlib import Path

import pytest

from harness.processes import Failed
from harness.pythons import OTHERS, RUNNING, others

INSIDE = Path(__file__).parent / "inside"
ANSWERED = (0, "celery True\nredis-py True\n")

# Tests of one version stay in one process of pytest-xdist, which makes what they share once.
EVERY_PYTHON = pytest.mark.parametrize(
    "version",
    [
        pytest.param(RUNNING, marks=pytest.mark.xdist_group(f"Python {RUNNING}")),
        *(
            pytest.param(other, marks=[pytest.mark.xdist_group(f"Python {other}"), pytest.mark.all])
            for other in OTHERS
        ),
    ],
)


def python_of(version):
    """Return the path of that Python; skip the test on a machine without it."""
    if version == RUNNING:
        return sys.executable
    if version not in others():
        pytest.skip(f"NOT TESTED: Python {version} is not on this machine")
    return others()[version]


def run_inside(place, script, *arguments):
    """Run a script of inside/ to its end and return the finished process."""
    project = place.project
    command = [str(project.python), str(INSIDE / script), *arguments]
    return project.run(command)


def report_of(place, script, *arguments):
    """Return the JSON that the script prints, after whatever it logs."""
    done = run_inside(place, script, *arguments)
    if done.returncode:
        raise Failed(f"{script} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def ask(place):
    """Return (exit code, output) of a process that connects to Redis; ANSWERED if Redis answers."""
    done = run_inside(place, "ask.py")
    return done.returncode, done.stdout + done.stderr
