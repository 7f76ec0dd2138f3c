"""Processes of one run: tests of a group stay in one, and what all share is made once."""

import re
import subprocess
import sys

import pytest

from harness.deployments import made_once

TESTS = """
import pytest

@pytest.mark.xdist_group("shared")
@pytest.mark.parametrize("number", range(6))
def test_shares(number):
    pass
"""


def test_a_group_stays_in_one_process(tmp_path):
    """Versions of pytest and pytest-xdist that do not fit lose this without a word."""
    (tmp_path / "test_it.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-n", "2"]
    done = subprocess.run(
        [*command, "--dist", "loadgroup"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
    processes = re.findall(r"^\[(gw\d)\] .* PASSED", done.stdout, re.MULTILINE)
    assert len(processes) == 6
    assert len(set(processes)) == 1


def test_what_was_left_unfinished_is_made_again(tmp_path):
    path, made = tmp_path / "venv", []

    def fail():
        path.mkdir()
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError):
        made_once(path, fail)
    for _ in range(2):
        made_once(path, lambda: made.append(path))
    assert made == [path]
