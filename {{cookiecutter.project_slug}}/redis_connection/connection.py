"""redis-py's connections, with the SSL context of a policy and without passwords in their errors.

For kombu, for the result backend, for `redis.Redis`, for Django's cache. aio.py has their twins.

Overridden of redis-py: `SSLConnection._wrap_socket_with_ssl`, which makes a new context for each
connection; and `on_connect_check_health`, which logs in: an error of the server may repeat what was
sent to it.
"""

import redis
from redis.exceptions import RedisError

from . import context
from .context import SYSTEM, Trust

DEFAULT_PORT = 6379

# {(host, port): whom to believe there}. Celery, kombu and their commands open connections by URL
# alone. What a policy says holds for the policy's server, and for no other one.
_trusts: dict[tuple[str, int], Trust] = {}


def register(host: str, port: int | None, trust: Trust):
    """Let connections to this server believe it as `trust` says."""
    _trusts[host.lower(), port or DEFAULT_PORT] = trust


def trust_of(host: str, port: int) -> Trust:
    """What was registered, else SYSTEM: the CAs of the system, and the host name."""
    return _trusts.get((host.lower(), int(port)), SYSTEM)


def remove_secret(error: Exception, secret: str | None):
    """Put *** for the secret in the error's texts, also where the server has changed it."""
    if secret:
        error.args = tuple(
            without(secret, part) if isinstance(part, str) else part for part in error.args
        )


def without(secret: str, text: str) -> str:
    # Redis has a space for each line break, and repeats 128 characters at most, and none after a
    # NUL. So the beginning is looked for, too; four characters could still be a word of the text.
    repeated = secret.replace("\r", " ").replace("\n", " ")
    for length in range(len(secret), min(len(secret), 5) - 1, -1):
        for shown in (secret[:length], repeated[:length]):
            if shown in text:
                return text.replace(shown, "***")
    return text


def without_tls(options: dict) -> dict:
    return {name: value for name, value in options.items() if not name.startswith("ssl_")}


class WithoutSecrets:
    """Logs in like the class behind it, but no error of that has the password in it."""

    def on_connect_check_health(self, check_health: bool = True):
        try:
            super().on_connect_check_health(check_health)
        except RedisError as error:
            # In place: a new error would still bring the old one along, as its __context__.
            remove_secret(error, self.password)
            raise


class Connection(WithoutSecrets, redis.Connection):
    """For redis://."""


class TLSConnection(WithoutSecrets, redis.SSLConnection):
    """For rediss://. It takes redis-py's own options for TLS (ssl_*), and leaves them unused.

    `trust` says whom to believe; without it, what is registered for the host and port.
    """

    def __init__(self, *, trust: Trust | None = None, **options):
        super().__init__(**without_tls(options))
        self.trust = trust

    def _wrap_socket_with_ssl(self, sock):
        trust = self.trust or trust_of(self.host, self.port)
        return context.wrap(trust, sock, self.host)
