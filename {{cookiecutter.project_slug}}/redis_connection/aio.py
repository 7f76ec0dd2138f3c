"""The connections of connection.py for asyncio: `redis.asyncio`, Channels.

Overridden of redis-py: `SSLConnection._connection_arguments`, which makes a new context, `_connect`
and `on_connect_check_health`.
"""

import ssl

from redis.asyncio import connection as theirs
from redis.exceptions import RedisError

from . import context
from .connection import remove_secret, trust_of, without_tls
from .context import Trust


class WithoutSecrets:
    """Logs in like the class behind it, but no error of that has the password in it."""

    async def on_connect_check_health(self, check_health: bool = True):
        try:
            await super().on_connect_check_health(check_health)
        except RedisError as error:
            remove_secret(error, self.password)
            raise


class Connection(WithoutSecrets, theirs.Connection):
    """For redis://."""


class TLSConnection(WithoutSecrets, theirs.SSLConnection):
    """For rediss://. It takes redis-py's own options for TLS (ssl_*), and leaves them unused."""

    def __init__(self, *, trust: Trust | None = None, **options):
        super().__init__(**without_tls(options))
        self.trust = trust

    def _connection_arguments(self):
        # Not super(), which would make a context from the options.
        arguments = theirs.Connection._connection_arguments(self)
        return arguments | {"ssl": context.context_of(self._trust())}

    def _trust(self) -> Trust:
        return self.trust or trust_of(self.host, self.port)

    async def _connect(self):
        try:
            await super()._connect()
        except ssl.SSLCertVerificationError as error:
            context.name_the_pin(self._trust(), error)
            raise
