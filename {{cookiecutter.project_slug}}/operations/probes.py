"""Small checks of the connection to Redis and of what depends on it, with causes in words."""

import socket
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from urllib.parse import urlsplit

import redis
from django.conf import settings
from django.db import DatabaseError, connection
from django.utils import timezone
from kombu.exceptions import OperationalError
from redis.backoff import NoBackoff
from redis.retry import Retry

from .models import Heartbeat
from .tasks import HOUSEKEEPING, ROUND_TRIP, ROUND_TRIP_TIMEOUT, answer

HEARTBEAT_TIMEOUT = timedelta(seconds=300)  # housekeeping runs every 120
READY_TIMEOUT = 1.5  # seconds for each step of /readyz, which answers within 5

# What an opaque error text means, and what to do: the first match counts.
CA = (
    "REDIS_CA_CERTS must hold the CA that signed this certificate. If it does, another server"
    " answers: compare with `manage.py doctor --certificate`."
)
PASSWORD = "Put the right user name and password into the URL, before the host: USER:PASSWORD@HOST."
SILENT = (
    "Look at the firewall, the allow list and the port; a port that is not TLS keeps silent when"
    " spoken to in TLS (then use redis://)."
)
CAUSES = {
    "REDIS_CA_CERTS": CA,
    "self-signed certificate in": CA,
    "self-signed certificate": "Put it into REDIS_CA_CERTS: `manage.py doctor --certificate`. If"
    " one is there, the server's was renewed or another server answers: compare the two.",
    "local issuer": CA,
    "certificate is not valid for": "Use a host name in the URL that the certificate holds.",
    "certificate has expired": "Renew the server's certificate.",
    "not yet valid": "Compare the clocks of this machine and the server.",
    "CERTIFICATE_REQUIRED": "Set REDIS_CLIENT_CERT and REDIS_CLIENT_KEY.",
    "UNKNOWN_CA": "The server does not know the CA of REDIS_CLIENT_CERT.",
    "UNEXPECTED_EOF": "The port is not TLS (use redis://), wants a client certificate, or the"
    " server has no connections left.",
    "WRONG_VERSION_NUMBER": "The port is not TLS: use redis://.",
    "Connection reset": "The port may be TLS only: use rediss://.",
    "closed by server": "The port may be TLS only (use rediss://), or the server restarts.",
    "Authentication required": PASSWORD,
    "username-password": PASSWORD,
    "DB index": "End the URL in /0, the database that every server has.",
    "SELECT is not allowed": "End the URL in /0: a cluster has no other database.",
    "max number of clients": "Close some clients, or take a larger plan.",
    "onnection refused": "Nothing listens there: start Redis, or correct host and port.",
    "timed out": SILENT,
    "Timeout": SILENT,
}


class Trouble(Exception):
    """What a probe saw, what to do, and whether the next probes can still run (state warn)."""

    def __init__(self, seen: object, fix: str = "", state: str = "fail"):
        self.seen, self.state = str(seen), state
        self.fix = fix or next((fix for text, fix in CAUSES.items() if text in self.seen), "")


@dataclass
class Result:
    name: str
    state: str  # ok, warn, fail or not reached
    seen: str = ""
    fix: str = ""


def run(probes: dict[str, Callable[[], str]]) -> Iterator[Result]:
    """Each probe's result as it comes; after a failure the rest is not reached."""
    failed = False
    for name, probe in probes.items():
        if failed:
            yield Result(name, "not reached")
            continue
        try:
            yield Result(name, "ok", probe())
        except (Trouble, OSError, redis.RedisError, OperationalError, DatabaseError) as error:
            trouble = error if isinstance(error, Trouble) else Trouble(error)
            if isinstance(error, DatabaseError):
                trouble.fix = "Look at DATABASE_URL and at the database server."
            failed = trouble.state == "fail"
            yield Result(name, trouble.state, trouble.seen, trouble.fix)


class Path:
    """The way to Redis, one step at a time, with the options that Celery uses."""

    def __init__(self):
        self.policy = settings.REDIS
        parts = urlsplit(self.policy.url)
        self.host, self.port = parts.hostname, parts.port or 6379
        options = self.policy.client() | {"retry": Retry(NoBackoff(), 0)}
        self.client = redis.Redis.from_url(self.policy.url, **options)

    def probes(self) -> dict[str, Callable[[], str]]:
        steps = (self.resolve, self.connect, self.handshake, self.auth, self.ping)
        return {step.__name__: step for step in steps} | {"round trip": round_trip}

    def resolve(self) -> str:
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise Trouble(f"{self.host}: {error.strerror}", "Correct the URL's host.") from error
        return f"{self.host} is {', '.join(dict.fromkeys(row[4][0] for row in found))}"

    def connect(self) -> str:
        try:
            with socket.create_connection((self.host, self.port), timeout=5) as sock:
                return "{} port {} answers".format(*sock.getpeername()[:2])
        except OSError as error:
            raise Trouble(f"{self.host} port {self.port}: {error.strerror or error}") from error

    def handshake(self) -> str:
        if not self.policy.encrypted:
            return str(self.policy)
        seen = []

        def look(connection):
            self.policy.check_pin(connection)
            sock = connection._sock
            seen.extend([sock.version(), sock.cipher()[0], sock.getpeercert()])

        # In place of the connect function: nothing is sent, so no password either.
        connection = self.client.connection_pool.make_connection()
        connection.redis_connect_func = look
        connection.connect()
        connection.disconnect()
        version, cipher, certificate = seen
        words = f"{version}, {cipher}, {self.policy}"
        if not self.policy.verified:
            fix = "Set REDIS_CERT_REQS=required; for a self-signed certificate also REDIS_CA_CERTS:"
            raise Trouble(words, f"{fix} `manage.py doctor --certificate` prints it.", "warn")
        return f"{words}, {describe(certificate)}"

    def auth(self) -> str:
        pool = self.client.connection_pool
        pool.release(pool.get_connection())
        user = urlsplit(self.policy.url).username
        return f"accepted as {user or 'default'}"

    def ping(self) -> str:
        started = time.monotonic()
        self.client.ping()
        return f"PONG after {1000 * (time.monotonic() - started):.0f} ms"


def describe(certificate: dict) -> str:
    """Whose certificate it is, who issued it and until when, from SSLSocket.getpeercert()."""
    names = []
    for field in ("subject", "issuer"):
        parts = dict(part[0] for part in certificate[field])
        names.append(f"{field} {parts.get('commonName') or parts.get('organizationName') or '-'}")
    return ", ".join([*names, f"expires {certificate['notAfter']}"])


def round_trip() -> str:
    """A task goes through broker and worker; its answer comes back through the database."""
    token = uuid.uuid4().hex
    started = time.monotonic()
    answer.delay(token)
    while time.monotonic() - started < ROUND_TRIP_TIMEOUT:
        row = Heartbeat.objects.filter(name=ROUND_TRIP + token).first()
        if row:
            row.delete()
            return f"{row.worker} answered after {time.monotonic() - started:.1f} s"
        time.sleep(0.1)
    fix = "See that a worker runs, with the same broker and database, and is not busy: its log."
    raise Trouble(f"no worker answered within {ROUND_TRIP_TIMEOUT} s", fix)


@cache
def ready_client() -> redis.Redis:
    """One kept connection for /readyz, which anybody may ask."""
    timeouts = {"socket_timeout": READY_TIMEOUT, "socket_connect_timeout": READY_TIMEOUT}
    return redis.Redis.from_url(
        settings.REDIS.url, **settings.REDIS.client() | timeouts, retry=Retry(NoBackoff(), 1)
    )


def broker() -> str:
    ready_client().ping()
    return "PONG"


def database() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return "answers"


def heartbeat() -> str:
    """Housekeeping ran lately: beat, broker, worker and database work together."""
    row = Heartbeat.objects.filter(name=HOUSEKEEPING).first()
    if row is None or row.at < timezone.now() - HEARTBEAT_TIMEOUT:
        fix = "See that celery_worker and celery_beat run, and read their logs."
        raise Trouble(f"last housekeeping: {row and row.at or 'never'}", fix)
    return f"last housekeeping: {row.at}"


READY = {"database": database, "broker": broker, "heartbeat": heartbeat}
