"""A Redis that does not answer for a while, and closes nothing: a busy host, a snapshot."""

import time

import pytest

from harness.faults.stage import stalled
from harness.processes import wait_until

pytestmark = pytest.mark.live
STALLS = {
    "8 s, busy": ([8], 2, True),
    "15 s, busy": ([15], 2, True),
    "twice 8 s, busy": ([8, 8], 2, True),
    "8 s, busy, one process": ([8], 1, True),
    "60 s, idle": ([60], 2, False),
}


@pytest.mark.parametrize("stall", STALLS)
def test_a_worker_consumes_again_after_a_stall(stage, stall):
    """No acknowledgement that falls into a stall costs a place, and none is left for an hour."""
    lengths, processes, busy = STALLS[stall]
    stage.start_redis()
    stage.start(CELERY_WORKER_CONCURRENCY=processes)
    before = stage.pids()
    for length in lengths:
        # Done after 2 s: the server is silent for longer than a client waits for its answer.
        running = stage.send(processes, seconds=2) if busy else []
        stage.wait_started(running)
        with stalled(stage.server):
            time.sleep(length)
        stage.wait_done(running, 30)
    stage.wait_done(stage.send(5))
    wait_until(lambda: stage.unacknowledged() == 0, 60, "every message is acknowledged")
    assert stage.pids() == before
