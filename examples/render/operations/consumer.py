"""Celery's consumer, for a Redis that refuses and for messages that no task can be made of.

settings.py names this class as CELERY_WORKER_CONSUMER.
"""

import logging
import os
import time
import warnings
from collections.abc import Callable
from typing import Any

from celery.exceptions import CPendingDeprecationWarning
from celery.worker.consumer import Consumer as CeleryConsumer
from celery.worker.state import active_requests, maybe_shutdown
from django.db import connection
from kombu import Message
from redis.exceptions import RedisError, ResponseError

from authentication import claims
from redis_connection import transport

from . import put_aside

logger = logging.getLogger(__name__)

# At each reconnection Celery warns, in ten lines, of a setting that settings.py has on purpose.
warnings.filterwarnings("ignore", r"\s*In Celery 5.1 we introduced", CPendingDeprecationWarning)

# Workers can tell each other that they are there and what they do. Nothing in this service listens,
# and each of these messages is a command to Redis. These are options of `celery worker`.
SILENT = {"without_gossip": True, "without_mingle": True}

# Seconds between two tries while Redis refuses. The last one is for all further tries.
REFUSED_PAUSES = (1, 2, 5, 10)
# Seconds that a killed process may take until it is gone.
TIME_TO_DIE = 2


class Consumer(CeleryConsumer):
    """Waits while Redis refuses, puts aside what no task can be made of, and keeps to itself."""

    def __init__(
        self, *args: Any, worker_options: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        options = {**(worker_options or {}), **SILENT}
        # A worker with `-E` is listened to, by Flower for one. That wants its heartbeats, too.
        if not kwargs.get("task_events", options.get("task_events")):
            options["without_heartbeat"] = True
        super().__init__(*args, worker_options=options, **kwargs)
        self.refusals = 0
        transport.on_unreadable = self.put_aside_unreadable

    # A Redis that refuses. Celery calls the first two methods when it has lost the broker.

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        super().on_connection_error_before_connected(exc)
        self.pause(exc)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        super().on_connection_error_after_connected(exc)
        self.pause(exc)

    def pause(self, exc: Exception) -> None:
        """Wait before the next try, if Redis answered and refused.

        By itself Celery pauses only while Redis does not answer. It would ask a Redis that refuses
        several times a second.
        """
        if not isinstance(exc, ResponseError):
            return
        last = len(REFUSED_PAUSES) - 1
        seconds = REFUSED_PAUSES[min(self.refusals, last)]
        self.refusals += 1
        logger.error("Redis refuses: %s. Trying again in %s s.", exc, seconds)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            # This raises if the worker is to stop.
            maybe_shutdown()
            time.sleep(0.2)

    # A stop that interrupts tasks. Celery calls this method when the soft shutdown is over.

    def cancel_active_requests(self) -> None:
        """Kill the tasks that are still running, and free the e-mails that they had claimed.

        After this Celery gives the messages back to the queue. The worker that gets one must find
        its e-mail free. Otherwise it would have to wait until the claim ends by itself.
        """
        pids = {request.worker_pid for request in active_requests}
        super().cancel_active_requests()
        wait_until_ended(pids)
        try:
            claims.give_back_claims(claims.claimant(self.hostname))
        finally:
            connection.close()

    # A message that no task can be made of. The handler sees every message, and Celery calls the
    # methods after it for the messages that it rejects.

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Message], None]:
        handle = super().create_task_handler(*args, **kwargs)

        def on_task_received(message: Message) -> None:
            # Redis has handed a message out, so it refuses no longer.
            self.refusals = 0
            try:
                handle(message)
            except (RedisError, OSError):
                # The connection failed. Nothing is wrong with the message.
                raise
            except Exception as error:
                # An error that leaves this handler ends the worker. Then the message returns to
                # its queue, and ends the next worker.
                self.put_aside(message, f"{type(error).__name__}: {error}")
                message.reject_log_error(logger, self.connection_errors)

        return on_task_received

    def on_unknown_message(self, body: object, message: Message) -> None:
        self.put_aside(message, "it is not the message of a task")
        super().on_unknown_message(body, message)

    def on_unknown_task(self, body: object, message: Message, exc: Exception) -> None:
        self.put_aside(message, f"no task of this worker has the name {exc}")
        super().on_unknown_task(body, message, exc)

    def on_invalid_task(self, body: object, message: Message, exc: Exception) -> None:
        self.put_aside(message, f"{type(exc).__name__}: {exc}")
        super().on_invalid_task(body, message, exc)

    def on_decode_error(self, message: Message, exc: Exception) -> None:
        self.put_aside(message, f"it cannot be decoded: {exc}")
        super().on_decode_error(message, exc)

    def put_aside(self, message: Message, reason: str) -> None:
        delivery_info = message.delivery_info or {}
        queue = delivery_info.get("routing_key", "")
        self.keep(queue, message.headers, message.body, reason)

    def put_aside_unreadable(self, queue: str, raw: bytes, reason: str) -> None:
        """The transport calls this for what Redis handed out and kombu could not read at all."""
        self.keep(queue, "", raw, reason)

    def keep(self, queue: str, headers: object, body: object, reason: str) -> None:
        try:
            put_aside.keep(self.hostname, queue, headers, body, reason)
        finally:
            # The worker forks its processes from this one. They must not share a connection.
            connection.close()


def wait_until_ended(pids: set[int | None]) -> None:
    """Wait until none of these children is running, for TIME_TO_DIE at most."""
    end = time.monotonic() + TIME_TO_DIE
    while time.monotonic() < end:
        if not any(is_running(pid) for pid in pids):
            return
        time.sleep(0.05)


def is_running(pid: int | None) -> bool:
    """Whether a child of this process is running. None is one that was never started.

    A child that has ended is not collected here, because billiard expects to do that.
    """
    if pid is None:
        return False
    try:
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        # billiard has collected it already.
        return False
    return ended is None
