"""redis-py's connections, with the SSL context of a policy and without passwords in their errors.

They are for kombu, the result backend, `redis.Redis` and Django's cache. aio.py has their twins for
asyncio.
"""

import ssl
from socket import socket
from typing import Any

import redis
from redis.exceptions import RedisError

from . import context, internals
from .context import SYSTEM, Trust

DEFAULT_PORT = 6379

# Of a longer password Redis repeats the beginning only. Fewer characters than these could also be a
# word of the error's own text.
SHORTEST_REPEATED = 5

# {(host, port): whom to believe there}. Celery, kombu and their commands open connections by a URL
# alone. What a policy says holds for the server of that policy, and for no other.
trusts: dict[tuple[str, int], Trust] = {}


def register(host: str, port: int | None, trust: Trust) -> None:
    """Let connections of this process to this server believe it as `trust` says."""
    trusts[host.lower(), port or DEFAULT_PORT] = trust


def trust_of(host: str, port: int) -> Trust:
    """What was registered; otherwise SYSTEM: the CAs of the system, and the host name."""
    return trusts.get((host.lower(), int(port)), SYSTEM)


def without_tls(options: dict[str, Any]) -> dict[str, Any]:
    """The options without redis-py's own for TLS, which the SSL context makes superfluous."""
    return {name: value for name, value in options.items() if not name.startswith("ssl_")}


def remove_secret(error: Exception, secret: str | None) -> None:
    """Put *** in place of the secret in the texts of the error.

    An error of the server may repeat what was sent to it (D-22).
    """
    if not secret:
        return
    texts = []
    for part in error.args:
        texts.append(without(secret, part) if isinstance(part, str) else part)
    error.args = tuple(texts)


def without(secret: str, text: str) -> str:
    """The text with *** in place of the secret, or of the beginning of it that Redis repeats.

    Redis repeats at most 128 characters, nothing after a NUL, and a space for each line break.
    """
    with_spaces = secret.replace("\r", " ").replace("\n", " ")
    shortest = min(len(secret), SHORTEST_REPEATED)
    for length in range(len(secret), shortest - 1, -1):
        for beginning in (secret[:length], with_spaces[:length]):
            if beginning in text:
                return text.replace(beginning, "***")
    return text


class WithoutSecrets:
    """Logs in like the connection behind it in the MRO, but no error has the password in it."""

    def on_connect_check_health(self, check_health: bool = True) -> None:
        try:
            super().on_connect_check_health(check_health)  # type: ignore[misc]
        except RedisError as error:
            # The error itself is changed. A new error would still have the old one as its
            # __context__, which a traceback shows.
            remove_secret(error, self.password)  # type: ignore[attr-defined]
            raise


class Connection(WithoutSecrets, redis.Connection):
    """For redis:// URLs."""


class TLSConnection(WithoutSecrets, internals.TLSConnection):
    """For rediss:// URLs.

    `trust` says whom to believe. Without it, what is registered for the host and port counts.
    redis-py's own options for TLS (ssl_*) are accepted and left unused.
    """

    def __init__(self, *, trust: Trust | None = None, **options: Any) -> None:
        super().__init__(**without_tls(options))
        self.trust = trust

    def shake_hands(self, sock: socket) -> ssl.SSLSocket:
        trust = self.trust or trust_of(self.host, self.port)
        return context.wrap(trust, sock, self.host)
