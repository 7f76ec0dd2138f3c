"""The rooms of the service: which package may import which."""

import ast
import re
import subprocess
import sys

import pytest

from harness.answers import ROOT, SERVICE

# {package: the packages of the service that it may import}. No import leads back.
ROOMS = {
    "config": {"operations", "authentication", "redis_connection"},
    "operations": {"authentication", "redis_connection"},
    "authentication": set(),
    "redis_connection": set(),
}
# What redis_connection may use besides Python's own modules.
LIBRARIES = {"redis", "kombu"}


def imports(text):
    """Return the top-level names that a file imports anywhere, without its own package."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.partition(".")[0])
        elif isinstance(node, ast.Name) and node.id in ("import_module", "__import__"):
            found.add("by its name as text")
    return found


def files_of(room):
    return {path: path.read_text("utf-8") for path in (SERVICE / room).rglob("*.py")}


def strays(room, text):
    """Return what a file of this room imports although it must not."""
    others = (ROOMS.keys() | {"by its name as text"}) - ROOMS[room] - {room}
    return imports(text) & others


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_one_way(room):
    files = files_of(room)
    assert files
    found = {path.name: strays(room, text) for path, text in files.items()}
    assert {name: strange for name, strange in found.items() if strange} == {}


@pytest.mark.parametrize(
    ("room", "line"),
    [
        ("operations", "from config import settings"),
        ("authentication", "import operations.tasks"),
        ("redis_connection", "from authentication import models"),
        ("operations", "from importlib import import_module\nimport_module('config')"),
        ("operations", "def f():\n    from config.settings import REDIS"),
    ],
)
def test_an_import_the_other_way_would_be_seen(room, line):
    assert strays(room, line)


def test_the_connection_knows_redis_and_kombu_only():
    used = set().union(*map(imports, files_of("redis_connection").values()))
    assert used - set(sys.stdlib_module_names) == LIBRARIES


def test_the_name_of_the_service_stands_where_it_must_be():
    found = {
        path.relative_to(SERVICE).as_posix()
        for path in SERVICE.rglob("*.py")
        if "cookiecutter.project_slug" in path.read_text("utf-8")
    }
    assert found == {"config/settings.py", "config/celery.py"}


@pytest.mark.parametrize("folder", ["harness", "script"])
def test_what_the_tests_share_does_not_import_tests(folder):
    files = list((ROOT / folder).rglob("*.py"))
    assert files
    assert [path.name for path in files if "tests" in imports(path.read_text("utf-8"))] == []
    assert imports("from tests.live import conftest") == {"tests"}


def test_no_test_module_imports_another():
    files = list((ROOT / "tests").rglob("*.py"))
    modules = {path.stem for path in files} | {"tests"}
    used = {path.name: imports(path.read_text("utf-8")) & modules for path in files}
    assert len(files) > 50
    assert {name: others for name, others in used.items() if others} == {}
    assert imports("from tests.live.test_urls import ODD\nimport test_urls") & modules


def demo_without(*modules):
    """Start a Python that has none of these modules, and import the demo there."""
    code = f"import sys; sys.modules |= dict.fromkeys({modules}); import script.demo"
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)


def test_the_demo_imports_only_what_it_installs():
    lines = (ROOT / "requirements-test.txt").read_text("utf-8").splitlines()
    names = {re.split(r"[<>=]", line)[0] for line in lines if not line.startswith("#")}
    # cookiecutter brings PyYAML, which goes by another name, and trustme cryptography.
    others = {name.replace("-", "_") for name in names - {"cookiecutter", "trustme", "PyYAML"}}
    assert {"pytest", "filelock"} < others
    done = demo_without(*sorted(others))
    assert done.returncode == 0, done.stderr
    assert demo_without("trustme").returncode == 1


# A private name of another package, asked for or overridden. `_meta` of Django, `_replace` of named
# tuples and `os._exit` are documented.
PRIVATE = re.compile(r"\._(?!(?:meta|replace|exit)\b)[a-z]\w*|\bdef _[a-z]\w*")
INTERNALS = "redis_connection/internals.py"


def private_names(text):
    return set(PRIVATE.findall(text))


def test_private_names_stand_in_one_file():
    found = {
        path.relative_to(SERVICE).as_posix(): private_names(path.read_text("utf-8"))
        for room in ROOMS
        for path in (SERVICE / room).rglob("*.py")
    }
    assert "._connparams" in found.pop(INTERNALS)
    assert {name: names for name, names in found.items() if names} == {}


@pytest.mark.parametrize("line", ["self._pool = None", "def _put(self):", "x()._sslobj"])
def test_a_private_name_elsewhere_would_be_seen(line):
    assert private_names(line)
