"""The floor of the coverage that `./script/test unit --coverage` reports."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tomllib

from harness import in_place
from harness.answers import ROOT
from script import in_place as unit

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
FLOOR = PROJECT["tool"]["coverage"]["report"]["fail_under"]
HALF = "import sys\nif len(sys.argv) > 9:\n    x = 1\n    y = 2\n    z = 3\nelse:\n    x = 4\n"


@pytest.fixture
def report(tmp_path, monkeypatch):
    """report(text) -> whether what is measured of this program reaches the floor."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(unit, "ROOT", tmp_path)
    data = {lane: tmp_path / f".coverage.{lane}" for lane in unit.MEASURED}
    monkeypatch.setattr(unit, "MEASURED", data)

    def report(text):
        for lane in data:
            program = Path(lane, "program.py")
            program.parent.mkdir(exist_ok=True)
            program.write_text(text)
            run = [sys.executable, "-m", "coverage", *unit.measured(lane, lane), str(program)]
            subprocess.run(run, check=True)
        return unit.run_all(unit.verdict_of_coverage(tmp_path))

    return report


def test_the_floor_does_not_slip():
    assert FLOOR >= 77, "D-82 says what is measured. A lower floor needs its reason there."


def test_a_program_that_is_run_as_a_whole_reaches_the_floor(report):
    assert report("x = 1\n") == []


def test_half_a_program_is_red_and_what_is_missing_is_shown(report, capfd):
    assert report(HALF) == ["coverage"]
    assert f"is less than fail-under={FLOOR}" in capfd.readouterr().out


def test_branches_count(report, capfd):
    """Each line is run, and one way of two is not."""
    report("x = 1\nif x:\n    x = 2\nprint(x)\n")
    (line,) = [line for line in capfd.readouterr().out.splitlines() if "service/program.py" in line]
    assert "100" not in line


def test_the_service_is_measured_without_a_package_of_its_own(tmp_path):
    program = tmp_path / "program.py"
    program.write_text("import coverage, sys\nprint(coverage.__file__)\n")
    command = [in_place.PYTHON, unit.COVERED, unit.coverages_folder()]
    arguments = ["run", f"--data-file={tmp_path / 'data'}", str(program)]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).parent == Path(unit.coverages_folder())
    assert (tmp_path / "data").exists()
    alone = [in_place.PYTHON, "-c", "import coverage"]
    assert subprocess.run(alone, capture_output=True, cwd=tmp_path).returncode == 1


@pytest.mark.parametrize(
    ("arguments", "measures"),
    [([], False), (["--coverage"], True), (["--all"], True), (["--all", "-k", "url"], False)],
)
def test_all_measures_and_a_choice_of_tests_does_not(arguments, measures):
    assert unit.parse(arguments)[0].coverage is measures
