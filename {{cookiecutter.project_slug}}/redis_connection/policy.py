"""What one Redis URL means for every client that uses it."""

import logging
import socket
import ssl
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from . import aio, connection, pem
from .context import Trust
from .url import is_private

logger = logging.getLogger(__name__)

TIMEOUT = 5  # seconds; without it a connection to a black hole blocks a web request for ever
# The same for asyncio, where who waits blocks nobody. Channels waits 5 s at a time for a message.
ASYNCIO_TIMEOUT = 15
HEALTH_CHECK = 25  # seconds; below the idle timeout of every provider (the shortest is 150)
# The kernel gives up on a silent peer after 20 s, before kombu can take a message from one
# connection and lose it on another (that needs less than polling interval + health check).
_TCP = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 20_000}
TCP = {getattr(socket, name): value for name, value in _TCP.items() if hasattr(socket, name)}
KEEPALIVE = {"socket_keepalive": True, "socket_keepalive_options": TCP}
OPTIONS = KEEPALIVE | {
    "socket_timeout": TIMEOUT,
    "socket_connect_timeout": TIMEOUT,
    "health_check_interval": HEALTH_CHECK,
}


@dataclass(frozen=True)
class Policy:
    """A Redis URL and its TLS policy. `cert_reqs` is required, optional or none.

    REDIS_CA_CERTS, REDIS_CLIENT_CERT and REDIS_CLIENT_KEY are `ca_certs`, `certfile` and `keyfile`:
    each the path of a PEM file, or PEM text.
    """

    url: str = field(repr=False)
    cert_reqs: str = "required"
    check_hostname: bool = True
    ca_certs: str = field(default="", repr=False)
    certfile: str = field(default="", repr=False)
    keyfile: str = field(default="", repr=False)

    @property
    def encrypted(self) -> bool:
        return self.url.startswith("rediss:")

    @property
    def private(self) -> bool:
        return is_private(urlsplit(self.url).hostname)

    @property
    def verified(self) -> bool:
        return self.encrypted and self.cert_reqs != "none"

    @property
    def pinned(self) -> bool:
        return self.encrypted and self.trust.pinned

    @property
    def trust(self) -> Trust:
        files = self.ca_certs, self.certfile, self.keyfile
        return Trust(self.cert_reqs, self.check_hostname, *files)

    def __str__(self):
        ignored = " although REDIS_CA_CERTS is set" if self.ca_certs else ""
        if not self.encrypted:
            return f"plain text, not encrypted{ignored}"
        if not self.verified:
            return f"encrypted, certificate not verified{ignored}"
        if self.pinned:
            return "certificate verified, pinned by REDIS_CA_CERTS"
        return "certificate and host name verified"

    def announce(self):
        """One log line when web or worker starts."""
        weak = not self.verified and (self.encrypted or self.ca_certs)
        level = logging.WARNING if weak else logging.INFO
        logger.log(level, "TLS policy for Redis: %s", self)

    def register(self):
        """Let all connections of this process to this server follow the policy."""
        parts = urlsplit(self.url)
        connection.register(parts.hostname, parts.port, self.trust)

    def client(self) -> dict:
        """For redis-py: `redis.Redis.from_url(policy.url, **policy.client())`."""
        if self.encrypted:
            return OPTIONS | {"connection_class": connection.TLSConnection, "trust": self.trust}
        return OPTIONS | {"connection_class": connection.Connection}

    def asyncio_client(self) -> dict:
        """For redis-py's asyncio: `redis.asyncio.ConnectionPool(**policy.asyncio_client())`.

        It has the URL's parts in it: `from_url` of redis.asyncio takes no class of a connection.
        """
        parts = urlsplit(self.url)
        where = {
            "host": parts.hostname,
            "port": parts.port or connection.DEFAULT_PORT,
            "db": int(parts.path.strip("/") or 0),
            "username": unquote(parts.username or "") or None,
            "password": unquote(parts.password or "") or None,
        }
        options = OPTIONS | where | {"socket_timeout": ASYNCIO_TIMEOUT}
        if self.encrypted:
            return options | {"connection_class": aio.TLSConnection, "trust": self.trust}
        return options | {"connection_class": aio.Connection}

    def celery(self) -> dict | None:
        """For Celery's *_USE_SSL; None for redis://, where kombu takes any dict for "use TLS".

        TLSConnection does not read it. It is for others that read the setting, such as Flower:
        plain values, by which nobody connects unverified. Those others trust the system's CAs, also
        where the policy is pinned. So there it asks for the host name.
        """
        if not self.encrypted:
            return None
        options = {
            # With `optional` a client verifies if a certificate comes, and one always comes.
            "ssl_cert_reqs": "required" if self.verified else "none",
            "ssl_check_hostname": self.verified,
            "ssl_min_version": ssl.TLSVersion.TLSv1_2,
        }
        # What is given as text is no path, and a key does not belong into a setting.
        if self.certfile and not pem.is_text(self.certfile + self.keyfile):
            options |= {"ssl_certfile": self.certfile, "ssl_keyfile": self.keyfile}
        if self.verified and self.ca_certs:
            kind = "ssl_ca_data" if pem.is_text(self.ca_certs) else "ssl_ca_certs"
            options |= {
                kind: pem.text_of(self.ca_certs) if kind == "ssl_ca_data" else self.ca_certs,
                "ssl_include_verify_flags": [ssl.VERIFY_X509_PARTIAL_CHAIN],
                "ssl_exclude_verify_flags": [ssl.VERIFY_X509_STRICT],
            }
        return options
