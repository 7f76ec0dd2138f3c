"""Small checks of the connection to Redis and of what depends on it, with causes in words."""

import os
import socket
import ssl
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache, cached_property
from math import inf
from urllib.parse import urlsplit

import redis
from celery import current_app
from django.conf import settings
from django.db import DatabaseError, connection
from django.db.models.functions import Now
from kombu.exceptions import OperationalError
from redis.backoff import NoBackoff
from redis.retry import Retry

from authentication import summary
from redis_connection import context, x509

from . import causes
from .models import DeafWorker, Heartbeat, PutAsideMessage
from .tasks import HOUSEKEEPING, ROUND_TRIP, ROUND_TRIP_TIMEOUT, answer

TIMEOUT = 5  # seconds for each step
LISTEN = 3  # seconds for what a server may have to say unasked
READY_TIMEOUT = 1.5  # seconds for each step of /readyz, which answers within 5
HEARTBEAT_TIMEOUT = timedelta(seconds=300)  # housekeeping runs every 120
EXPIRES_SOON = 14  # days
NEARLY_FULL = 0.9
CLOCKS_DIFFER = 5  # seconds


class Trouble(Exception):
    """What a probe saw, what to do, and whether the next probes can still run (state warn)."""

    def __init__(self, seen: object, fix: str = "", state: str = "fail"):
        self.seen, self.state = " ".join(str(seen).split()), state  # in one line
        # redis-py keeps the first word of an error in the name of its class only.
        self.fix = fix or causes.fix_of(f"{type(seen).__name__} {seen}") or causes.UNKNOWN


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
            continue
        except (Trouble, OSError, redis.RedisError, OperationalError) as error:
            trouble = error if isinstance(error, Trouble) else Trouble(error)
        except DatabaseError as error:
            fix = "Redis is not at fault: look at DATABASE_URL and its server, and migrate."
            trouble = Trouble(f"SQL database: {error}", fix)
        except Exception as error:  # a doctor that crashes explains nothing
            trouble = Trouble(f"{type(error).__name__}: {error}", causes.UNKNOWN)
        failed = trouble.state == "fail"
        yield Result(name, trouble.state, trouble.seen, trouble.fix)


class Way:
    """The way to Redis and through a worker, one step at a time, with the options of Celery."""

    def __init__(self, policy=None, fail_within: float = -inf):
        self.policy = policy or settings.REDIS
        self.fail_within = fail_within  # days that the server's certificate must be valid
        self.url = urlsplit(self.policy.url)
        self.host, self.port = self.url.hostname, self.url.port or 6379
        # Database 0, which every server has: that of the URL is a step of its own.
        self.client = self.client_of(self.url._replace(path="/0").geturl())

    def client_of(self, url: str) -> redis.Redis:
        return redis.Redis.from_url(url, **self.policy.client(), retry=Retry(NoBackoff(), 0))

    def probes(self) -> dict[str, Callable[[], str]]:
        way = (self.resolve, self.connect, self.handshake, self.auth, self.ping)
        server = (self.eviction, self.memory, self.connections, self.database, self.write)
        tasks = (self.results, queues, round_trip, consumers, workers, emails, put_aside, beat)
        return {step.__name__.replace("_", " "): step for step in (*way, *server, *tasks)}

    def resolve(self) -> str:
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except OSError as error:
            fix = causes.NAME_SERVER if error.errno == socket.EAI_AGAIN else causes.HOST
            raise Trouble(f"{self.host}: {error.strerror}", fix) from error
        return f"{self.host} is {', '.join(dict.fromkeys(row[4][0] for row in found))}"

    def connect(self) -> str:
        try:
            with self.open_socket() as sock:
                return "{} port {} answers".format(*sock.getpeername()[:2])
        except OSError as error:
            raise Trouble(f"{self.host} port {self.port}: {error.strerror or error}") from error

    def handshake(self) -> str:
        if not self.policy.encrypted:
            if os.environ.get("REDIS_ALLOW_PLAINTEXT", "").strip():
                seen = f"{self.policy}, as REDIS_ALLOW_PLAINTEXT allows"
                raise Trouble(seen, causes.PLAINTEXT, "warn")
            allowed = "" if self.policy.private else ", as DEBUG or settings.py allows"
            return f"{self.policy}{allowed}"
        try:
            version, cipher, _, fields = self.shake_hands()
        except (OSError, redis.RedisError) as error:
            raise Trouble(error, self.look_closer(error)) from error
        seen = f"{version}, {cipher}, {self.policy}, {describe(fields)}"
        days = days_left(fields)
        renew = f"Renew the server's certificate: {days:.1f} days are left."
        if not fields:
            renew = "Look at the server's certificate: when it expires cannot be read."
        if days < self.fail_within:
            raise Trouble(seen, renew)
        if not self.policy.verified:
            raise Trouble(seen, causes.UNVERIFIED, "warn")
        if days < EXPIRES_SOON:
            raise Trouble(seen, renew, "warn")
        return seen

    def auth(self) -> str:
        self.log_in(self.client)
        return f"accepted as {self.url.username or 'default'}"

    def ping(self) -> str:
        started = time.monotonic()
        self.client.ping()
        return f"PONG after {1000 * (time.monotonic() - started):.0f} ms"

    def eviction(self) -> str:
        policy = self.info.get("maxmemory_policy")
        if policy is None:
            raise Trouble("unknown", "See in your provider's console: noeviction is right.", "warn")
        if policy.startswith("allkeys"):
            fix = "Set maxmemory-policy to noeviction: this one drops tasks when memory is full."
            raise Trouble(policy, fix, "warn")
        return policy + (": queues never expire, so they stay" if "volatile" in policy else "")

    def memory(self) -> str:
        if "used_memory" not in self.info:
            return "unknown"
        used, limit = (self.info.get(name, 0) / 2**20 for name in ("used_memory", "maxmemory"))
        seen = f"{used:.1f} MiB used, {f'of {limit:.1f}' if limit else 'no limit set'}"
        if limit and used > limit * NEARLY_FULL:
            raise Trouble(seen, "No task is taken when it is full: take a larger plan.", "warn")
        return seen

    def connections(self) -> str:
        used = self.info.get("connected_clients")
        limit = self.info.get("maxclients") or settings.REDIS_MAX_CONNECTIONS
        if used is None:
            return "unknown"
        seen = f"{used} of {limit or 'unknown'} used"
        if limit and used > limit * NEARLY_FULL:
            raise Trouble(seen, causes.fix_of("max number of clients"), "warn")
        return seen

    def database(self) -> str:
        self.client.close()  # it may have been the last one that the server had left
        with self.client_of(self.policy.url) as client:
            self.log_in(client)
        return f"number {self.url.path.strip('/') or 0} can be selected"

    def write(self) -> str:
        with self.client_of(self.policy.url) as client:
            try_to_write(client)
        return "accepted"

    def results(self) -> str:
        if settings.RESULTS is None:
            return "off"
        way = Way(settings.RESULTS)
        try:
            return f"{way.host} port {way.port}, {way.database()}"
        except Trouble as trouble:
            raise Trouble(trouble.seen, f"CELERY_RESULT_BACKEND: {trouble.fix}") from trouble

    @cached_property
    def info(self) -> dict:
        """INFO, which says what CONFIG would and is refused less often; empty if it is refused."""
        try:
            return self.client.info()
        except redis.ResponseError:
            return {}

    def log_in(self, client: redis.Redis):
        pool = client.connection_pool
        try:
            pool.release(pool.get_connection())
        except (OSError, redis.RedisError) as error:
            raise Trouble(error, self.look_closer(error)) from error

    def shake_hands(self, listen: float = 0) -> tuple[str, str, bytes, dict]:
        """TLS version, cipher, certificate as DER and as fields; no password is sent.

        The fields are as in `SSLSocket.getpeercert()`, and empty if they cannot be read.
        """
        with self.open_socket() as sock, context.wrap(self.policy.trust, sock, self.host) as tls:
            certificate, fields = tls.getpeercert(True), tls.getpeercert()
            seen = tls.version(), tls.cipher()[0], certificate
            if listen:  # so many seconds to what the server says of it
                tls.settimeout(listen)
                with suppress(TimeoutError):
                    tls.recv(1)
            end_in_good_order(tls)
        # Python reads no fields of a certificate that was not verified.
        return *seen, fields or x509.fields_of(certificate)

    def open_socket(self) -> socket.socket:
        return socket.create_connection((self.host, self.port), TIMEOUT)

    def look_closer(self, error: Exception) -> str:
        """Why a connection ended without a word. Nothing secret is sent to find out."""
        if not causes.OPAQUE.search(str(error)):
            return ""
        if "WRONG_VERSION" in str(error):
            return causes.NOT_TLS
        try:
            if not self.policy.encrypted:
                url = self.url._replace(scheme="rediss").geturl()
                Way(replace(self.policy, url=url, cert_reqs="none")).shake_hands()
                return causes.TLS
            if "has expired" in str(error):
                fields = Way(replace(self.policy, cert_reqs="none")).shake_hands()[3]
                return causes.CA_EXPIRED if days_left(fields) > 0 else causes.fix_of(str(error))
            if known := self.greeting():
                return known
            self.shake_hands(listen=LISTEN)
        except (OSError, redis.RedisError) as closer:
            return causes.fix_of(f"{closer} {error}") or causes.ENDED
        return causes.fix_of(str(error)) or causes.ENDED

    def greeting(self) -> str:
        """What it means that the port ends a connection at once, or answers a plain PING."""
        with socket.create_connection((self.host, self.port), LISTEN) as sock, suppress(OSError):
            with suppress(TimeoutError):
                if not sock.recv(1):
                    return causes.FULL
            sock.sendall(b"PING\r\n")
            if sock.recv(1) in (b"+", b"-"):
                return causes.NOT_TLS
        return ""


def end_in_good_order(sock: socket.socket):
    """Say that nothing follows, and read what is left: a server counts a reset as an error."""
    with suppress(OSError):
        sock.settimeout(1)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(1024):
            pass


def days_left(fields: dict) -> float:
    if not fields:
        return -inf
    return (ssl.cert_time_to_seconds(fields["notAfter"]) - time.time()) / 86400


def describe(fields: dict) -> str:
    """Whose certificate it is, who issued it and until when, from its fields as in Python's ssl."""
    if not fields:
        return "a certificate whose fields cannot be read"
    both = [dict(part[0] for part in fields[field]) for field in ("subject", "issuer")]
    names = [parts.get("commonName") or parts.get("organizationName") or "-" for parts in both]
    return printable("subject {}, issuer {}, expires {}".format(*names, fields["notAfter"]))


def printable(text: str) -> str:
    """Whoever made the certificate could else write over what a terminal shows."""
    return "".join(character for character in text if character.isprintable())


def queue_names() -> list[str]:
    """The queues that tasks go to, by their options, routes and schedule; the default one first."""
    app = current_app
    app.loader.import_default_modules()
    sent = [(name, {"queue": getattr(task, "queue", None)}) for name, task in app.tasks.items()]
    for entry in app.conf.beat_schedule.values():
        sent.append((entry["task"], {"queue": (entry.get("options") or {}).get("queue")}))
    routes = [app.amqp.router.route(options, name) for name, options in sent]
    names = sorted(route["queue"].name for route in routes if "queue" in route)
    return list(dict.fromkeys([app.conf.task_default_queue, *names]))


def queues() -> str:
    """What waits. All keys of a queue are asked at once, as a worker does."""
    with current_app.connection_for_read() as broker:
        channel = broker.channel()
        waiting = {name: channel.queue_declare(name).message_count for name in queue_names()}
    return ", ".join(f"{count} waiting in {name}" for name, count in waiting.items())


def round_trip() -> str:
    """A task goes through broker and worker; its answer comes back through the database."""
    sent, started = time.time(), time.monotonic()
    row = answered(queue_names()[:1])
    seconds = time.monotonic() - started
    seen = f"{row.worker} answered after {seconds:.1f} s"
    # It noted its time while we waited: what lies outside of that is a difference of the clocks.
    ahead = max(row.clock - sent - seconds, 0) or min(row.clock - sent, 0)
    if abs(ahead) > CLOCKS_DIFFER:
        which = "ahead of" if ahead > 0 else "behind"
        seen += f"; its clock is {abs(ahead):.0f} s {which} this machine's"
        raise Trouble(seen, causes.CLOCK, "warn")
    return seen


def consumers() -> str:
    """Every other queue has a worker, too."""
    names = queue_names()
    answered(names[1:])
    return f"a worker for {', '.join(names)}"


def answered(names: list[str]) -> Heartbeat | None:
    """Send a task through each queue; the row of the answer that came last, or Trouble."""
    if current_app.conf.task_always_eager:
        fix = "Tasks run in the process that sends them: unset it."
        raise Trouble("CELERY_TASK_ALWAYS_EAGER is set", fix)
    tokens = {uuid.uuid4().hex: name for name in names}
    asked = Heartbeat.objects.filter(name__in=[ROUND_TRIP + token for token in tokens])
    last = None
    try:
        for token, name in tokens.items():
            Heartbeat.objects.create(name=ROUND_TRIP + token)
            answer.apply_async([token], queue=name)
        deadline = time.monotonic() + ROUND_TRIP_TIMEOUT
        while tokens and time.monotonic() < deadline:
            time.sleep(0.05)
            for last in asked.exclude(worker=""):
                tokens.pop(last.name.removeprefix(ROUND_TRIP), None)
    finally:
        # An answer that comes later finds no row, and leaves none.
        asked.delete()
    if tokens:
        missing = ", ".join(tokens.values())
        seen = f"no answer from {missing} within {ROUND_TRIP_TIMEOUT} s"
        raise Trouble(seen, who_is_there(list(tokens.values())))
    return last


def who_is_there(names: list[str]) -> str:
    """Whether workers are absent, or busy, or busy with other queues, or take no tasks any more."""
    if deaf := DeafWorker.objects.filter(at__gt=Now() - timedelta(hours=1)).last():
        return f"{deaf.worker} took no tasks although some waited: restart the worker."
    if not settings.CELERY_WORKER_ENABLE_REMOTE_CONTROL:
        return (
            "Read the worker's log: it is absent, busy, or has another URL or queue. If it is there"
            " and has nothing to do, restart the worker."
        )
    inspect = current_app.control.inspect(timeout=1)
    active = inspect.active()
    if not active:
        return "No worker is there: see that one runs, with this URL, and read its log."
    reserved, queues = inspect.reserved() or {}, inspect.active_queues() or {}
    idle = [
        worker
        for worker, consumed in queues.items()
        if {queue["name"] for queue in consumed} & set(names)
        and not active.get(worker)
        and not reserved.get(worker)
    ]
    if idle:
        who = ", ".join(sorted(idle))
        return f"{who} is there, has nothing to do, and takes no task: restart the worker."
    who = ", ".join(sorted(active))
    return f"{who} is there: it is busy, or consumes other queues (worker option -Q)."


def workers() -> str:
    """None had to be started anew since it took no tasks (watchdog.py)."""
    rows = DeafWorker.objects.filter(at__gt=Now() - timedelta(days=1)).order_by("at")
    if last := rows.last():
        seen = f"{rows.count()} times since yesterday a worker took no tasks and ended itself"
        seen += f", the last time {last.worker} at {last.at:%Y-%m-%d %H:%M:%S} UTC: {last.seen}"
        raise Trouble(seen, causes.DEAF, "warn")
    return "none had to end itself since yesterday"


def emails() -> str:
    """No promised e-mail is overdue, and no mail server has refused one for good."""
    found = summary.summarize_emails()
    seen = f"{found.waiting} waiting, {found.refused} not sent since yesterday"
    if found.reason:
        seen += f"; the mail server said: {found.reason}"
    if found.refused:
        raise Trouble(seen, causes.UNSENT, "warn")
    if found.failing:
        raise Trouble(seen, causes.FAILING, "warn")
    if found.overdue:
        seen += f"; {found.overdue} have been due for more than 5 minutes"
        raise Trouble(seen, causes.OVERDUE, "warn")
    return seen


def put_aside() -> str:
    """No message came that no task could be made of (put_aside.py)."""
    rows = PutAsideMessage.objects.filter(at__gt=Now() - timedelta(days=1)).order_by("at")
    if last := rows.last():
        seen = f"{rows.count()} since yesterday, the last one in {last.queue}: {last.reason}"
        raise Trouble(seen, causes.PUT_ASIDE, "warn")
    return "no message since yesterday"


def beat() -> str:
    return heartbeat("Workers answer, so see that beat runs, and read its log.")


@cache
def ready_client() -> redis.Redis:
    """One kept connection for /readyz, which anybody may ask."""
    timeouts = {"socket_timeout": READY_TIMEOUT, "socket_connect_timeout": READY_TIMEOUT}
    return redis.Redis.from_url(
        settings.REDIS.url, **settings.REDIS.client() | timeouts, retry=Retry(NoBackoff(), 1)
    )


def try_to_write(client: redis.Redis):
    """Raise what Redis answers to a write, for it may answer a PING and take no task.

    LPUSHX adds to a list only if there is one, so this leaves nothing behind.
    """
    client.lpushx(f"{settings.REDIS_PREFIX}readyz", "")


def broker() -> str:
    """It takes a write: one that is full, or became a replica, still answers a PING."""
    client = ready_client()
    try:
        try_to_write(client)
    except redis.RedisError:
        # The name of a server that refuses may lead to another by now.
        client.connection_pool.disconnect()
        raise
    return "takes writes"


def sql() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return "answers"


def heartbeat(fix: str = causes.NO_HEARTBEAT) -> str:
    """Housekeeping ran lately: beat, broker, worker and database work together."""
    rows = Heartbeat.objects.filter(name=HOUSEKEEPING)
    row = rows.first()
    seen = f"last housekeeping: {f'{row.at:%Y-%m-%d %H:%M:%S} UTC' if row else 'never'}"
    # By the database's clock, which also wrote it: that of this machine may be another.
    if not rows.filter(at__gt=Now() - HEARTBEAT_TIMEOUT).exists():
        raise Trouble(seen, fix)
    return seen


READY = {"database": sql, "broker": broker, "heartbeat": heartbeat}
