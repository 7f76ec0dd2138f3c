"""A worker that is deaf for a reason nobody knows ends itself, and one that has work does not."""

import re
import time

import pytest

from harness.answers import varied
from harness.faults.stage import CONSUMES_AGAIN
from harness.processes import wait_until

PATIENCE = 8  # seconds, of the copy's watchdog
BOOT = 60  # seconds until a worker that was started again is there, at worst
TASK = 3 * PATIENCE


def start(stage, **settings):
    """A service whose watchdog looks more often, and loses patience sooner."""
    stage.start_redis()
    stage.prepare(**settings)
    sooner = {
        "LOOK_INTERVAL": 1,
        "IDLE_BEFORE_ASKING": 3,
        "ASK_INTERVAL": 1,
        "DEAF_AFTER": PATIENCE,
    }
    for name, seconds in sooner.items():
        stage.replace_in("operations/watchdog.py", rf"^{name} = .*", f"{name} = {seconds}")
    stage.start()


def deafen(stage):
    """From now on the worker fetches nothing; what it waits for already has run out."""
    (stage.numbered / "deaf").touch()
    time.sleep(3)


def said(stage):
    """The lines of the watchdog in the log."""
    return re.findall(r"^.* operations\.watchdog: .*$", stage.program.output(), re.MULTILINE)


def test_a_deaf_worker_ends_itself_and_the_next_one_does_the_tasks(stage):
    """Exit status 75, one line that says why, and nobody else is restarted."""
    start(stage)
    before = stage.pids()
    deafen(stage)
    tasks = stage.send(3)
    wait_until(stage.exits_of_worker, 3 * (PATIENCE + 10), "the deaf worker ends itself")
    (stage.numbered / "deaf").unlink()
    assert stage.exits_of_worker() == ["75"]
    (line,) = said(stage)
    assert re.search(r"wait", line), line
    stage.wait_done(tasks, BOOT)
    now = stage.pids()
    assert (now["supervise"], now["web"]) == (before["supervise"], before["web"])
    assert now["worker"] != before["worker"]
    assert len(said(stage)) == 1


@pytest.mark.all
def test_a_worker_that_stays_deaf_ends_itself_three_times_an_hour(stage):
    """Restarting does not help then: it stays, the log and the doctor say so."""
    start(stage)
    before = stage.pids()
    deafen(stage)
    stage.send(3)
    three = 3 * (PATIENCE + BOOT)
    wait_until(lambda: len(stage.exits_of_worker()) >= 3, three, "three exits of the worker")
    wait_until(lambda: len(said(stage)) >= 4, PATIENCE + BOOT, "a line that says that it stays")
    fourth = stage.pids()
    time.sleep(2 * PATIENCE)
    assert stage.exits_of_worker() == ["75"] * 3
    assert stage.pids() == fourth
    assert (fourth["supervise"], fourth["web"]) == (before["supervise"], before["web"])
    assert len(said(stage)) == 4, said(stage)
    status, probes = stage.doctor()
    assert status == 1
    assert any(re.search("restart the worker", text, re.I) for text in probes.values()), probes


def busy(stage):
    """Tasks that run longer than the watchdog's patience, and others that wait behind them."""
    tasks = stage.send(4, seconds=TASK)
    stage.wait_started(tasks[:2])
    assert stage.waiting() == 2
    return tasks, TASK * 3


def rate_limited(stage):
    """Reserved in the worker until their turn comes, while others wait in the queue."""
    first, *_ = stage.send(4, task="seldom")
    stage.wait_done([first])
    wait_until(stage.waiting, 10, "a task that waits in the queue")
    return [], 0


def for_later(stage):
    """Reserved in the worker until their time has come."""
    return stage.send(2, countdown=TASK), TASK + CONSUMES_AGAIN


def redis_down(stage):
    """Nothing is known of what waits."""
    port = stage.server.port
    stage.server.stop()
    time.sleep(2 * PATIENCE)
    stage.server.port = port
    stage.server.start()
    return stage.send(3), CONSUMES_AGAIN


@pytest.mark.parametrize("work", varied([rate_limited, busy, for_later, redis_down]))
def test_a_worker_with_a_reason_to_wait_is_left_alone(stage, work):
    start(stage)
    before = stage.pids()
    tasks, seconds = work(stage)
    time.sleep(2 * PATIENCE)
    stage.wait_done(tasks, seconds)
    assert stage.exits_of_worker() == []
    assert stage.pids() == before
    assert said(stage) == []
