"""What is wrong between this machine and a Redis server: step by step, with a hint for each cause.

The steps take values and return words. They know neither each other nor who runs them.
"""

import re
import socket
import time
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from math import inf
from typing import Any, Literal
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from . import hints
from .handshake import ServerCertificate, open_socket, shake_hands
from .policy import Policy

LISTEN = 3  # seconds for what a server may have to say unasked
EXPIRES_SOON = 14  # days
NEARLY_FULL = 0.9  # of the memory, or of the connections
MEBIBYTE = 2**20

# Errors behind which there may be another cause. Most are of a connection that ended without a
# word.
OPAQUE = re.compile(
    r"EOF|reset by|pipe|closed by|time(d )?out|wrong_v|record|has expired", re.IGNORECASE
)


class ProbeFailed(Exception):
    """What a probe found (`detail`), and what to do about it (`hint`).

    The state "fail" means that the probes behind this one cannot work. After "warn" they can.
    """

    def __init__(self, detail: str, hint: str, state: Literal["fail", "warn"] = "fail") -> None:
        self.detail = " ".join(detail.split())  # in one line
        self.hint = hint
        self.state = state
        super().__init__(self.detail)


class RedisDiagnosis:
    """The way to a Redis server, one step at a time, with the options of the service's clients.

    Each step returns a detail in words. It raises ProbeFailed, or an OSError or RedisError that
    needs no closer look: `hints.hint_for_error` tells what to do about these.

    - `connection_limit`: how many connections the plan allows, for a server that does not say it;
      0 if that is not known.
    - `fail_within`: for how many days the server's certificate must still be valid.
    - `plaintext_allowed`: whether an operator has allowed plain text to a public host, which is
      then worth a warning.
    - `key`: the key that the step `write` writes to.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        connection_limit: int = 0,
        fail_within: float = -inf,
        plaintext_allowed: bool = False,
        key: str = "diagnosis",
    ) -> None:
        self.policy = policy
        self.connection_limit = connection_limit
        self.fail_within = fail_within
        self.plaintext_allowed = plaintext_allowed
        self.key = key
        self.url = urlsplit(policy.url)
        self.host, self.port = policy.host, policy.port
        # Database 0, which every server has. Whether the URL's own can be selected is a step of
        # its own.
        self.client = self.client_of(self.url._replace(path="/0").geturl())

    # The steps

    def resolve(self) -> str:
        """The host's name has an address."""
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except OSError as error:
            hint = hints.NAME_SERVER if error.errno == socket.EAI_AGAIN else hints.HOST
            raise ProbeFailed(f"{self.host}: {error.strerror}", hint) from error
        addresses = dict.fromkeys(str(address[0]) for *_, address in found)
        return f"{self.host} is {', '.join(addresses)}"

    def connect(self) -> str:
        """Something listens at the port."""
        try:
            with open_socket(self.host, self.port) as sock:
                address, port = sock.getpeername()[:2]
        except OSError as error:
            detail = f"{self.host} port {self.port}: {error.strerror or error}"
            raise ProbeFailed(detail, hints.hint_for(detail) or hints.UNKNOWN) from error
        return f"{address} port {port} answers"

    def handshake(self) -> str:
        """The connection is encrypted as the policy asks, and the certificate stays valid."""
        if not self.policy.encrypted:
            return self.judge_plain_text()
        try:
            found = shake_hands(self.policy)
        except OSError as error:
            raise ProbeFailed(str(error), self.diagnose(error)) from error
        detail = f"{found.version}, {found.cipher}, {self.policy}, {found.certificate}"
        days_left = found.certificate.days_left
        if days_left < self.fail_within:
            raise ProbeFailed(detail, renew(found.certificate))
        if not self.policy.verified:
            raise ProbeFailed(detail, hints.UNVERIFIED, "warn")
        if days_left < EXPIRES_SOON:
            raise ProbeFailed(detail, renew(found.certificate), "warn")
        return detail

    def auth(self) -> str:
        """Redis accepts the user and the password."""
        self.log_in(self.client)
        return f"accepted as {self.url.username or 'default'}"

    def ping(self) -> str:
        started = time.monotonic()
        self.client.ping()
        milliseconds = 1000 * (time.monotonic() - started)
        return f"PONG after {milliseconds:.0f} ms"

    def eviction(self) -> str:
        """Redis drops no task when its memory is full."""
        policy: str | None = self.info.get("maxmemory_policy")
        if policy is None:
            hint = "Look in your provider's console: the policy must be noeviction."
            raise ProbeFailed("unknown", hint, "warn")
        if policy.startswith("allkeys"):
            hint = "Set maxmemory-policy to noeviction: this one drops tasks when memory is full."
            raise ProbeFailed(policy, hint, "warn")
        if policy.startswith("volatile"):
            return f"{policy}: queues never expire, so they stay"
        return policy

    def memory(self) -> str:
        """Redis has memory left for more tasks."""
        if "used_memory" not in self.info:
            return "unknown"
        used = self.info["used_memory"] / MEBIBYTE
        limit = self.info.get("maxmemory", 0) / MEBIBYTE
        if not limit:
            return f"{used:.1f} MiB used, no limit set"
        detail = f"{used:.1f} MiB used, of {limit:.1f}"
        if used > limit * NEARLY_FULL:
            hint = "No task is taken once the memory is full: take a larger plan."
            raise ProbeFailed(detail, hint, "warn")
        return detail

    def connections(self) -> str:
        """Redis takes more connections."""
        used = self.info.get("connected_clients")
        if used is None:
            return "unknown"
        limit = self.info.get("maxclients") or self.connection_limit
        if not limit:
            return f"{used} of unknown used"
        detail = f"{used} of {limit} used"
        if used > limit * NEARLY_FULL:
            raise ProbeFailed(detail, hints.CONNECTIONS, "warn")
        return detail

    def database(self) -> str:
        """The database of the URL can be selected."""
        self.client.close()  # its connection may have been the last that the server had left
        with self.client_of(self.policy.url) as client:
            self.log_in(client)
        return f"number {self.url.path.strip('/') or 0} can be selected"

    def write(self) -> str:
        """Redis takes a write. A replica, or a server that is full, may take none."""
        with self.client_of(self.policy.url) as client:
            try_to_write(client, self.key)
        return "accepted"

    # A closer look

    def diagnose(self, error: Exception) -> str:
        """The hint for an error; if the error says little, after a closer look at the server.

        Nothing secret is sent to find out.
        """
        text = str(error)
        if not OPAQUE.search(text):
            return hints.hint_for_error(error)
        try:
            return self.look_closer(text)
        except OSError as closer:
            # A reason may stand in either text.
            return hints.hint_for(f"{closer} {text}") or hints.ENDED

    def look_closer(self, text: str) -> str:
        """The hint for the text of an opaque error.

        Raises OSError if another look at the server ends in an error, which then tells more.
        """
        if "WRONG_VERSION" in text:
            # This is how OpenSSL says that what came was not TLS.
            return hints.NOT_TLS
        if not self.policy.encrypted:
            # Plain text got no answer. If this handshake works, the port speaks TLS.
            url = self.url._replace(scheme="rediss").geturl()
            shake_hands(replace(self.policy, url=url, cert_reqs="none"))
            return hints.TLS
        if "has expired" in text:
            return self.find_what_expired()
        hint = self.look_without_tls()
        if hint:
            return hint
        # A TLS 1.3 server refuses a client only after the handshake. If it says why, this raises an
        # error with the reason in it.
        shake_hands(self.policy, listen=LISTEN)
        return hints.hint_for(text) or hints.ENDED

    def find_what_expired(self) -> str:
        """Whether it was the server's certificate, or a CA above it: OpenSSL does not tell."""
        unverified = replace(self.policy, cert_reqs="none")
        certificate = shake_hands(unverified).certificate
        if certificate.days_left > 0:
            return hints.CA_EXPIRED
        return hints.EXPIRED

    def look_without_tls(self) -> str:
        """The hint for a port that ends a connection at once, or that answers a plain PING.

        Empty if the port does neither.
        """
        with open_socket(self.host, self.port, LISTEN) as sock, suppress(OSError):
            # A server that waits for us to begin says nothing: the time-out is the usual case.
            with suppress(TimeoutError):
                if sock.recv(1) == b"":
                    # It has hung up. A server without a free connection does that.
                    return hints.FULL
            sock.sendall(b"PING\r\n")
            if sock.recv(1) in (b"+", b"-"):  # +PONG, or an error such as -NOAUTH
                return hints.NOT_TLS
        return ""

    # What the steps share

    def client_of(self, url: str) -> redis.Redis:
        """A client that tries once: a diagnosis wants to see the first error."""
        return redis.Redis.from_url(url, **self.policy.client(), retry=Retry(NoBackoff(), 0))

    def log_in(self, client: redis.Redis) -> None:
        """Connect, and send what redis-py sends first: user and password, and the database."""
        pool = client.connection_pool
        try:
            pool.release(pool.get_connection())
        except (OSError, RedisError) as error:
            raise ProbeFailed(str(error), self.diagnose(error)) from error

    @cached_property
    def info(self) -> dict[str, Any]:
        """What Redis answers to INFO; empty if it refuses the command.

        INFO holds what CONFIG would say, and fewer providers refuse it (D-38).
        """
        try:
            return self.client.info()
        except ResponseError:
            return {}

    def judge_plain_text(self) -> str:
        if self.plaintext_allowed:
            detail = f"{self.policy}, as REDIS_ALLOW_PLAINTEXT allows"
            raise ProbeFailed(detail, hints.PLAINTEXT, "warn")
        if self.policy.private:
            return str(self.policy)
        return f"{self.policy}, as DEBUG or settings.py allows"


def renew(certificate: ServerCertificate) -> str:
    """The hint for a certificate that expires soon, or whose end is not known."""
    if not certificate.fields:
        return "Look at the server's certificate: when it expires cannot be read."
    return f"Renew the server's certificate: {certificate.days_left:.1f} days are left."


def try_to_write(client: redis.Redis, key: str) -> None:
    """Raise what Redis answers to a write: it may answer a PING and still take no task.

    LPUSHX adds to a list only if there is one, so nothing is left behind.
    """
    client.lpushx(key, "")
