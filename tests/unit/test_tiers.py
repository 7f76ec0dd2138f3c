"""The command line of ./script/test, after the installation."""

import re
import shutil
import subprocess

import pytest

from harness.answers import ROOT
from script import in_place, tiers


@pytest.mark.parametrize(
    ("line", "named", "options"),
    [
        ("", ["unit", "bake", "live"], []),
        ("--all", ["unit", "bake", "live"], ["--all"]),
        ("-x --durations=9", ["unit", "bake", "live"], ["-x", "--durations=9"]),
        ("live", ["live"], []),
        ("live unit", ["unit", "live"], []),
        ("bake --all -k upstash", ["bake"], ["--all", "-k", "upstash"]),
        ("--all live", ["live"], ["--all"]),
        ("unit --coverage", ["unit"], ["--coverage"]),
    ],
)
def test_a_line_names_tiers_and_then_options_of_pytest(line, named, options):
    assert tiers.chosen(line.split()) == (named, options)


def test_a_word_that_is_no_tier_is_refused():
    with pytest.raises(SystemExit, match="'fast' is no tier and no path: see ./script/test --help"):
        tiers.chosen(["unit", "fast"])


def test_coverage_is_of_the_tier_unit():
    with pytest.raises(SystemExit, match="only the tier unit has --coverage"):
        tiers.chosen(["--coverage"])


@pytest.fixture
def only(monkeypatch):
    """only(tier) lets each tier be a command that is green for that one alone."""

    def only(tier):
        monkeypatch.setattr(tiers, "command_of", lambda each, options: ["test", each, "=", tier])

    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(tiers.redis_server, "find_server", lambda: "redis-server")
    return only


def test_a_red_tier_makes_the_whole_red_and_the_others_run(only, capfd):
    only("live")
    assert tiers.main(["bake", "live"]) == 1
    said = capfd.readouterr().out
    assert "bake: RED" in said
    assert "live: green" in said
    assert said.endswith("bake, live: RED: bake\n")
    assert tiers.main(["live"]) == 0


@pytest.mark.parametrize(("line", "status"), [("live", 1), ("live -k nothing", 0), ("live -x", 1)])
def test_a_tier_without_tests_is_green_only_where_the_line_chooses(line, status, only, monkeypatch):
    none_selected = ["sh", "-c", f"exit {in_place.NONE_SELECTED}"]
    monkeypatch.setattr(tiers, "command_of", lambda tier, options: none_selected)
    assert tiers.main(line.split()) == status


@pytest.mark.parametrize(
    ("line", "variables", "status"),
    [("", {}, 0), ("", {"CI": "true"}, 1), ("--all", {}, 1), ("live", {}, 1), ("unit", {}, 0)],
)
def test_whoever_asks_for_the_live_tests_is_not_told_green_without_a_server(
    line, variables, status, only, monkeypatch, capfd
):
    monkeypatch.setattr(tiers, "command_of", lambda tier, options: ["true"])
    monkeypatch.setattr(tiers.redis_server, "find_server", lambda: None)
    for name, text in variables.items():
        monkeypatch.setenv(name, text)
    assert tiers.main(line.split()) == status
    skipped = "THE LIVE TESTS WERE SKIPPED for want of a redis-server"
    assert (skipped in capfd.readouterr().out) == (line != "unit")


# Modules without a test in the short run, and why.
ONLY_WITH_ALL = {
    "test_clocks.py": "the faults in the short run are one of each kind of cause",
    "test_sweep.py": "it waits for sweeps; the service's own tests have the queries",
    "test_connections.py": "counts under load, which need most of a machine",
    "test_cookiecutter_pythons.py": "other Pythons",
    "test_demo.py": "it installs and starts what the other tests use",
    "test_django.py": "another Django",
    "test_versions.py": "other versions of redis-py and kombu",
    "test_what_is_caught.py": "it runs tests of the short run",
}


def test_few_modules_have_no_test_in_the_short_run():
    folder = ROOT / "tests"
    found = set()
    for path in folder.rglob("test_*.py"):
        text = path.read_text("utf-8")
        whole = re.search(r"^pytestmark = .*pytest\.mark\.all", text, re.MULTILINE)
        marked = text.count("\n@pytest.mark.all\n") >= len(re.findall(r"^def test_", text, re.M))
        if whole or marked:
            found.add(path.name)
    assert found == ONLY_WITH_ALL.keys()


# The command itself


@pytest.fixture
def script_test(tmp_path):
    """script_test(*words) -> the ended command, in a folder where nothing can be installed."""
    shutil.copytree(ROOT / "script", tmp_path / "script")
    (tmp_path / "tests").mkdir()

    def script_test(*words):
        command = [tmp_path / "script" / "test", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    return script_test


def test_a_word_that_is_nothing_is_refused_before_anything_is_installed(script_test):
    done = script_test("bogus")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "script/test: 'bogus' is no tier and no path: see ./script/test --help\n"
    )


def test_help_is_a_word_of_its_own(script_test):
    assert "./script/test unit" in script_test("unit", "--help").stdout
    assert "./script/test unit" not in script_test("unit", "-k", "a -h b").stdout
