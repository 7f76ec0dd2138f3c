"""A wrong line of the service is red where it stands, unrendered, within a minute.

Each test spoils one line in a copy of the checkout and runs there what `./script/test unit` runs.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness import in_place
from harness.answers import ROOT, SERVICE

COPIED = ("cookiecutter.json", "pyproject.toml", "harness", "hooks", "script", SERVICE.name)
CONNECTION = f"{SERVICE.name}/redis_connection"


@pytest.fixture
def checkout(tmp_path):
    """The checkout, to be changed, with the environments that script/test has installed."""
    assert in_place.PYTHON.exists(), "./script/test makes .venv-service, which is not there."
    debris = shutil.ignore_patterns("__pycache__", ".*_cache")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tmp_path / name, ignore=debris)
        else:
            shutil.copy(ROOT / name, tmp_path)
    shutil.copy(ROOT / ".gitignore", tmp_path)
    (tmp_path / in_place.ENVIRONMENT.name).symlink_to(in_place.ENVIRONMENT)
    return tmp_path


def run(checkout, *command):
    """The exit status of a command in the copy, and what it printed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables = {"PATH": path, "PYTHONDONTWRITEBYTECODE": "1", "RUFF_NO_CACHE": "true"}
    done = subprocess.run(
        command,
        cwd=checkout,
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    return done.returncode, done.stdout


def edit(path, old, new):
    """Put new text for old, which must be there."""
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")


@pytest.mark.all
def test_a_wrong_line_of_the_connection_is_red(checkout):
    edit(checkout / CONNECTION / "url.py", '"10.0.0.0/8"', '"11.0.0.0/8"')
    status, out = run(checkout, sys.executable, "-m", "script.in_place", "--no-pytest")
    assert status == 1
    assert "In place, unrendered: RED: the service's own tests (" in out
    assert "FAILED (" in out  # what Django's runner says of it
    assert in_place.ignored_files(checkout / SERVICE.name) == []


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("def wrong() -> int:\n    return 'text'", "[return-value]"),
        pytest.param("def wrong(x):\n    return x", "[no-untyped-def]", marks=pytest.mark.all),
        pytest.param("wrong = PRIVATE_NETWORK", "[name-defined]", marks=pytest.mark.all),
    ],
)
def test_a_wrong_type_of_the_connection_is_red(checkout, line, complaint):
    edit(checkout / CONNECTION / "url.py", "\n\n\n", f"\n\n\n{line}\n\n\n")
    status, out = run(checkout, "mypy")
    assert status == 1
    assert complaint in out


@pytest.mark.all
def test_a_wrong_type_elsewhere_is_red_also_in_a_function_without_types(checkout):
    files = ("harness/answers.py", "hooks/pre_gen_project.py", "script/release.py")
    files += tuple(f"{SERVICE.name}/{room}/__init__.py" for room in ("config", "operations"))
    for name in files:
        with (checkout / name).open("a", encoding="utf-8") as file:
            file.write("\n\ndef wrong():\n    x: int = ''\n    return x\n")
    status, out = run(checkout, "mypy")
    assert status == 1
    assert [name for name in files if f"\n{name}:" not in f"\n{out}"] == []
    assert out.count("[assignment]") == len(files)


def test_the_python_of_the_service_starts_with_the_defaults():
    """Also where a program is started without the variables of the shell."""
    code = "import os, sys; print({**os.environ}); print(sys.pycache_prefix)"
    command = [str(in_place.PYTHON), "-c", code]
    done = subprocess.run(command, env={}, capture_output=True, text=True, check=True)
    variables, bytecode = done.stdout.splitlines()
    for name, value in in_place.defaults().items():
        assert f"'{name}': '{value}'" in variables
    assert bytecode == str(in_place.ENVIRONMENT / "pycache")
