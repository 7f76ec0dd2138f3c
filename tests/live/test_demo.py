"""script/demo runs from a clean copy of the checkout, and fails when its claims are not true."""

import os
import re
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

from harness.answers import ROOT, SERVICE
from harness.leftovers import at_work_in
from harness.processes import Program, run
from harness.service import Project

pytestmark = [pytest.mark.all, pytest.mark.xdist_group("demo")]
NOT_COPIED = (".git", ".venv*", ".demo", "__pycache__", ".*_cache")
PROOFS = (
    r"separate process: +the task ran in \d+, child of the Celery worker \d+, under supervise \d+",
    r"connection: +\d+ TLS handshakes, Redis has no other port",
    r"verified: +TLSv1\.[23], .*certificate and host name verified, .*issuer CA of this demo",
    r"counter-proof: +with another CA: .*CERTIFICATE_VERIFY_FAILED",
    r"password sent to it: +0 bytes followed that handshake",
)
PACKAGE = "config/"
POLICY = "redis_connection/policy.py"
UNVERIFIED = 'Trust("none", False)'
# {what is wrong: (file of the service, text, its replacement, what the demo says)}
BROKEN = {
    "without a worker": (
        "supervisord.conf",
        re.compile(r"\[program:celery_worker\].*?(?=\[program:django\])", re.DOTALL),
        "",
        "celery_worker",
    ),
    "doctor not verified": (
        POLICY,
        re.compile(r"Trust\(\s+cert_reqs=self.*?\n        \)", re.DOTALL),
        UNVERIFIED,
        "the doctor accepted a certificate of another CA",
    ),
    "worker not verified": (
        POLICY,
        re.compile(r"self\.port, self\.trust\)"),
        f"self.port, {UNVERIFIED})",
        "Celery accepted a certificate of another CA",
    ),
    "not in the worker": (
        PACKAGE + "settings.py",
        re.compile(r"^CELERY_BROKER_USE_SSL = ", re.MULTILINE),
        "CELERY_TASK_ALWAYS_EAGER = True\nCELERY_BROKER_USE_SSL = ",
        "the task ran in process",
    ),
}


@pytest.fixture(scope="module")
def checkout():
    """A copy of this checkout. Its path is short enough for Unix sockets."""
    with tempfile.TemporaryDirectory(prefix="demo-") as folder:
        ignored = shutil.ignore_patterns(*NOT_COPIED)
        yield Path(shutil.copytree(ROOT, Path(folder).resolve() / "checkout", ignore=ignored))


@pytest.fixture
def environment(checkout):
    """The demo's environment: no settings of a service, and a temporary folder of its own."""
    temporary = checkout.with_name("tmp")
    temporary.mkdir(exist_ok=True)
    yield {
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "TMPDIR": str(temporary),
    } | Project.machine()
    assert at_work_in(checkout.parent) == {}


def test_the_demo_proves_what_it_claims(checkout, environment):
    done = run(["script/demo", "--once"], cwd=checkout, env=environment, seconds=600)
    assert done.returncode == 0, done.stdout + done.stderr
    for proof in PROOFS:
        assert re.search(rf"^ +{proof}", done.stdout, re.MULTILINE), (proof, done.stdout)
    assert "To: ada@example.com" in done.stdout
    assert done.stdout.endswith("Everything was ended; nothing is left running.\n")


def test_the_demo_runs_until_ctrl_c(checkout, environment, tmp_path):
    program = Program("demo", ["script/demo"], cwd=checkout, env=environment, log=tmp_path / "log")
    try:
        program.wait_for(r"^It is running: http://localhost:\d+/", 600)
        assert len(at_work_in(checkout.parent)) > 5
        # The signal goes to the foreground process group, as from a terminal.
        os.killpg(program.pid, signal.SIGINT)
        assert program.wait(60) == 0
    finally:
        program.kill()
    assert program.last_lines(1) == "Everything was ended; nothing is left running."


@pytest.mark.parametrize("what", BROKEN)
def test_the_demo_fails_for_a_service(what, checkout, environment):
    name, text, replacement, reason = BROKEN[what]
    path = checkout / SERVICE.name / name
    whole = path.read_text()
    broken, changes = text.subn(replacement, whole)
    assert changes == 1
    path.write_text(broken)
    try:
        done = run(["script/demo", "--once"], cwd=checkout, env=environment, seconds=600)
    finally:
        path.write_text(whole)
    assert done.returncode != 0
    assert reason in done.stderr
    assert "Proof" not in done.stdout
