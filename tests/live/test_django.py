"""The service's own tests on the Django that comes after the LTS of its locks.

Those on the LTS itself run in place: ./script/test unit.
"""

import pytest
import tomllib
from packaging.requirements import Requirement

from harness import in_place, pythons
from harness.service import Project, bake

pytestmark = pytest.mark.all

DJANGO = "6.1"
# That Django needs Python 3.12.
PYTHONS = pythons.SUPPORTED[1:]
ERRORS = [option for option in in_place.DEPRECATED if option.startswith("-Werror")]


def python():
    """Return the path of the newest suitable Python of this machine, or skip the test."""
    suitable = [path for version, path in pythons.every().items() if version in PYTHONS]
    if not suitable:
        pytest.skip(f"NOT TESTED: Django {DJANGO} needs one of Python {', '.join(PYTHONS)}")
    return suitable[-1]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A Project with that Django, and the newest of all else that pyproject.toml admits."""
    newest = python()
    folder = tmp_path_factory.mktemp("django")
    baked = bake(folder, redis_provider="self_hosted")
    project = Project(baked, settings={"DEBUG": "true", "LOG_LEVEL": "ERROR"}, venv=folder / "venv")
    project.make_venv(newest)
    text = tomllib.loads((baked / "pyproject.toml").read_text())
    asked = [*text["project"]["dependencies"], *text["dependency-groups"]["dev"]]
    others = [each for each in asked if Requirement(each).name != "django"]
    install = [str(project.python), "-m", "pip", "install", "--quiet", f"django=={DJANGO}.*"]
    project.must([*install, *others], project.machine(), seconds=900)
    return project


def run(project, options, *arguments):
    """Run manage.py by a Python with these options."""
    return project.run([str(project.python), *options, "manage.py", *arguments], seconds=600)


def test_that_django_is_installed(project):
    assert run(project, (), "version").stdout.startswith(f"{DJANGO}.")


def test_its_own_tests_pass_and_use_nothing_deprecated(project):
    done = run(project, in_place.DEPRECATED, "test")
    assert done.returncode == 0, done.stderr[-5000:]
    assert "\nRan " in done.stderr and "\nOK" in done.stderr


def test_no_migration_is_missing(project):
    done = run(project, in_place.DEPRECATED, "makemigrations", "--check", "--dry-run")
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_deprecated_would_be_noticed(project):
    """What is excepted in harness/in_place.py is an error without the exception."""
    done = run(project, ERRORS, "check")
    assert done.returncode == 1
    assert "The EMAIL_" in done.stderr and "Warning: " in done.stderr
