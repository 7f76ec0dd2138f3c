"""One Redis URL, one TLS policy, for every client that uses it."""

import _ssl
import logging
import socket
import ssl
from dataclasses import dataclass, field
from fnmatch import fnmatch
from urllib.parse import urlsplit

from redis.exceptions import ConnectionError as RedisConnectionError

from . import pem_files
from .environment import Environment, Refused
from .redis_url import is_private, read_url

TIMEOUT = 5  # seconds; without it a connection to a black hole blocks a web request for ever
HEALTH_CHECK = 25  # seconds; below the idle timeout of every provider (the shortest is 150)
# The kernel gives up on a silent peer after 20 s, before kombu can take a message from one
# connection and lose it on another (that needs less than polling interval + health check).
_TCP = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 20_000}
TCP = {getattr(socket, name): value for name, value in _TCP.items() if hasattr(socket, name)}
KEEPALIVE = {"socket_keepalive": True, "socket_keepalive_options": TCP}


@dataclass(frozen=True)
class RedisTLS:
    """What one Redis URL means for every client: `cert_reqs` is required, optional or none."""

    url: str = field(repr=False)
    cert_reqs: str = "required"
    check_hostname: bool = True
    ca_certs: str = ""
    certfile: str = ""
    keyfile: str = ""

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
        return self.verified and bool(self.ca_certs) and not self.check_hostname

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
        logging.getLogger(__name__).log(level, "TLS policy for Redis: %s", self)

    def celery(self) -> dict | None:
        """For Celery's *_USE_SSL; None for redis://, where kombu takes any dict for "use TLS"."""
        return KEEPALIVE | self._ssl() if self.encrypted else None

    def client(self) -> dict:
        """For redis-py: `redis.Redis.from_url(policy.url, **policy.client())`."""
        timeouts = {"socket_timeout": TIMEOUT, "socket_connect_timeout": TIMEOUT}
        options = KEEPALIVE | timeouts | {"health_check_interval": HEALTH_CHECK}
        return options | self._ssl() if self.encrypted else options

    def _ssl(self) -> dict:
        options = {
            "ssl_cert_reqs": self.cert_reqs,
            "ssl_check_hostname": self.verified and self.check_hostname,
            "ssl_min_version": ssl.TLSVersion.TLSv1_2,
        }
        if self.certfile:
            options |= {"ssl_certfile": self.certfile, "ssl_keyfile": self.keyfile}
        if self.verified and self.ca_certs:
            options |= {
                "ssl_ca_certs": self.ca_certs,
                # The certificate itself may be given, and a CA made with a plain `openssl req`.
                "ssl_include_verify_flags": [ssl.VERIFY_X509_PARTIAL_CHAIN],
                "ssl_exclude_verify_flags": [ssl.VERIFY_X509_STRICT],
            }
        if self.pinned:
            options["redis_connect_func"] = self._connect
        return options

    def check_pin(self, connection):
        """Raise RedisConnectionError unless REDIS_CA_CERTS holds the leaf or the root CA.

        redis-py adds it to the system's CAs: anybody's public certificate would do otherwise.
        """
        if not self.pinned:
            return
        given = pem_files.certificates_of(self.ca_certs)
        if given.isdisjoint(_leaf_and_root(connection._sock)):
            raise RedisConnectionError("the server's certificate was not issued by REDIS_CA_CERTS")

    def _connect(self, connection):
        # redis-py calls this after the handshake, before it sends the password.
        self.check_pin(connection)
        connection.on_connect()


def from_environment(env: Environment, name: str, *, production: bool) -> RedisTLS:
    """The policy of the URL in the variable `name`; Refused if it could not work or is too weak."""
    cert_reqs = env.text("REDIS_CERT_REQS").lower()
    if cert_reqs not in ("required", "optional", "none"):
        raise Refused("REDIS_CERT_REQS is not one of: required, optional, none.")
    text = env.text(name, "" if production else "redis://localhost:6379/0")
    if not text:
        raise Refused(f"{name} is not set: give the URL of your Redis.")
    url, host = read_url(name, text, cert_reqs, env.integer("REDIS_DATABASES", minimum=1))
    check_hostname = env.boolean("REDIS_CHECK_HOSTNAME")
    policy = RedisTLS(url, cert_reqs, check_hostname, *pem_files.from_environment(env))
    if production and not policy.encrypted and not policy.private:
        patterns = map(str.lower, env.list("REDIS_ALLOW_PLAINTEXT"))
        if not any(pattern == "true" or fnmatch(host, pattern) for pattern in patterns):
            raise Refused(
                f"{name} is plain redis:// to the public host {host}: anyone on the path reads the"
                " password. Use rediss://, or name the host in REDIS_ALLOW_PLAINTEXT."
            )
    if policy.verified and not policy.check_hostname and not policy.ca_certs:
        raise Refused(
            f"REDIS_CERT_REQS={cert_reqs} without the host name check needs REDIS_CA_CERTS, or any"
            " public certificate would be accepted. `REDIS_CERT_REQS=none python manage.py doctor"
            " --certificate` prints the server's."
        )
    if policy.pinned and pem_files.hold_a_public_ca(policy.ca_certs):
        raise Refused(
            "REDIS_CA_CERTS holds a public CA, which signs for anybody: where the host name is not"
            " checked, give the server's own certificate or a CA of your own."
        )
    return policy


def _leaf_and_root(sock: ssl.SSLSocket) -> set[bytes]:
    """Of the verified chain, as DER. What stands between may be a CA that signs for anybody."""
    # SSLSocket has it from Python 3.13 on, and without the names of issuer and subject.
    leaf, *others = sock._sslobj.get_verified_chain()
    infos = [(other, other.get_info()) for other in others]
    roots = [other for other, info in infos if info["issuer"] == info["subject"]]
    return {certificate.public_bytes(_ssl.ENCODING_DER) for certificate in (leaf, *roots)}
