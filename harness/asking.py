"""The scripts of inside/, run by a service's own Python with its own settings."""

import json
import sys
from pathlib import Path

import pytest

from harness.processes import Failed
from harness.pythons import OTHERS, RUNNING, others

INSIDE = Path(__file__).parent / "inside"
ANSWERED = (0, "celery True\nredis-py True\n")

EVERY_PYTHON = pytest.mark.parametrize("version", [RUNNING, *OTHERS])


def python_of(version):
    """The path of that Python; skips the test where there is none."""
    if version == RUNNING:
        return sys.executable
    if version not in others():
        pytest.skip(f"NOT TESTED: Python {version} is not on this machine")
    return others()[version]


def run_inside(place, script, *arguments):
    """The finished process of a script of inside/."""
    project = place.project
    command = [str(project.python), str(INSIDE / script), *arguments]
    return project.run(command)


def report_of(place, script, *arguments):
    """The JSON that it prints, after whatever it logs."""
    done = run_inside(place, script, *arguments)
    if done.returncode:
        raise Failed(f"{script} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def ask(place):
    """(exit code, everything printed) of a process that connects to Redis; ANSWERED if it can."""
    done = run_inside(place, "ask.py")
    return done.returncode, done.stdout + done.stderr
