"""Redis stalls: for a while it neither answers nor closes anything (a busy host, a snapshot)."""

import time

import pytest

from harness.answers import varied
from harness.faults.stage import stalled
from harness.processes import wait_until

STALLS = {
    "8 s, busy": ([8], 2, True),
    "15 s, busy": ([15], 2, True),
    "twice 8 s, busy": ([8, 8], 2, True),
    "8 s, busy, one process": ([8], 1, True),
    "60 s, idle": ([60], 2, False),
}


@pytest.mark.parametrize("stall", varied(STALLS))
def test_a_worker_consumes_again_after_a_stall(stage, stall):
    """An acknowledgement during a stall costs no place, and leaves no task for an hour."""
    lengths, processes, busy = STALLS[stall]
    stage.start_redis()
    stage.start(CELERY_WORKER_CONCURRENCY=processes)
    before = stage.pids()
    for length in lengths:
        # The task is done after 2 s. The server stays silent for longer than a client waits.
        running = stage.send(processes, seconds=2) if busy else []
        stage.wait_started(running)
        with stalled(stage.server):
            time.sleep(length)
        stage.wait_done(running, 30)
    stage.wait_done(stage.send(5))
    wait_until(lambda: stage.unacknowledged() == 0, 60, "every message is acknowledged")
    assert stage.pids() == before
