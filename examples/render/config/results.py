"""Celery's result backend over the connections of redis_connection."""

from typing import Any

from celery.backends.redis import RedisBackend
from redis import SSLConnection

from redis_connection.connection import Connection, TLSConnection
from redis_connection.timeouts import KEEPALIVE


class Backend(RedisBackend):
    """celery.py names it in Celery's table of backends, for redis:// and rediss://."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # RedisBackend.connection_class_ssl would look right, but is not used for rediss:// URLs.
        encrypted = issubclass(self.connparams.get("connection_class", Connection), SSLConnection)
        self.connparams["connection_class"] = TLSConnection if encrypted else Connection
        # Celery has no setting for how often the kernel looks whether the server is still there.
        self.connparams |= KEEPALIVE
