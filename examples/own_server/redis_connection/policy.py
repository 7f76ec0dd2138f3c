"""What one Redis URL means for every client that uses it."""

import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from . import aio, connection, credentials, pem
from .context import Trust
from .errors import InvalidSetting, InvalidSettings
from .timeouts import ASYNCIO_TIMEOUT, OPTIONS
from .url import RedisURL, check_database, check_options, is_private, read_url

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class Policy:
    """A Redis URL and its TLS policy.

    `cert_reqs` is required, optional or none. `ca_certs`, `certfile` and `keyfile` are the values
    of REDIS_CA_CERTS, REDIS_CLIENT_CERT and REDIS_CLIENT_KEY: each is the path of a PEM file, or
    PEM text, or empty.
    """

    url: str = field(repr=False)  # with the password
    cert_reqs: str = "required"
    check_hostname: bool = True
    ca_certs: str = field(default="", repr=False)
    certfile: str = field(default="", repr=False)
    keyfile: str = field(default="", repr=False)

    @property
    def encrypted(self) -> bool:
        return self.url.startswith("rediss:")

    @property
    def verified(self) -> bool:
        return self.encrypted and self.cert_reqs != "none"

    @property
    def pinned(self) -> bool:
        """Whether nothing but `ca_certs` is trusted, whatever the host name."""
        return self.encrypted and self.trust.pinned

    @property
    def private(self) -> bool:
        """Whether the name or address of the host is known to be a private one."""
        return is_private(self.host)

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or connection.DEFAULT_PORT

    @property
    def trust(self) -> Trust:
        return Trust(
            cert_reqs=self.cert_reqs,
            check_hostname=self.check_hostname,
            ca_certs=self.ca_certs,
            certfile=self.certfile,
            keyfile=self.keyfile,
        )

    def __str__(self) -> str:
        """In words for the log, the doctor and the checks."""
        ignored = " although REDIS_CA_CERTS is set" if self.ca_certs else ""
        if not self.encrypted:
            return f"plain text, not encrypted{ignored}"
        if not self.verified:
            return f"encrypted, certificate not verified{ignored}"
        if self.pinned:
            return "certificate verified, pinned by REDIS_CA_CERTS"
        return "certificate and host name verified"

    def log(self) -> None:
        """Write the policy as one line of the log; a weak one as a warning."""
        weaker_than_asked = not self.verified and bool(self.encrypted or self.ca_certs)
        level = logging.WARNING if weaker_than_asked else logging.INFO
        logger.log(level, "TLS policy for Redis: %s", self)

    def register(self) -> None:
        """Let every connection of this process to the URL's host and port follow the policy."""
        connection.register(self.host, self.port, self.trust)

    def client(self) -> dict[str, Any]:
        """Options for redis-py: `redis.Redis.from_url(policy.url, **policy.client())`."""
        if self.encrypted:
            return OPTIONS | {"connection_class": connection.TLSConnection, "trust": self.trust}
        return OPTIONS | {"connection_class": connection.Connection}

    def asyncio_client(self) -> dict[str, Any]:
        """Options for `redis.asyncio.ConnectionPool(**policy.asyncio_client())`.

        The parts of the URL are among them, because `from_url` of redis.asyncio takes no class of
        connections.
        """
        parts = urlsplit(self.url)
        options = OPTIONS | {
            "socket_timeout": ASYNCIO_TIMEOUT,
            "host": self.host,
            "port": self.port,
            "db": int(parts.path.strip("/") or 0),
            "username": unquote(parts.username or "") or None,
            "password": unquote(parts.password or "") or None,
        }
        if self.encrypted:
            return options | {"connection_class": aio.TLSConnection, "trust": self.trust}
        return options | {"connection_class": aio.Connection}

    def celery(self) -> dict[str, Any] | None:
        """The value of Celery's *_USE_SSL settings.

        It is None for redis://, since kombu would take any dict for "use TLS" (D-14).

        The connections of this package do not read it. It is for others that read the setting,
        such as Flower: with these options nobody connects without verification. Such programs
        trust the CAs of the system even where the policy is pinned, so it always asks for the host
        name (D-16).
        """
        if not self.encrypted:
            return None
        options: dict[str, Any] = {
            # `optional` verifies a certificate if one comes. A server always sends one.
            "ssl_cert_reqs": "required" if self.verified else "none",
            "ssl_check_hostname": self.verified,
            "ssl_min_version": ssl.TLSVersion.TLSv1_2,
        }
        # Others take paths only. The text of a key must not be in a setting, which may be shown.
        if self.certfile and not pem.is_text(self.certfile) and not pem.is_text(self.keyfile):
            options["ssl_certfile"] = self.certfile
            options["ssl_keyfile"] = self.keyfile
        if self.verified and self.ca_certs:
            if pem.is_text(self.ca_certs):
                options["ssl_ca_data"] = pem.text_of(self.ca_certs)
            else:
                options["ssl_ca_certs"] = self.ca_certs
            # The same as in context.trusting_the_system().
            options["ssl_include_verify_flags"] = [ssl.VERIFY_X509_PARTIAL_CHAIN]
            options["ssl_exclude_verify_flags"] = [ssl.VERIFY_X509_STRICT]
        return options


def read_policy(
    variable: str,
    url: str,
    *,
    cert_reqs: str,
    check_hostname: bool,
    databases: int,
    ca_certs: str = "",
    client_cert: str = "",
    client_key: str = "",
    plaintext_hosts: list[str] | None = None,
) -> Policy:
    """The policy of the URL in the variable `variable`, judged before anything connects.

    The other values are those of REDIS_CERT_REQS and its neighbours. `plaintext_hosts` has patterns
    of the hosts that may be reached without TLS; None allows all of them, for development.

    Raises InvalidSettings, with one sentence for each variable that cannot work or is too weak.
    """
    problems: list[str] = []

    def note(read: Callable[..., T], *values: Any) -> T | None:
        """What `read` makes of the values; None if that is a problem, which is noted."""
        try:
            return read(*values)
        except InvalidSetting as error:
            problems.append(str(error))
            return None

    redis_url = note(read_url, variable, url)
    if redis_url:
        note(check_database, variable, redis_url, databases)
        note(check_options, variable, redis_url, cert_reqs)
        if plaintext_hosts is not None:
            note(check_encryption, variable, redis_url, plaintext_hosts)
    if client_cert or client_key:
        note(credentials.read_client_certificate, client_cert, client_key)
    authority = None
    if ca_certs:
        authority = note(credentials.read_certificates, "REDIS_CA_CERTS", ca_certs)
    verified = redis_url is not None and redis_url.encrypted and cert_reqs != "none"
    if verified and not check_hostname:
        if not ca_certs:
            note(refuse_to_trust_anybody, cert_reqs)
        elif authority:
            note(credentials.check_pins, authority)
    if problems or redis_url is None:
        raise InvalidSettings(problems)
    return Policy(redis_url.text, cert_reqs, check_hostname, ca_certs, client_cert, client_key)


def check_encryption(variable: str, url: RedisURL, plaintext_hosts: list[str]) -> None:
    """Raise InvalidSetting if the password would cross a public network in plain text."""
    if url.encrypted or is_private(url.host):
        return
    for pattern in plaintext_hosts:
        if pattern.lower() == "true" or fnmatch(url.host, pattern.lower()):
            return
    raise InvalidSetting(
        f"{variable} is plain redis:// to {url.host}, which is not known to be private: anyone on"
        " the path reads the password. Use rediss://, or name the host in REDIS_ALLOW_PLAINTEXT."
    )


def refuse_to_trust_anybody(cert_reqs: str) -> None:
    """Without a host name and without a CA of its own, a connection would take any certificate."""
    raise InvalidSetting(
        f"REDIS_CERT_REQS={cert_reqs} without the host name check needs REDIS_CA_CERTS, or any"
        " public certificate would be accepted. `REDIS_CERT_REQS=none python manage.py doctor"
        " --certificate` prints the server's."
    )
