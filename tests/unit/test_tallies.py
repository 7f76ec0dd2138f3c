"""Tallies: what each process of a run has counted is printed once, as one sum."""

import re
import subprocess
import sys

import pytest

from harness import tallies
from harness.answers import ROOT

CONFTEST = """
from harness import tallies

def pytest_configure(config):
    tallies.register(config)
"""
TESTS = """
import os

import pytest

from harness import tallies

@pytest.mark.parametrize("number", range(1, 5))
def test_counts(number):
    tallies.proven(services_started=1)
    tallies.tally("bad servers", "pinned", tried=number, bytes=0)
    tallies.slowest("seconds", "refusal", number)

def test_ends_its_process():
    if "ENDS" in os.environ:
        os._exit(1)
"""
PRINTED = """
== bad servers ==
pinned: 10 tried, 0 bytes
== seconds ==
  4.0 s refusal
== proven by this run ==
4 services started
"""


def printed(folder, *arguments, fails=False, **environment):
    """Run these tests with pytest; return the sections that it prints."""
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_it.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--color=no"]
    done = subprocess.run(
        [*command, *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == fails, done.stdout
    return re.sub("=(=+) (.+) =(=+)", r"== \2 ==", done.stdout)


@pytest.mark.parametrize("arguments", [["-n", "2"], ["-n", "0"], ["-p", "no:xdist"]], ids=" ".join)
def test_one_process_or_several_print_the_same(arguments, tmp_path):
    assert PRINTED in printed(tmp_path, *arguments)


def test_a_process_that_ended_without_its_numbers_is_told(tmp_path):
    text = printed(tmp_path, "-n", "1", fails=True, ENDS="1")
    assert "\nMissing: the numbers of 1 processes that crashed.\n" in text


def test_the_slowest_come_first_and_what_was_proven_last():
    sums = {tallies.PROVEN: {"": {"handshakes": 62244}}, "matrix": {"pins": {"right": 1}}}
    seconds = {"faults": {"a stall": 3.21, "a drop": 45.0}}
    assert tallies.report(sums, seconds) == {
        "matrix": ["pins: 1 right"],
        "faults": [" 45.0 s a drop", "  3.2 s a stall"],
        tallies.PROVEN: ["62,244 handshakes"],
    }


def test_nothing_is_printed_where_nothing_was_counted():
    assert tallies.report({}, {}) == {}


def test_several_runs_add_up_in_a_file(tmp_path):
    """A process of pytest-xdist leaves the file to the first one, or it would count twice."""
    proven = tmp_path / "proven"
    for arguments in (["-n", "2"], ["-n", "0"]):
        printed(tmp_path, *arguments, **{tallies.FILE: str(proven)})
    assert tallies.from_file(proven) == ["8 services started"]
    assert tallies.from_file(tmp_path / "none") == []
