"""`.delay()` in an outage of Redis: sixteen threads share two connections."""

import json
import subprocess
from contextlib import ExitStack

import pytest

from harness.asking import INSIDE
from harness.deployments import PASSWORD
from harness.edits import change
from harness.outages import OUTAGES
from harness.processes import Failed
from harness.tallies import slowest

pytestmark = pytest.mark.xdist_group("delays")
LINE = "threads = 4\n"
THREADS = 16
PROMISE = 8  # Seconds, printed at the end of the run.
PATIENCE = 3 * PROMISE

SECTION = f"slowest .delay() of {THREADS} threads (promised: {PROMISE} s)"


def start(place, url):
    """The script that sends tasks."""
    project = place.project
    return subprocess.Popen(
        [str(project.python), str(INSIDE / "delays.py"), str(THREADS)],
        cwd=project.path,
        env=project.environment({place.row["url_env"]: url}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def wait_for(sender, line):
    for said in sender.stdout:
        if said.strip() == line:
            return
    raise Failed(f"the sender ended without {line!r}")


@pytest.fixture(scope="module")
def waited(server_program, deployment, certificates, tmp_path_factory):
    """{outage: [(seconds, error), ...] of all threads}. All outages happen at the same time."""
    place = deployment("self_hosted").copy(tmp_path_factory.mktemp("threads"))
    change(place.project.path / "gunicorn.conf.py", {LINE: f"threads = {THREADS}\n"})
    place.configure("rediss://localhost:6379/0")
    with ExitStack() as stack:
        outages = {
            name: stack.enter_context(outage(certificates, PASSWORD))
            for name, outage in OUTAGES.items()
        }
        senders = {}
        for name, outage in outages.items():
            senders[name] = stack.enter_context(start(place, outage.url))
            stack.callback(senders[name].kill)
        for sender in senders.values():
            wait_for(sender, "ready")
        for outage in outages.values():
            outage.begin()
        found = {}
        for sender in senders.values():
            sender.stdin.write("\n")
            sender.stdin.flush()
        for name, sender in senders.items():
            found[name] = json.loads(sender.stdout.read().splitlines()[-1])
            slowest(SECTION, name, max(seconds for seconds, _ in found[name]))
    return found


@pytest.mark.parametrize("outage", OUTAGES)
def test_it_ends_with_an_error_soon(outage, waited):
    assert len(waited[outage]) == THREADS
    for seconds, error in waited[outage]:
        assert error, "a task was taken"
        assert seconds < PATIENCE
