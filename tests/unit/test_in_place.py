"""The service runs in the template's checkout, unrendered, and leaves nothing there."""

import re
import shutil
import subprocess

import pytest

from harness import in_place
from harness.answers import ROOT, ROWS, SERVICE

# {file: the literals with Jinja that it may have}. In settings.py: each is one value.
NAME = "{{ cookiecutter.project_slug }}"
LITERALS = {
    "config/celery.py": {NAME},
}
ONE_VALUE = re.compile(r"\{\{ cookiecutter\.\w+ \}\}")

LEFT_BEHIND = [
    ".env",
    ".mypy_cache/x.json",
    ".pytest_cache/x",
    ".ruff_cache/x",
    ".venv/pyvenv.cfg",
    "config/__pycache__/settings.cpython-311.pyc",
    "db.sqlite3",
    "db.sqlite3-wal",
    "staticfiles/admin.css",
]
# The same, as they are named: the topmost that is ignored.
NAMED = sorted({name.rpartition("/")[0] or name for name in LEFT_BEHIND})


def python_files():
    files = {path.relative_to(SERVICE).as_posix(): path for path in SERVICE.rglob("*.py")}
    assert len(files) > 40
    return {name: path.read_text("utf-8") for name, path in files.items()}


# What running it leaves behind


@pytest.fixture
def used(tmp_path):
    """A checkout whose service's folder has been run in."""
    folder = tmp_path / SERVICE.name
    shutil.copytree(SERVICE, folder)
    shutil.copy(ROOT / ".gitignore", tmp_path)
    for name in LEFT_BEHIND:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    return folder


def test_nothing_that_git_ignores_is_in_the_services_folder():
    assert in_place.ignored_files(SERVICE) == []


def test_git_says_so_too():
    if not (ROOT / ".git").exists():
        pytest.skip("NOT TESTED: Git's own view, for this copy is not a checkout")
    assert in_place.ignored_by_git(SERVICE) == []


def test_what_was_left_in_the_folder_would_be_seen(used):
    assert in_place.ignored_files(used) == NAMED


def test_git_would_see_it_too(used):
    subprocess.run(["git", "init", "--quiet", used.parent], check=True)
    seen = in_place.ignored_by_git(used)  # which names each file
    assert sorted(name.removeprefix(f"{SERVICE.name}/") for name in seen) == LEFT_BEHIND


def test_what_git_ignores_there_is_what_post_gen_refuses(post_gen):
    lines = (SERVICE / ".gitignore").read_text("utf-8").split()
    assert "db.sqlite3*" in lines
    for line in lines:
        assert post_gen.is_leftover(f"config/{line.strip('/').replace('*', '')}"), line


# The rendered defaults


def test_the_defaults_are_those_of_a_row():
    row = ROWS[in_place.ANSWERS["redis_provider"]]
    assert in_place.defaults() == {
        "REDIS_CERT_REQS": row["cert_reqs"],
        "REDIS_CHECK_HOSTNAME": str(row["check_hostname"]).lower(),
        "REDIS_DATABASES": str(row["databases"]),
        "REDIS_MAX_CONNECTIONS": str(row["max_connections"] or 0),
        "CELERY_POLLING_INTERVAL": "1",
        "CELERY_REMOTE_CONTROL": "true",
    }


def test_they_are_all_that_are_rendered_but_an_empty_one(post_gen):
    assigned = {"PROVIDERS_URL_NAME", "SERVICE_NAME"}
    empty = {"REDIS_ALLOW_PLAINTEXT"}
    assert post_gen.RENDERED.keys() - in_place.defaults().keys() == assigned | empty
    assert in_place.defaults().keys() < post_gen.RENDERED.keys()


# Jinja


def test_jinja_stands_in_string_literals_only():
    wrong = [n for n, text in python_files().items() if in_place.has_jinja_outside_literals(text)]
    assert wrong == []


def test_jinja_stands_in_the_settings_and_where_the_services_name_must_be():
    found = {n: set(in_place.literals_with_jinja(text)) for n, text in python_files().items()}
    settings = found.pop("config/settings.py")
    assert NAME in settings
    assert [literal for literal in settings if not ONE_VALUE.fullmatch(literal)] == []
    assert {name: literals for name, literals in found.items() if literals} == LITERALS


@pytest.mark.parametrize(
    ("text", "outside"),
    [
        ('X = "{{ cookiecutter.x }}"', False),
        ("X = '{{ cookiecutter.x }}' + '{% if x %}'", False),
        ("# {{ cookiecutter.x }}", True),
        ("X = {{ 1 }}", True),
        ("X = f'{{{name}}}:'", True),  # Jinja would take it for its own
        ('"""{# a comment #}"""', False),
        ("X = {1}", False),
    ],
)
def test_jinja_elsewhere_would_be_seen(text, outside):
    assert in_place.has_jinja_outside_literals(text) is outside


def test_a_literal_with_jinja_would_be_seen():
    assert in_place.literals_with_jinja("def f():\n    return g('{% x %}', 'y')") == ["{% x %}"]


# The command


def test_help_installs_nothing(tmp_path):
    shutil.copytree(ROOT / "script", tmp_path / "script")
    command = [tmp_path / "script" / "test", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    assert "./script/test unit" in done.stdout
    assert done.stderr == ""
    assert [path.name for path in tmp_path.iterdir()] == ["script"]


def test_the_repository_holds_no_links():
    """A link to a place outside of it would be another file on each machine."""
    listed = subprocess.run(["git", "ls-files", "-s"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("NOT TESTED: this is no Git repository")
    modes = {line.split()[0] for line in listed.stdout.splitlines()}
    assert modes == {"100644", "100755"}
