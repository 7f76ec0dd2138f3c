"""Ends a worker that takes no tasks although some are waiting, so that supervise starts a new one.

Every cause that we know of is mended where it arises. The watchdog is for those that we do not
know: a worker that lives, holds its connections and answers a ping, but takes no task any more
(D-55).
"""

import logging
import math
import os
import threading
import time
from datetime import timedelta

from celery.worker import state
from celery.worker.consumer import Consumer
from celery.worker.request import Request
from django.db import Error, connection
from django.db.models.functions import Now
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from .models import DeafWorker

logger = logging.getLogger(__name__)

# The exit status of a worker that ends itself: "try again" (EX_TEMPFAIL of sysexits.h).
# supervise.py has the same number, and does not count these exits as failures of the worker.
TAKES_NO_TASKS = 75

# Seconds between two looks at the worker's own process, which cost nothing.
LOOK_INTERVAL = 5
# Seconds that the worker must have been idle before the watchdog asks Redis what is waiting. Beat
# sends housekeeping every 120 s, so a healthy worker that is alone never has to ask.
IDLE_BEFORE_ASKING = 130
# Seconds between two questions to Redis.
ASK_INTERVAL = 30
# Seconds that tasks must have been waiting, while Redis answers and the worker stays idle, until
# the worker counts as deaf and is ended.
DEAF_AFTER = 120
# Seconds by which a task must have passed its hard time limit until it no longer counts as work.
TIME_LIMIT_SLACK = 60
# Seconds that a worker gets to end in its own way. After that its process is ended at once.
TIME_TO_END = 20

# How often a worker may end itself within an hour. If that has not helped, more of it will not.
MAX_ENDS_AN_HOUR = 3


class Watchdog(threading.Thread):
    """A thread in the worker's main process that watches Celery's consumer there."""

    def __init__(self, consumer: Consumer) -> None:
        super().__init__(name="watchdog", daemon=True)
        self.consumer = consumer
        # Times are those of time.monotonic().
        self.idle_since = time.monotonic()
        self.asked_at = -math.inf
        # When Redis first said that tasks are waiting; None while none are.
        self.waiting_since: float | None = None
        # How many tasks the worker had started at the last look.
        self.started_before = 0
        self.has_complained = False

    def run(self) -> None:
        while True:
            time.sleep(LOOK_INTERVAL)
            # Each look has a thread of its own, so that an error ends this look alone, and Python
            # prints its traceback. If the watchdog itself ended, nobody would notice.
            look = threading.Thread(target=self.look, name="watchdog's look", daemon=True)
            look.start()
            look.join()

    def look(self) -> None:
        """Look at this process and, if the worker has been idle for long, at its queues."""
        now = time.monotonic()
        if self.is_busy():
            self.idle_since = now
            self.waiting_since = None
            return
        idle = now - self.idle_since
        if idle < IDLE_BEFORE_ASKING or now - self.asked_at < ASK_INTERVAL:
            return
        self.asked_at = now
        waiting = self.count_waiting_tasks()
        if waiting == 0:
            self.waiting_since = None
            return
        if self.waiting_since is None:
            self.waiting_since = now
        if now - self.waiting_since >= DEAF_AFTER:
            self.end_worker(waiting, idle)

    def is_busy(self) -> bool:
        """Whether the worker does anything: it has started a task since the last look, or has one
        to do, or is stopping.
        """
        started = state.all_total_count[0]
        has_started_one = started != self.started_before
        self.started_before = started
        is_stopping = state.should_stop is not None or bool(state.should_terminate)
        if has_started_one or is_stopping:
            return True
        try:
            requests = set(state.reserved_requests) | set(state.active_requests)
        except RuntimeError:
            # The main thread has changed one of the sets at this moment, so it is at work.
            return True
        if self.holds_tasks_back():
            return True
        return not all(self.is_overdue(request) for request in requests)

    def holds_tasks_back(self) -> bool:
        """Whether tasks wait in this worker because of their rate limit."""
        # A task without a rate limit has no bucket.
        buckets = list(self.consumer.task_buckets.values())
        return any(bucket and bucket.contents for bucket in buckets)

    def is_overdue(self, request: Request) -> bool:
        """Whether the task should have been killed long ago.

        The main process kills tasks at their hard time limit. If it has not, it hangs.
        """
        limit = self.time_limit_of(request)
        if not request.time_start or not limit:
            return False
        return time.time() - request.time_start > limit + TIME_LIMIT_SLACK

    def time_limit_of(self, request: Request) -> float | None:
        """The hard time limit in seconds: of this call, of its task, or of all tasks."""
        limit_of_call = request.time_limits[0]
        limit_of_task = request.task.time_limit
        return limit_of_call or limit_of_task or self.consumer.app.conf.task_time_limit

    def count_waiting_tasks(self) -> int:
        """How many tasks wait in the queues of this worker, or 0 if Redis does not answer."""
        try:
            names = [queue.name for queue in self.consumer.task_consumer.queues]
            with self.consumer.app.connection_for_read() as broker:
                channel = broker.channel()
                return sum(channel.queue_declare(name).message_count for name in names)
        except (OperationalError, RedisError, OSError, AttributeError) as error:
            # There is an AttributeError while the worker is between two connections.
            logger.debug("the watchdog got no answer: %s", error)
            return 0

    def end_worker(self, waiting: int, idle: float) -> None:
        """End this process with the status TAKES_NO_TASKS, unless it did so too often lately."""
        reason = f"{waiting} tasks wait, and this worker has started none for {idle:.0f} s"
        try:
            may_end = self.record_end(reason)
        except Error as error:
            logger.error("%s, but the database does not answer: %s", reason, error)
            return
        finally:
            # The worker forks its processes from this one. They must not share a connection.
            connection.close()
        if not may_end:
            self.complain_once(reason)
            return
        # The worker may hang, and even the log may. So the timer starts before anything else.
        timer = threading.Timer(TIME_TO_END, os._exit, [TAKES_NO_TASKS])
        timer.daemon = True
        timer.start()
        logger.critical("%s: it ends itself, to be started anew", reason)
        # Celery's main thread ends the worker with this status.
        state.should_stop = TAKES_NO_TASKS

    def record_end(self, reason: str) -> bool:
        """Record in the database, which outlives this process, that the worker ends itself.

        Return False, and record nothing, if it did so MAX_ENDS_AN_HOUR times within an hour.
        """
        ends = DeafWorker.objects.filter(
            worker=self.consumer.hostname, at__gt=Now() - timedelta(hours=1)
        )
        if ends.count() >= MAX_ENDS_AN_HOUR:
            return False
        DeafWorker.objects.create(worker=self.consumer.hostname, detail=reason)
        return True

    def complain_once(self, reason: str) -> None:
        if self.has_complained:
            return
        self.has_complained = True
        logger.critical(
            "%s. It has ended itself %d times within the last hour, and stays now: restart it",
            reason,
            MAX_ENDS_AN_HOUR,
        )
