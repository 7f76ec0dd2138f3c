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


def queued(server, slug):
    """The next message of each priority's list, as kombu names them, where there is one."""
    lists = ["{" + slug + "}:celery" + step for step in ("", "\x06\x163", "\x06\x166", "\x06\x169")]
    return [message for name in lists if (message := server.command("LINDEX", name, 0))]


def test_a_task_that_a_stop_interrupts_goes_back_to_the_queue(
    deployment, redis_server, certificates, running, tmp_path
):
    server = redis_server(certificates.of_own)
    place = deployment("self_hosted").copy(tmp_path)
    (place.project.path / "authentication" / "tasks.py").write_text(textwrap.dedent(NAP).lstrip())
    service = running(place.start(server.url()))
    (program,) = service.programs.values()
    service.wait_for_status("/readyz", 200, 60)
    send = "from authentication.tasks import nap; nap.delay(30)"
    assert place.project.manage("shell", "-c", send).returncode == 0
    program.wait_for(r"Task authentication\.tasks\.nap\[\S+\] received", 20)
    assert queued(server, place.project.slug) == []

    began = time.monotonic()
    assert set(service.stop(28).values()) == {0}
    seconds = time.monotonic() - began
    assert 12 < seconds < 28, "a running task gets 12 s"
    assert not re.search(r"nap\[\S+\] succeeded", service.output())
    (message,) = queued(server, place.project.slug)
    assert '"task": "authentication.tasks.nap"' in message
