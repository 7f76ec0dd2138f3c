"""Redis is away, at the start of the service or later."""

import contextlib
import sqlite3
import time

ADDRESS = "ada@example.com"
SWEPT_AFTER = 60  # Seconds. A mail that comes sooner came through the queue, not from the sweep.
WAITING = r"Cannot connect to rediss://.*Connection refused"


def register(service):
    """Register and return how many seconds that took."""
    began = time.monotonic()
    page = service.browser().register("ada", ADDRESS, "correct horse 7")
    assert page.url == "/accounts/login/"
    return time.monotonic() - began


def workers(service):
    return {pid for pid, command in service.family().items() if " worker " in f"{command} "}


def age_promises(service, minutes):
    """Make every promised e-mail older, instead of waiting."""
    with contextlib.closing(sqlite3.connect(service.database)) as database, database:
        changed = database.execute(
            "UPDATE authentication_verificationemail"
            " SET requested_at = datetime(requested_at, ?) WHERE sent_at IS NULL",
            [f"-{minutes} minutes"],
        )
        assert changed.rowcount == 1


def test_a_redis_that_is_down_is_waited_for(deployment, redis_server, certificates, running):
    server = redis_server(certificates.of_own)
    server.stop()
    service = running(deployment("self_hosted").start(server.url()))
    (program,) = service.programs.values()
    service.wait_for_status("/healthz", 200, 60)
    status, text, seconds = service.status("/readyz")
    assert (status, '"broker": "fail"' in text) == (503, True), text
    assert seconds < 5
    assert register(service) < 15
    program.wait_for(f"(?s){WAITING}.*{WAITING}", 30)
    waiting = workers(service)
    assert waiting
    assert service.mailbox.messages() == []

    age_promises(service, minutes=2)
    server.start()
    service.mailbox.wait(ADDRESS, 40)
    service.wait_for_status("/readyz", 200, 20)
    assert workers(service) >= waiting, "the worker was started again instead of waiting"
    assert service.status("/healthz")[0] == 200
    assert len(service.mailbox.messages()) == 1
    service.stop(28)


def test_a_redis_that_restarts_delays_the_mail_only(
    deployment, redis_server, certificates, running
):
    server = redis_server(certificates.of_own)
    service = running(deployment("self_hosted").start(server.url()))
    service.wait_for_status("/readyz", 200, 60)
    server.stop()
    server.start()
    register(service)
    service.mailbox.wait(ADDRESS, SWEPT_AFTER - 5)
    service.stop(28)
