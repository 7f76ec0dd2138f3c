"""The service's own tests of its connections, with the oldest and newest packages it admits.

They ask living objects whether redis-py and kombu still have what the service overrides.
"""

import json
import re
import shutil

import pytest
import tomllib
from packaging.requirements import Requirement
from packaging.version import Version

from harness.edits import change
from harness.processes import Failed
from harness.service import Project, bake

# The two environments are made once, in one process of pytest-xdist.
pytestmark = [pytest.mark.all, pytest.mark.xdist_group("versions")]
TESTS = "python manage.py test tests.test_connection tests.test_transport"
DEVELOPMENT = {"DEBUG": "true"}
AGES = ("oldest", "newest")
CHOSEN = ("celery", "kombu", "redis")

# {file: the methods that a class in it overrides}
OVERRIDES = {
    "connection.py": ["on_connect_check_health", "shake_hands"],
    "aio.py": ["on_connect_check_health", "context_for_handshake", "explain"],
    "internals.py": [
        "_wrap_socket_with_ssl",
        "_connection_arguments",
        "_connect",
        "_get_pool",
        "_disconnect_pools",
        "_get_client",
        "_deliver_fanout_message",
        "_put",
    ],
    "transport.py": [
        "append",
        "ack",
        "reject",
        "restore_visible",
        "restore_unacked",
        "parse_response",
        "make_pool",
        "disconnect_pools",
        "make_client",
        "deliver_published",
        "put",
        "maybe_refresh_binding_expiry",
    ],
}
RENAMED = [(file, name) for file, names in OVERRIDES.items() for name in names]


def lower_bound(requirement):
    """Return a requirement that admits only the lowest version that the Requirement admits."""
    (version,) = [each.version for each in requirement.specifier if each.operator in (">=", "==")]
    extras = f"[{','.join(requirement.extras)}]" if requirement.extras else ""
    return f"{requirement.name}{extras}=={version}"


def told(project, command):
    """Return what the command prints. Raises Failed if it does not succeed."""
    done = project.run(command)
    if done.returncode:
        raise Failed(f"{command} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


def asked_for(project, package, wanted, extra=""):
    """Return the Requirement for `wanted` of the installed package with its extra."""
    code = f"import importlib.metadata as m, json; print(json.dumps(m.requires({package!r})))"
    texts = json.loads(told(project, [str(project.python), "-c", code]))
    found = [Requirement(text) for text in texts]
    (asked,) = [
        each
        for each in found
        if each.name == wanted
        and (each.marker is None or each.marker.evaluate({"extra": extra}))
        # celery's extras ask for kombu with an extra. The plain line has the bound.
        and not each.extras
    ]
    return asked


def versions(project):
    """Return {package: installed version}."""
    lines = told(project, "pip freeze").splitlines()
    found = dict(line.split("==") for line in lines if "==" in line)
    return {name: found[name] for name in CHOSEN}


def install(project, requirements):
    command = ["pip", "install", "--quiet", *map(str, requirements)]
    project.must(command, project.machine(), seconds=900)


@pytest.fixture(scope="module")
def baked(tmp_path_factory):
    return bake(tmp_path_factory.mktemp("versions"), redis_provider="self_hosted")


@pytest.fixture(scope="module")
def projects(baked, tmp_path_factory):
    """{age: a Project with the oldest or newest packages that pyproject.toml admits}"""
    text = (baked / "pyproject.toml").read_text()
    requirements = list(map(Requirement, tomllib.loads(text)["project"]["dependencies"]))
    made = {}
    for age in AGES:
        folder = tmp_path_factory.mktemp(age)
        made[age] = Project(baked, settings=DEVELOPMENT, venv=folder / "venv")
        made[age].make_venv()
    install(made["newest"], requirements)
    # The other packages are the newest, because nothing of them is overridden.
    by_name = {each.name: each for each in requirements}
    oldest = [lower_bound(each) if each.name in CHOSEN else each for each in requirements]
    install(made["oldest"], oldest)
    # The packages that are named there ask for the rest.
    for package, wanted, extra in (("celery", "kombu", ""), ("kombu", "redis", "redis")):
        if wanted not in by_name:
            asked = asked_for(made["oldest"], package, wanted, extra)
            install(made["oldest"], [lower_bound(asked)])
    return made


def test_the_two_are_as_far_apart_as_the_project_admits(projects):
    oldest, newest = (versions(projects[age]) for age in AGES)
    for name in CHOSEN:
        assert Version(oldest[name]) <= Version(newest[name]), name
    assert oldest != newest
    for age in AGES:
        print(f"{age}: {versions(projects[age])}")


@pytest.mark.parametrize("age", AGES)
def test_its_own_tests_pass(age, projects):
    done = projects[age].run(TESTS)
    assert done.returncode == 0, f"{versions(projects[age])}\n{done.stderr[-5000:]}"
    (ran,) = re.findall("^Ran ([0-9]+) tests", done.stderr, re.MULTILINE)
    assert int(ran) > 20


@pytest.mark.parametrize(("file", "name"), RENAMED, ids=[": ".join(pair) for pair in RENAMED])
def test_an_override_that_is_lost_would_be_noticed(file, name, projects, tmp_path):
    newest = projects["newest"]
    path = shutil.copytree(newest.path, tmp_path / newest.slug)
    change(
        path / "redis_connection" / file,
        {f" def {name}(": " def upstream_calls_another_one("},
    )
    done = Project(path, settings=DEVELOPMENT, venv=newest.venv).run(TESTS)
    assert done.returncode == 1, done.stderr[-3000:]
    assert "FAILED (" in done.stderr
