"""pytest-xdist keeps tests of one group in one process, which makes what they share once."""

import re
import subprocess
import sys

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
