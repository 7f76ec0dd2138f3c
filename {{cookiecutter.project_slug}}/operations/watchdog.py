"""Ends a worker that takes no tasks although some wait, so that it is started anew.

Every cause that is known is mended where it arises. This is for the others: a worker that lives,
holds its connections and answers a ping, but takes nothing any more.
"""

import logging
import os
import threading
import time
from datetime import timedelta

from celery.worker import state
from django.db import Error, connection
from django.db.models.functions import Now
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from .models import DeafWorker

logger = logging.getLogger(__name__)

# The exit status of a worker that ends itself: "try again" (EX_TEMPFAIL of sysexits.h).
# supervise.py has the same number, and does not count these among the failures of the worker.
TAKES_NO_TASKS = 75

TICK = 5  # seconds between two looks at this process, which cost nothing
# Seconds without a task after which Redis is asked. Housekeeping comes every 120 s, so a worker
# that is alone never has to ask.
QUIET = 130
LOOK_EVERY = 30  # seconds between two questions to Redis
PATIENCE = 120  # seconds for which tasks wait, Redis answers, and this worker takes none
AT_MOST = 3  # times an hour
LAST_RESORT = 20  # seconds for the worker to end in its own way
LIMIT_SLACK = 60  # seconds beyond a task's hard time limit


class Watchdog(threading.Thread):
    """A thread of the worker's main process, with Celery's consumer to look at."""

    def __init__(self, consumer):
        super().__init__(name="watchdog", daemon=True)
        self.consumer = consumer
        self.started = 0  # tasks that this worker has started so far
        self.quiet_since = time.monotonic()
        self.asked_at = -LOOK_EVERY
        self.waiting_since = None
        self.said_so = False

    def run(self):
        while True:
            time.sleep(TICK)
            try:
                self.look()
            except Exception:
                # Whatever it is: a watchdog that ends is one that nobody misses.
                logger.exception("the watchdog could not look")

    def look(self):
        now = time.monotonic()
        if self.is_busy():
            self.quiet_since = now
            self.waiting_since = None
            return
        if now - self.quiet_since < QUIET or now - self.asked_at < LOOK_EVERY:
            return
        self.asked_at = now
        count = self.waiting()
        if not count:  # nothing to do, or no answer
            self.waiting_since = None
            return
        if self.waiting_since is None:
            self.waiting_since = now
        if now - self.waiting_since >= PATIENCE:
            self.end(count, now - self.quiet_since)

    def is_busy(self) -> bool:
        """Whether it has started a task since the last look, or has one to do, or is to stop."""
        started, self.started = self.started, state.all_total_count[0]
        if self.started != started or state.should_stop is not None or state.should_terminate:
            return True
        try:
            reserved = set(state.reserved_requests) | set(state.active_requests)
        except RuntimeError:  # they change at this moment
            return True
        held_back = any(bucket and bucket.contents for bucket in self.buckets())
        return held_back or not all(map(self.is_overdue, reserved))

    def buckets(self) -> list:
        """What holds back the tasks that have a rate limit."""
        return list(self.consumer.task_buckets.values())

    def is_overdue(self, request) -> bool:
        """Whether it should have been killed: only a main process that hangs kills nobody."""
        limit = request.time_limits[0] or request.task.time_limit
        limit = limit or self.consumer.app.conf.task_time_limit
        if not request.time_start or not limit:
            return False
        return time.time() - request.time_start > limit + LIMIT_SLACK

    def waiting(self) -> int:
        """How many tasks wait in the queues of this worker; 0 as well if Redis does not answer."""
        try:
            names = [queue.name for queue in self.consumer.task_consumer.queues]
            with self.consumer.app.connection_for_read() as broker:
                channel = broker.channel()
                return sum(channel.queue_declare(name).message_count for name in names)
        except (OperationalError, RedisError, OSError, AttributeError) as error:
            # AttributeError: the worker is between two connections.
            logger.debug("the watchdog got no answer: %s", error)
            return 0

    def end(self, count: int, quiet: float):
        """End this process with status 75, unless that was done three times in the last hour."""
        seen = f"{count} tasks wait, and this worker has started none for {quiet:.0f} s"
        if not self.may_end(seen):
            return
        # The worker may hang, and so may the log.
        timer = threading.Timer(LAST_RESORT, os._exit, [TAKES_NO_TASKS])
        timer.daemon = True
        timer.start()
        logger.critical("%s: it ends itself, to be started anew", seen)
        state.should_stop = TAKES_NO_TASKS

    def may_end(self, seen: str) -> bool:
        """Note it in the database, which outlives this process; False if it is noted too often."""
        try:
            hour = DeafWorker.objects.filter(
                worker=self.consumer.hostname, at__gt=Now() - timedelta(hours=1)
            )
            if hour.count() < AT_MOST:
                DeafWorker.objects.create(worker=self.consumer.hostname, detail=seen)
                return True
        except Error as error:
            logger.error("%s, but the database does not answer: %s", seen, error)
            return False
        finally:
            connection.close()
        if not self.said_so:
            logger.critical("%s, as %d times in the last hour: restart it", seen, AT_MOST)
            self.said_so = True
        return False
