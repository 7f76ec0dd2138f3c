"""Celery's consumer, for a Redis that refuses and for messages that no task can be made of.

settings.py names it as CELERY_WORKER_CONSUMER.
"""

import logging
import os
import time
import warnings
from typing import Any

from celery.exceptions import CPendingDeprecationWarning
from celery.worker.consumer import Consumer as CeleryConsumer
from celery.worker.state import active_requests, maybe_shutdown
from django.db import connection
from redis.exceptions import RedisError, ResponseError

from authentication import delivery, email_utils
from redis_connection import transport

from . import put_aside

logger = logging.getLogger(__name__)

# At each reconnection it asks, in ten lines, for a setting that settings.py has on purpose.
warnings.filterwarnings("ignore", r"\s*In Celery 5.1 we introduced", CPendingDeprecationWarning)

# Workers can tell each other that they are there and what they do. Nothing in this service listens,
# and each of these messages is a command to Redis. These are options of `celery worker`.
SILENT = {"without_gossip": True, "without_mingle": True, "without_heartbeat": True}

REFUSED_PAUSE = (1, 2, 5, 10)  # seconds between tries, while Redis refuses; then always the last
LAST_WORDS = 2  # seconds for a process that was told to end


class Consumer(CeleryConsumer):
    """Waits while Redis refuses, puts aside what it cannot work on, and keeps to itself."""

    def __init__(
        self, *args: Any, worker_options: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        options = {**(worker_options or {}), **SILENT}
        super().__init__(*args, worker_options=options, **kwargs)
        self.refusals = 0
        transport.on_unreadable = self.put_aside_unreadable

    # A server that refuses

    def on_connection_error_before_connected(self, exc):
        super().on_connection_error_before_connected(exc)
        self.pause(exc)

    def on_connection_error_after_connected(self, exc):
        super().on_connection_error_after_connected(exc)
        self.pause(exc)

    def pause(self, exc):
        """Wait before the next try: Celery would try again at once, several times a second."""
        if not isinstance(exc, ResponseError):
            return
        seconds = REFUSED_PAUSE[min(self.refusals, len(REFUSED_PAUSE) - 1)]
        self.refusals += 1
        logger.error("Redis refuses: %s. Trying again in %s s.", exc, seconds)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            maybe_shutdown()
            time.sleep(0.2)

    # A stop that interrupts tasks

    def cancel_active_requests(self):
        """Kill what is still running after the soft shutdown, and free what it had claimed.

        Celery gives the messages back to the queue after this. Whoever takes one must find the row
        of its e-mail free, or would wait until the claim ends by itself.
        """
        pids = {request.worker_pid for request in active_requests}
        super().cancel_active_requests()
        until = time.monotonic() + LAST_WORDS
        while any(map(is_running, pids)) and time.monotonic() < until:
            time.sleep(0.05)
        try:
            email_utils.give_back_claims(delivery.claimant(self.hostname))
        finally:
            connection.close()

    # A message that no task can be made of

    def create_task_handler(self, *args, **kwargs):
        handle = super().create_task_handler(*args, **kwargs)

        def on_task_received(message):
            self.refusals = 0
            try:
                handle(message)
            except (RedisError, OSError):
                raise  # of the connection, not of the message
            except Exception as error:
                # It would end the worker, and then come back to the next one.
                self.put_aside(message, f"{type(error).__name__}: {error}")
                message.reject_log_error(logger, self.connection_errors)

        return on_task_received

    def on_unknown_message(self, body, message):
        self.put_aside(message, "it is no message of a task")
        super().on_unknown_message(body, message)

    def on_unknown_task(self, body, message, exc):
        self.put_aside(message, f"no task of this worker has the name {exc}")
        super().on_unknown_task(body, message, exc)

    def on_invalid_task(self, body, message, exc):
        self.put_aside(message, f"{type(exc).__name__}: {exc}")
        super().on_invalid_task(body, message, exc)

    def on_decode_error(self, message, exc):
        self.put_aside(message, f"it cannot be decoded: {exc}")
        super().on_decode_error(message, exc)

    def put_aside(self, message, reason: str):
        queue = (message.delivery_info or {}).get("routing_key", "")
        self.keep(queue, message.headers, message.body, reason)

    def put_aside_unreadable(self, queue: str, raw: bytes, reason: str):
        self.keep(queue, "", raw, reason)

    def keep(self, *row):
        try:
            put_aside.keep(self.hostname, *row)
        finally:
            # This is the main process: those that are forked later must not share its connection.
            connection.close()


def is_running(pid: int | None) -> bool:
    """Whether a child of this process still runs. It stays for billiard to collect."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except (ChildProcessError, TypeError):  # collected already, or not started
        return False
