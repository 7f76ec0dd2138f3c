"""A process that a test leaves behind is seen; one that is just ending is waited for."""

import subprocess

import pytest

from harness import leftovers
from harness.leftovers import nothing_left_in


def test_a_child_that_stays_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(leftovers, "ENDING", 0.3)
    with (
        pytest.raises(AssertionError, match=r"processes left over: \{\d+: 'sleep 60'\}"),
        nothing_left_in(tmp_path),
    ):
        child = subprocess.Popen(["sleep", "60"])
    child.kill()
    child.wait()


def test_an_orphan_that_works_in_the_folder_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(leftovers, "ENDING", 0.3)
    with pytest.raises(AssertionError, match="processes left over"), nothing_left_in(tmp_path):
        command = ["sh", "-c", "sleep 61 >/dev/null 2>&1 & echo $!"]
        orphan = int(subprocess.check_output(command, cwd=tmp_path))
    subprocess.run(["kill", str(orphan)], check=True)


def test_a_child_that_is_ending_is_waited_for(tmp_path):
    with nothing_left_in(tmp_path):
        child = subprocess.Popen(["sleep", "0.5"])
    child.wait()
