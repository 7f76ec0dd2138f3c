"""The service where it stands, unrendered: its defaults, and what running it must not leave there.

Jinja is left in string literals of config/settings.py only. So the service runs in the template's
checkout once its rendered defaults are environment variables, which override them.
"""

import ast
import fnmatch
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from harness.answers import ROOT, SERVICE, resolved

# The answers whose defaults the service has in place: its own CA, and the host name is checked.
ANSWERS = {"redis_provider": "self_hosted"}

SETTINGS = SERVICE / "config" / "settings.py"
ENVIRONMENT = ROOT / ".venv-service"
PYTHON = ENVIRONMENT / "bin" / "python"

# Options with which Python takes what is deprecated for an error. For the last four there is no way
# yet that is not.
DEPRECATED = (
    "-Werror::DeprecationWarning",
    "-Werror::PendingDeprecationWarning",
    # Django 6.1 asks for MAILERS, which the LTS does not know.
    "-Wignore:The EMAIL_",
    "-Wignore:get_connection() is deprecated",
    # Celery asks for priorities in task_routes, where task_default_priority overrides them.
    "-Wignore::DeprecationWarning:celery.app.task",
    # A test of the service forks while a thread holds the locks of a pool.
    "-Wignore:This process (pid",
)

RENDERED = re.compile(r"\{\{ cookiecutter\.(__\w+) \}\}")
JINJA = re.compile(r"\{\{|\{%|\{#")

# A module that each Python of .venv-service imports when it starts, by the .pth file beside it.
# Some tests of the service start programs without the variables of the shell. Those run, too.
STARTS_WITH = '''"""Lets the service run unrendered. Written by ./script/test of the template."""

import os
import sys

# Bytecode in the template's folder would be baked into services.
sys.dont_write_bytecode = False
sys.pycache_prefix = os.path.join(sys.prefix, "pycache")

DEFAULTS = {defaults}

for name, value in DEFAULTS.items():
    if not os.environ.get(name, "").strip():
        os.environ[name] = value
'''


def defaults() -> dict[str, str]:
    """{variable: its rendered default}, of each that settings.py takes from the answers.

    A variable whose default is empty is left out, since the service takes empty for not set.
    """
    answers = resolved(**ANSWERS)
    return {name: answers[value] for name, value in rendered_defaults().items() if answers[value]}


def rendered_defaults() -> dict[str, str]:
    """{variable: the derived value of cookiecutter.json that is its default in settings.py}."""
    found = {}
    for node in ast.walk(ast.parse(SETTINGS.read_text("utf-8"))):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                derived = RENDERED.fullmatch(str(getattr(value, "value", "")))
                if derived and isinstance(key, ast.Constant):
                    found[str(key.value)] = derived[1]
    return found


def prepare() -> None:
    """Let the Python of .venv-service start with the defaults, and keep its bytecode to itself."""
    libraries = next(ENVIRONMENT.glob("lib/python3*/site-packages"))
    shown = "".join(f"    {name!r}: {value!r},\n" for name, value in defaults().items())
    text = STARTS_WITH.format(defaults=f"{{\n{shown}}}")
    (libraries / "in_place.py").write_text(text, "utf-8")
    (libraries / "in_place.pth").write_text("import in_place\n", "utf-8")


def ignored_patterns() -> list[str]:
    """What Git ignores in the service's folder, by the .gitignore there and the template's."""
    files = (ROOT / ".gitignore", SERVICE / ".gitignore")
    lines = [line for file in files for line in file.read_text("utf-8").splitlines()]
    return [line.strip("/") for line in lines if line and not line.startswith("#")]


def ignored_files(folder: Path) -> list[str]:
    """The files and folders below that Git would ignore; what is in an ignored folder is not named.

    It asks for names only, so it works without Git and in a copy.
    """
    return sorted(_matching(folder, folder, ignored_patterns()))


def _matching(folder: Path, top: Path, patterns: list[str]) -> Iterator[str]:
    for path in folder.iterdir():
        if any(fnmatch.fnmatch(path.name, pattern) for pattern in patterns):
            yield path.relative_to(top).as_posix()
        elif path.is_dir() and not path.is_symlink():
            yield from _matching(path, top, patterns)


def ignored_by_git(folder: Path) -> list[str]:
    """Each ignored file below, as Git says it: paths from the top of the checkout.

    subprocess.CalledProcessError if the folder is not in a checkout.
    """
    command = ["git", "status", "--porcelain", "--ignored", "--untracked-files=all", "--", "."]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("!! ")]
    return [line.removeprefix("!! ").strip('"') for line in lines]


def literals_with_jinja(text: str) -> list[str]:
    """The string literals of a Python file that hold Jinja. SyntaxError if it is not Python."""
    values = [node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)]
    return [value for value in values if isinstance(value, str) and JINJA.search(value)]


def has_jinja_outside_literals(text: str) -> bool:
    """Whether Jinja stands in code or in a comment. SyntaxError if the text is not Python."""
    in_literals = sum(len(JINJA.findall(literal)) for literal in literals_with_jinja(text))
    return len(JINJA.findall(text)) > in_literals
