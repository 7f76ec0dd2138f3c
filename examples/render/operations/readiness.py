"""What /readyz asks: the database, the broker, and the heartbeat of beat and worker."""

import logging
from functools import cache

import redis
from django.conf import settings
from django.db import connection
from redis.backoff import NoBackoff
from redis.retry import Retry

from redis_connection.diagnosis import try_to_write

from . import probes
from .probes import Probe
from .worker_probes import last_housekeeping

TIMEOUT = 1.5  # seconds for each step, so that /readyz can answer within 5
# The key that is written to. With the prefix, as the ACL in docs/redis.md allows it.
KEY = settings.REDIS_PREFIX + "readyz"

logger = logging.getLogger(__name__)


def steps() -> list[Probe]:
    return [
        Probe("database", database),
        Probe("broker", broker),
        Probe("heartbeat", heartbeat),
    ]


def states() -> dict[str, str]:
    """{name of the step: its state}. The reasons of failures are logged.

    None of the steps depends on another one, so all are asked, whatever fails.
    """
    found: dict[str, str] = {}
    try:
        for result in probes.run(steps(), stop_at_failure=False):
            found[result.name] = result.state
            if result.state == "fail":
                logger.warning(
                    "not ready: %s: %s (to do: %s)", result.name, result.detail, result.hint
                )
    finally:
        # Django closes the connections of requests only, and this is another thread.
        connection.close()
    return found


def database() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return "answers"


def broker() -> str:
    """Redis takes a write: one that is full, or became a replica, still answers a PING (D-58)."""
    client = kept_client()
    try:
        try_to_write(client, KEY)
    except redis.RedisError:
        # The name of a server that refuses may lead to another server by now.
        client.connection_pool.disconnect()
        raise
    return "takes writes"


def heartbeat() -> str:
    """Housekeeping ran lately: beat, broker, worker and database work together."""
    return last_housekeeping(
        "See that worker and beat run, and read their logs. If the worker is there and takes no"
        " tasks, restart the worker."
    )


@cache
def kept_client() -> redis.Redis:
    """A client whose one connection is kept: anybody may ask for /readyz, as often as they like."""
    timeouts = {"socket_timeout": TIMEOUT, "socket_connect_timeout": TIMEOUT}
    options = settings.REDIS.client() | timeouts
    return redis.Redis.from_url(settings.REDIS.url, **options, retry=Retry(NoBackoff(), 1))
