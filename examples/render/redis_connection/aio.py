"""The connections of connection.py for asyncio: `redis.asyncio`, Channels."""

import ssl
from typing import Any

import redis.asyncio
from redis.exceptions import RedisError

from . import context, internals
from .connection import remove_secret, trust_of, without_tls
from .context import Trust


class WithoutSecrets:
    """Logs in like the connection behind it in the MRO, but no error has the password in it."""

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        try:
            await super().on_connect_check_health(check_health)  # type: ignore[misc]
        except RedisError as error:
            remove_secret(error, self.password)  # type: ignore[attr-defined]
            raise


class Connection(WithoutSecrets, redis.asyncio.Connection):
    """For redis:// URLs."""


class TLSConnection(WithoutSecrets, internals.AsyncioTLSConnection):
    """For rediss:// URLs. It takes the same options as its twin in connection.py."""

    def __init__(self, *, trust: Trust | None = None, **options: Any) -> None:
        super().__init__(**without_tls(options))
        self.given_trust = trust

    @property
    def trust(self) -> Trust:
        return self.given_trust or trust_of(self.host, self.port)

    def context_for_handshake(self) -> ssl.SSLContext:
        return context.context_of(self.trust)

    def explain(self, error: ssl.SSLCertVerificationError) -> None:
        context.name_the_pin(self.trust, error)
