"""supervise.py and supervisord.conf: a program that fails, a stop, plain supervisord."""

import re
import socket
import textwrap
import time

import pytest

from tests.support.processes import wait_until

pytestmark = pytest.mark.live
NAP = """
    import time

    from celery import shared_task


    @shared_task
    def nap(seconds):
        time.sleep(seconds)
"""


def test_a_program_that_cannot_be_kept_running_ends_the_container(
    deployment, redis_server, certificates, running
):
    server = redis_server(certificates.of_own)
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        service = running(deployment("self_hosted").start(server.url(), port=port))
        (program,) = service.programs.values()
        # Within 90 s: platforms then keep the previous deploy.
        assert program.wait(90) == 1
        assert program.family() == {}
    assert program.last_lines(1) == "django could not be kept running: see its log above."


def test_plain_supervisord_runs_the_same_file(deployment, redis_server, certificates, running):
    server = redis_server(certificates.of_own)
    place = deployment("self_hosted")
    service = running(place.start(server.url(), command="supervisord -c supervisord.conf"))
    service.wait_for_status("/readyz", 200, 60)

    def status():
        return place.project.run("supervisorctl -c supervisord.conf status celery_worker").stdout

    wait_until(lambda: " RUNNING " in status(), 20, "supervisorctl says RUNNING")
    assert set(service.stop(28).values()) == {0}
    assert " RUNNING " not in status()


def test_a_task_that_a_stop_interrupts_goes_back_to_the_queue(
    deployment, redis_server, certificates, running, tmp_path
):
    server = redis_server(certificates.of_own)
    place = deployment("self_hosted").copy(tmp_path)
    (place.project.path / "authentication" / "tasks.py").write_text(textwrap.dedent(NAP).lstrip())
    service = running(place.start(server.url()))
    (program,) = service.programs.values()
    queue = "{" + place.project.slug + "}:celery"
    service.wait_for_status("/readyz", 200, 60)
    send = "from authentication.tasks import nap; nap.delay(30)"
    assert place.project.manage("shell", "-c", send).returncode == 0
    program.wait_for(r"Task authentication\.tasks\.nap\[\S+\] received", 20)
    assert server.command("LLEN", queue) == "0"

    began = time.monotonic()
    assert set(service.stop(28).values()) == {0}
    seconds = time.monotonic() - began
    assert 12 < seconds < 28, "a running task gets 12 s"
    assert not re.search(r"nap\[\S+\] succeeded", service.output())
    assert server.command("LLEN", queue) == "1"
    assert '"task": "authentication.tasks.nap"' in server.command("LINDEX", queue, 0)
