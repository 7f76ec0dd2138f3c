"""A network drops the packets of existing connections, and neither side is told."""

import time

import pytest

from harness.faults.stage import CONSUMES_AGAIN
from harness.private_network import drop_connections, private_network
from harness.processes import wait_until


@pytest.mark.parametrize(
    "busy", [True, pytest.param(False, marks=pytest.mark.all)], ids=["busy", "idle"]
)
def test_a_worker_consumes_again_after_its_connections_were_dropped(stage, busy):
    """Meanwhile the doctor is red. Afterwards tasks are done, and no promised mail is lost."""
    with private_network():
        stage.start_redis()
        stage.prepare()
        stage.sweep_often()
        stage.start()
        before = stage.pids()
        running = stage.send(2, seconds=5) if busy else []
        stage.wait_started(running)
        assert drop_connections(stage.worker_family(), stage.server.port) > 0
        dropped = time.monotonic()
        addresses = [stage.register(name) for name in ("ada", "grace", "edith")]
        status, probes = stage.doctor()
        assert status == 1, probes

        def consumes():
            stage.wait_done(stage.send(1), 5)
            return True

        def tried():
            try:
                return consumes()
            except AssertionError:
                return False

        left = CONSUMES_AGAIN - (time.monotonic() - dropped)
        wait_until(tried, left, "a task is done")
        stage.wait_done(running)
        for address in addresses:
            stage.mailbox.wait(address, CONSUMES_AGAIN)
        stage.service.wait_for_status("/readyz", 200, 30)
        assert len(stage.mailbox.messages()) == len(addresses)
        assert stage.pids() == before
