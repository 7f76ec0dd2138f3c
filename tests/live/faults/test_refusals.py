"""A Redis that answers but refuses writes counts as down: no program ends, no task is lost."""

import time

import pytest

from harness.answers import varied
from harness.deployments import PASSWORD
from harness.faults import refusing
from harness.faults.stage import CONSUMES_AGAIN
from harness.forwarder import Forwarder
from harness.processes import free_port, wait_until

REFUSALS = [
    refusing.memory_full,
    refusing.read_only_replica,
    refusing.too_few_replicas,
    refusing.cannot_save,
    refusing.reading_only,
    refusing.loading,
]
HOLD = 25  # seconds
LINES_A_MINUTE = 200


def hold(stage, seconds):
    """Assert for so many seconds that the web serves, and that /readyz says the broker fails."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        status, _, took = stage.service.status("/healthz")
        assert (status, took < 5) == (200, True), took
        status, probes = stage.readyz()
        assert status == 503, probes
        assert probes["broker"] in ("fail", "no answer"), probes
        time.sleep(1)


def wait_until_it_refuses(stage):
    def refused():
        status, probes = stage.readyz()
        return status == 503 and probes["broker"] == "fail"

    wait_until(refused, 10, "/readyz says that the broker fails")


def test_a_message_that_redis_may_not_record_is_worked_on(stage):
    """The right to HSET is missing, so plain kombu would lose each message that it fetches."""
    stage.start_redis()
    stage.start()
    before = stage.pids()
    with refusing.without_hset(stage.server):
        tasks = stage.send(5)
        stage.wait_done(tasks)
        assert len(tasks) == 5
    assert stage.pids() == before


@pytest.mark.parametrize("refusal", varied(REFUSALS))
def test_a_redis_that_refuses_while_tasks_run_and_wait(stage, refusal):
    """No program restarts, no task is lost, /readyz shows the state, and the log stays readable."""
    stage.start_redis(extra=refusing.OPTIONS.get(refusal.__name__, ()))
    stage.start()
    before = stage.pids()
    tasks = stage.send(14, seconds=2)
    stage.wait_started(tasks[:2])
    with refusal(stage.server):
        lines, began = stage.lines(), time.monotonic()
        wait_until_it_refuses(stage)
        hold(stage, HOLD)
        tasks += stage.send(3)
        lines = (stage.lines() - lines) * 60 / (time.monotonic() - began)
    stage.wait_done(tasks)
    stage.service.wait_for_status("/readyz", 200, CONSUMES_AGAIN)
    assert stage.exits_of_worker() == []
    assert stage.pids() == before
    assert lines < LINES_A_MINUTE


@pytest.mark.all
@pytest.mark.parametrize("refusal", REFUSALS[:2] + REFUSALS[4:5])
def test_a_redis_that_refuses_at_boot(stage, refusal):
    """The web serves, and the worker, which has a backlog, waits."""
    stage.start_redis(extra=refusing.OPTIONS.get(refusal.__name__, ()))
    stage.prepare()
    tasks = stage.send(10)
    with refusal(stage.server):
        stage.start(ready=False)
        stage.service.wait_for_status("/healthz", 200, 60)
        before = stage.pids()
        wait_until_it_refuses(stage)
        hold(stage, HOLD)
        assert len(stage.exits_of_worker()) <= 1
    stage.wait_done(tasks)
    stage.service.wait_for_status("/readyz", 200, CONSUMES_AGAIN)
    now = stage.pids()
    assert (now["supervise"], now["web"]) == (before["supervise"], before["web"])


@pytest.mark.all
def test_a_failover_that_leaves_old_connections_at_the_old_server(stage):
    """The old server becomes a read-only replica of the new one, which every program finds."""
    ports = free_port(), free_port()
    # The two servers talk to each other on a plain port beside the one with TLS.
    old, new = (
        stage.start_redis(extra=[f"port {port}", f"masterauth {PASSWORD}"]) for port in ports
    )
    new.command("REPLICAOF", "127.0.0.1", ports[0])
    wait_until(lambda: "master_link_status:up" in new.command("INFO", "replication"), 30, "link")
    forwarder = stage.add(Forwarder(old.port))
    url = old.url().replace(f":{old.port}/", f":{forwarder.port}/")
    stage.start(url=url)
    before = stage.pids()
    tasks = stage.send(14, seconds=2)
    stage.wait_started(tasks[:2])
    forwarder.target = new.port
    new.command("REPLICAOF", "NO", "ONE")
    old.command("REPLICAOF", "127.0.0.1", ports[1])
    time.sleep(5)
    tasks += stage.send(5)
    stage.wait_done(tasks)
    # If /readyz used its old connection, it would not show that.
    stage.service.wait_for_status("/readyz", 200, CONSUMES_AGAIN)
    tasks = stage.send(5)
    assert len(tasks) == 5, stage.refused
    stage.wait_done(tasks)
    now = stage.pids()
    assert (now["supervise"], now["web"]) == (before["supervise"], before["web"])
    assert "role:slave" in old.command("INFO", "replication")
