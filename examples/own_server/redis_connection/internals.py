"""The private names of redis-py and kombu that this package needs.

Neither library offers a public way to do what is done here. Each private name stands in this file
only, once, with the reason, behind a public name that the other modules use or override. A release
that renames one of them turns tests/test_connection.py or tests/test_transport.py red: these let
living objects call each of them (D-26).
"""

import ssl
from collections.abc import Callable
from socket import socket
from typing import Any

import redis
import redis.asyncio
from kombu import transport as kombu_transports
from kombu.transport import redis as kombu_redis
from redis.asyncio.connection import SSLConnection as AsyncioSSLConnection


class TLSConnection(redis.SSLConnection):
    """redis-py makes a new SSL context for each connection, and takes none from outside."""

    def _wrap_socket_with_ssl(self, sock: socket) -> ssl.SSLSocket:
        return self.shake_hands(sock)

    def shake_hands(self, sock: socket) -> ssl.SSLSocket:
        """The socket after the TLS handshake."""
        raise NotImplementedError


class AsyncioTLSConnection(AsyncioSSLConnection):
    """The same for redis-py's asyncio."""

    def _connection_arguments(self) -> dict[str, Any]:
        # Not those of SSLConnection: for them it would make a context of its own.
        arguments = redis.asyncio.Connection._connection_arguments(self)
        return dict(arguments) | {"ssl": self.context_for_handshake()}

    def context_for_handshake(self) -> ssl.SSLContext:
        raise NotImplementedError

    async def _connect(self) -> None:
        try:
            await super()._connect()
        except ssl.SSLCertVerificationError as error:
            self.explain(error)
            raise

    def explain(self, error: ssl.SSLCertVerificationError) -> None:
        """Say in OpenSSL's error which variable it is about."""
        raise NotImplementedError


class QoS(kombu_redis.QoS):
    def remove_from_indices(self, delivery_tag: str, pipe: Any) -> None:
        """Let Redis forget a message, as part of a pipeline."""
        self._remove_from_indices(delivery_tag, pipe)


class Channel(kombu_redis.Channel):
    """kombu has no setting for its pools, its client, or for what a message must be."""

    def _get_pool(self, asynchronous: bool = False) -> redis.ConnectionPool:
        return self.make_pool(waits_for_messages=asynchronous)

    def make_pool(self, *, waits_for_messages: bool) -> redis.ConnectionPool:
        """kombu keeps a pool for commands, and a second one to wait for messages."""
        pool: redis.ConnectionPool = super()._get_pool(waits_for_messages)
        return pool

    def pool_parameters(self) -> dict[str, Any]:
        parameters: dict[str, Any] = self._connparams()
        # kombu completes this name where it makes a pool.
        self.keyprefix_fanout = self.keyprefix_fanout.format(db=parameters["db"])
        return parameters

    def forget_pool_for_commands(self) -> None:
        """The next command makes a new pool. The old one is left as it is."""
        self._pool = None

    def forget_pool_for_waiting(self) -> None:
        self._async_pool = None

    def _disconnect_pools(self) -> None:
        self.disconnect_pools()

    def disconnect_pools(self) -> None:
        super()._disconnect_pools()

    def _get_client(self) -> Callable[..., redis.Redis]:
        super()._get_client()  # which refuses a redis-py that is too old
        return self.make_client

    def make_client(self, *args: Any, **options: Any) -> redis.Redis:
        raise NotImplementedError

    def _deliver_fanout_message(self, message: Any, exchange: str) -> bool:
        return self.deliver_published(message, exchange)

    def deliver_published(self, message: Any, exchange: str) -> bool:
        """Hand over what was published to all: a command of `celery control`, or an event."""
        return bool(super()._deliver_fanout_message(message, exchange))

    def _put(self, queue: str, message: dict[str, Any], **options: Any) -> None:
        self.put(queue, message, **options)

    def put(self, queue: str, message: dict[str, Any], **options: Any) -> None:
        super()._put(queue, message, **options)


def forget_transport(scheme: str) -> None:
    """Let kombu look for the transport of this URL scheme again.

    kombu remembers what it found, so it would not see a change of its table of transports.
    """
    kombu_transports._transport_cache.pop(scheme, None)
