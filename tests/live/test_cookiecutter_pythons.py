"""Cookiecutter under every Python that it may run on. The same Python runs the hooks."""

import os
import signal
import sys

import pytest

from harness.answers import ROOT
from harness.cli import Home, tree
from harness.machine import Moment, hook_frames
from harness.processes import Failed, Program, run
from harness.pythons import RUNNING, SUPPORTED, find

pytestmark = pytest.mark.all
# A service needs Python 3.11, but cookiecutter does not.
OTHERS = [version for version in ("3.10", *SUPPORTED) if version != RUNNING]
SECONDS = 300


def requirement():
    """The line of requirements-test.txt that names cookiecutter."""
    lines = (ROOT / "requirements-test.txt").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("cookiecutter")]
    return line


def environment(version, folder):
    """Make a virtual environment with cookiecutter in the folder; return its Python's path."""
    python = find(version)
    if python is None:
        pytest.skip(f"NOT TESTED: Python {version} is not on this machine")
    path = str(folder / "bin" / "python")
    install = [path, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for command in ([python, "-m", "venv", str(folder)], [*install, requirement()]):
        done = run(command, cwd=folder.parent, env=os.environ, seconds=SECONDS)
        if done.returncode:
            raise Failed(f"{command}:\n{done.stdout}{done.stderr}")
    return path


def check_bake(home, template, python, version, whole):
    for name in {*sys.stdlib_module_names, "yaml"}:
        (home.tmp / f"{name}.py").write_text("raise SystemExit('a stray module was imported')\n")
    done = home.cookiecutter(template, python=python)
    said = "Not checked: the syntax of .py and .toml files, which is that of Python 3.11.\n"
    assert (done.returncode, done.stderr) == (0, said if version == "3.10" else "")
    assert done.stdout.endswith("Next: cd my_service && ./script/dev\n")
    assert tree(home.work / "my_service") == whole


def check_refusal(home, template, python):
    answers = {
        "redis_provider": "heroku",
        "cert_strictness": "required",
        "project_slug": "con",
    }
    done = home.cookiecutter(template, python=python, answers=answers)
    assert done.returncode == 1
    assert hook_frames(done) == []
    assert "  - project_slug 'con' is a device on Windows" in done.stderr
    assert "  - cert_strictness 'required' cannot work" in done.stderr
    assert list(home.work.iterdir()) == []


def check_ctrl_c(home, template, python, moment):
    env, log = {**home.env, **moment.env}, home.home / "log"
    command = home.command(template, python=python)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
    program = Program("cookiecutter", command, cwd=home.work, env=env, log=log)
    try:
        moment.wait(lambda: program.exit_code() is not None)
        os.killpg(program.pid, signal.SIGINT)
        assert program.wait(SECONDS) == 1
        assert program.output().strip() == "Aborted!"
    finally:
        program.kill()
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("version", OTHERS)
def test_cookiecutter_bakes_refuses_and_ends_on_that_python(template, tmp_path, version):
    python = environment(version, tmp_path / "venv")
    usual = Home(tmp_path / "usual")
    assert usual.cookiecutter(template).returncode == 0
    whole = tree(usual.work / "my_service")
    shown = usual.run([python, "-m", "cookiecutter", "--version"]).stdout
    assert f"(Python {version}." in shown
    check_bake(Home(tmp_path / "good"), template, python, version, whole)
    check_refusal(Home(tmp_path / "refused"), template, python)
    for who in ("pre_gen", "post_gen"):
        home = Home(tmp_path / who)
        check_ctrl_c(home, template, python, Moment(home.home, who, "import", "enum"))


def test_every_other_python_is_asked_for():
    assert {RUNNING, *OTHERS} >= {"3.10", *SUPPORTED} - {RUNNING}
    assert RUNNING not in OTHERS
    assert requirement().startswith("cookiecutter>=2.7")
