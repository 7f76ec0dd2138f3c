"""examples/: what is committed is what the template renders today."""

import os
import re
import shutil
import subprocess

import pytest
import tomllib

from harness.answers import ROOT, check_keys
from script import examples

SCRIPT = "render/script/dev"
# {how the committed folder can be wrong: what is said of it}
WRONG = {
    "missing": (lambda top: (top / SCRIPT).unlink(), f"{SCRIPT} is missing"),
    "surplus": (
        lambda top: (top / "render/notes.txt").write_text(""),
        "render/notes.txt is surplus",
    ),
    "surplus example": (
        lambda top: shutil.copytree(top / "render/script", top / "heroku/script"),
        "heroku/script/dev is surplus",
    ),
    "other text": (
        lambda top: shutil.copy(top / "README.md", top / "own_server/config/settings.py"),
        "own_server/config/settings.py is not as it is rendered",
    ),
    "line ends": (
        lambda top: (top / SCRIPT).write_bytes((top / SCRIPT).read_bytes().replace(b"\n", b"\r\n")),
        f"{SCRIPT} is not as it is rendered",
    ),
    "stale page": (
        lambda top: (top / "README.md").write_text("# Examples\n"),
        "README.md is not as it is rendered",
    ),
}
if os.name == "posix":  # Windows has no such modes.
    WRONG |= {
        "script": (lambda top: (top / SCRIPT).chmod(0o644), f"{SCRIPT} is not executable"),
        "no script": (lambda top: (top / "README.md").chmod(0o755), "README.md is executable"),
    }


@pytest.fixture(scope="module")
def made():
    return examples.made()


@pytest.fixture
def committed(made, tmp_path, monkeypatch):
    """A folder that holds what the template renders, in place of examples/."""
    monkeypatch.setattr(examples, "made", lambda: made)
    monkeypatch.setattr(examples, "TOP", tmp_path / "examples")
    examples.write(made, examples.TOP)
    return examples.TOP


def test_they_are_what_the_template_renders(made):
    wrong = examples.differences(made, examples.read(examples.TOP))
    assert wrong == [], f"run {examples.COMMAND}"


def test_each_bake_gives_the_same_bytes(made):
    assert examples.made() == made


@pytest.mark.parametrize("how", WRONG)
def test_a_wrong_file_is_named_with_the_command_and_renewed(how, committed, made, capsys):
    spoil, complaint = WRONG[how]
    spoil(committed)
    assert examples.main(["--check"]) == 1
    told = capsys.readouterr().err.splitlines()
    assert complaint in told
    assert told[-1] == "examples/ is stale: run python3 -m script.examples"
    assert examples.main([]) == 0
    assert examples.read(committed) == made
    assert not (committed / "heroku").exists()
    assert examples.main(["--check"]) == 0


def test_what_starting_an_example_leaves_there_is_no_difference_and_stays(committed):
    for name in (".env", "db.sqlite3", ".venv/pyvenv.cfg", "config/__pycache__/urls.pyc"):
        path = committed / "render" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    (committed / "render/.venv/include").mkdir()
    (committed / "render/link").symlink_to(committed / "render/.venv/include")
    assert examples.main(["--check"]) == 0
    (committed / SCRIPT).unlink()
    assert examples.main([]) == 0
    assert (committed / "render/.env").exists() and (committed / "render/link").is_symlink()
    assert (committed / "render/.venv/include").is_dir()


@pytest.mark.parametrize("folder", examples.EXAMPLES)
def test_an_example_stands_on_the_page_with_its_answers(folder):
    shows, answers = examples.EXAMPLES[folder]
    check_keys(answers)
    (line,) = [line for line in examples.page().splitlines() if f"[{folder}]({folder}/)" in line]
    assert shows in line
    assert all(f"`{name}={value}`" in line for name, value in answers.items())


def test_the_certificates_on_the_page_are_variables_of_that_service():
    named = re.findall(r"^    (\w+)=", examples.page(), re.MULTILINE)
    assert len(named) == 3
    known = (examples.TOP / "own_server" / ".env.example").read_text("utf-8")
    assert [name for name in named if f"\n{name}=" not in known] == []


def test_the_readmes_first_screen_leads_there():
    first_screen = (ROOT / "README.md").read_text("utf-8").splitlines()[:24]
    assert any("](examples/)" in line for line in first_screen)


# Nothing takes them for a part of the template


def test_they_are_neither_linted_nor_collected_nor_type_checked(tmp_path):
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]
    assert "examples" in tools["pytest"]["ini_options"]["norecursedirs"]
    assert not any(name.startswith("examples") for name in tools["mypy"]["files"])
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for name in ("examples", "elsewhere"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "wrong.py").write_text("import os\n")
    done = subprocess.run(["ruff", "check", "."], cwd=tmp_path, capture_output=True, text=True)
    named = done.stdout.replace("\\", "/")
    assert "elsewhere/wrong.py" in named
    assert "examples/wrong.py" not in named


def test_no_lock_names_a_host(made):
    locks = {name: file for name, file in made.items() if "requirements" in name}
    assert len(locks) == 2 * len(examples.EXAMPLES)
    assert [name for name, file in locks.items() if b"://" in file.content] == []
