"""One line is broken, and tests that ./script/test runs without --all are red.

Each test breaks a copy of the checkout, and runs there the quickest of those that should notice.
"""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness import in_place, tallies
from harness.answers import ROOT, SERVICE
from harness.edits import change
from script.in_place import of_the_service

pytestmark = pytest.mark.all
NOT_COPIED = (".git", ".demo", ".venv*", ".*_cache", "__pycache__", "build", "*.egg-info")


@dataclass(frozen=True)
class Break:
    """A line of a file, what it becomes, and the tests that notice: of the service, or ours.

    `by` is the test that must be red.
    """

    file: str
    old: str
    new: str
    by: str
    services: str = ""
    ours: str = ""


CONTEXT = f"{SERVICE.name}/redis_connection/context.py"
BREAKS = {
    "the host name is not checked": Break(
        CONTEXT,
        "context.check_hostname = trust.verified",
        "context.check_hostname = False",
        by="test_who_verifies_checks_the_host_name_too",
        services="tests.test_connection",
    ),
    "a pin is one CA among the system's": Break(
        CONTEXT,
        "    context.load_verify_locations(cadata=b",
        "    context.load_default_certs()\n    context.load_verify_locations(cadata=b",
        by="test_each_pin_accepts_its_own_servers_and_no_other",
        ours="tests/unit/test_pins.py",
    ),
    "an old TLS is spoken": Break(
        CONTEXT,
        "ssl.TLSVersion.TLSv1_2",
        "ssl.TLSVersion.TLSv1",
        by="test_none_weaker_than_tls_1_2",
        services="tests.test_connection",
    ),
    "a URL is read otherwise": Break(
        f"{SERVICE.name}/redis_connection/url.py",
        '"10.0.0.0/8"',
        '"11.0.0.0/8"',
        by="test_private_hosts_may_be_reached_in_plain_text",
        services="tests.test_policy",
    ),
    "keys have no prefix": Break(
        f"{SERVICE.name}/config/settings.py",
        'CELERY_BROKER_TRANSPORT_OPTIONS = {\n    "global_keyprefix": REDIS_PREFIX,\n',
        "CELERY_BROKER_TRANSPORT_OPTIONS = {\n",
        by="test_the_acl_of_the_page_on_redis_suffices",
        ours="tests/live/test_doctor.py::test_the_acl_of_the_page_on_redis_suffices",
    ),
    "the worker is stopped first": Break(
        f"{SERVICE.name}/supervisord.conf",
        "priority=10 ",
        "priority=40 ",
        by="test_supervisor_reads_the_three_programs",
        ours="tests/live/test_matrix.py::test_supervisor_reads_the_three_programs",
    ),
    "a provider's certificate is said to be verifiable": Break(
        "cookiecutter.json",
        '"cert_reqs": "none"',
        '"cert_reqs": "required"',
        by="test_a_row_makes_sense",
        ours="tests/unit/test_facts.py",
    ),
    "a prompt says something else": Break(
        "cookiecutter.json",
        "What is its folder called?",
        "How is its folder called?",
        by="test_enter_alone_takes_the_defaults",
        ours="tests/bake/test_prompts.py::test_enter_alone_takes_the_defaults",
    ),
    "an action has a tag instead of a hash": Break(
        f"{SERVICE.name}/.github/workflows/ci.yml",
        "actions/setup-python@5fda3b95a4ea91299a34e894583c3862153e4b97 # v7.0.0",
        "actions/setup-python@v7",
        by="test_a_workflow_is_careful",
        ours="tests/unit/test_repository.py",
    ),
}


@pytest.fixture
def checkout(tmp_path):
    """A copy of the checkout, with the environments that script/test has installed."""
    copy = tmp_path / "checkout"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*NOT_COPIED))
    (copy / in_place.ENVIRONMENT.name).symlink_to(in_place.ENVIRONMENT)
    return copy


def run(folder, command, **variables):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ours = {name: text for name, text in os.environ.items() if not name.startswith("PYTEST")}
    # What these runs count is proven of a broken copy.
    ours.pop(tallies.FILE, None)
    done = subprocess.run(
        command,
        cwd=folder,
        env=ours | {"PATH": path, "PYTHONDONTWRITEBYTECODE": "1", **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("what", BREAKS)
def test_it_is_caught(what, checkout):
    broken = BREAKS[what]
    change(checkout / broken.file, {broken.old: broken.new})
    if broken.services:
        step = of_the_service("", "manage.py", "test", broken.services)
        status, said = run(checkout / SERVICE.name, step.command, **step.variables)
        red = re.findall(r"^(?:FAIL|ERROR): (\w+)", said, re.MULTILINE)
    else:
        status, said = run(checkout, ["pytest", "-q", "-p", "no:cacheprovider", broken.ours])
        red = re.findall(r"^FAILED \S+::(\w+)", said, re.MULTILINE)
    assert broken.by in red, said[-3000:]
    assert status == 1, said[-3000:]
