"""A stack: one service, and the servers it needs, on ports and in folders of its own."""

import contextlib
import http.client
import os
import shutil
import sqlite3
import tempfile
import time
import urllib.parse
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psutil

from harness.deployments import PASSWORD
from harness.processes import Failed, free_port
from harness.service import OUTSIDE_NAME

from . import ending
from .network import Namespace
from .servers import Forwarder, MailServer, Postgres, Redis

STOP_GRACE = 30  # seconds from SIGTERM until a platform kills what is left
START = 90  # seconds until a service must be ready on a busy machine
PAGE = "/accounts/register/"  # a page that needs neither Redis nor the worker
TOKEN = "c" * 32  # Any token will do, because Django only compares the form's with the cookie's.


@dataclass(frozen=True)
class Shape:
    """What a stack is made of: faults of one shape can share a stack."""

    processes: int = 2  # of the worker
    failover: bool = False  # two Redis servers behind a forwarder
    namespace: bool = False  # Redis in a network namespace
    postgres: bool = False  # instead of SQLite


class Web:
    """The website of a stack, as seen through the platform's proxy."""

    def __init__(self, port):
        self._port = port

    def get(self, path, patience):
        """The status of a page; OSError after so many seconds without an answer."""
        return self._ask("GET", path, None, patience)

    def post(self, path, patience, fields):
        """The status of a form that was sent with these {name: value}."""
        body = urllib.parse.urlencode({"csrfmiddlewaretoken": TOKEN} | fields)
        return self._ask("POST", path, body, patience)

    def _ask(self, method, path, body, patience):
        headers = {"Host": OUTSIDE_NAME, "X-Forwarded-Proto": "https"}
        if body is not None:
            headers |= {
                "Content-Type": "application/x-www-form-urlencoded",
                "Cookie": f"csrftoken={TOKEN}",
                "Referer": f"https://{OUTSIDE_NAME}{path}",
            }
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=patience)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status
        except http.client.HTTPException as error:
            raise ConnectionError(str(error)) from None
        finally:
            connection.close()


class Stack:
    """Servers and, once it is started, the service; `close()` ends everything.

    `redis` is the server that the service's URL leads to at first; `standby` the other one.
    """

    def __init__(self, kind, shape, authority):
        self.kind, self.shape = kind, shape
        self.folder = Path(tempfile.mkdtemp(prefix="faults-stack-"))
        self.service = self.program = self.standby = self.forwarder = None
        self.namespace = self.postgres = None
        self._closing = contextlib.ExitStack()
        self._starts = 0
        self.last_number = 0  # The number of a task or a mail. A stack never uses one twice.
        ending.close_at_the_end(self)
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            self._start_servers(authority)
            self._prepare()
            undo.pop_all()

    def _start_servers(self, authority):
        options = {}
        if self.shape.namespace:
            self.namespace = Namespace()
            self._closing.callback(self.namespace.close)
            self.namespace.start()
            options = {
                "hosts": ("localhost", "127.0.0.1", self.namespace.address),
                "extra": ["bind 0.0.0.0"],
                "binary": self.namespace.redis_binary(),
            }
        self.redis = Redis(authority, PASSWORD, **options)
        self._closing.callback(self.redis.close)
        self.redis.start()
        self.in_use = self.redis  # A failover makes it the standby.
        port = self.redis.port
        if self.shape.failover:
            self.standby = Redis(authority, PASSWORD)
            self._closing.callback(self.standby.close)
            self.standby.start()
            self.forwarder = Forwarder(port).start()
            self._closing.callback(self.forwarder.stop)
            port = self.forwarder.port
        self._host = self.namespace.address if self.namespace else "localhost"
        self._redis_port = port
        self.mail = MailServer().start()
        self._closing.callback(self.mail.stop)
        if self.shape.postgres:
            self.postgres = Postgres()
            self._closing.callback(self.postgres.close)
            self.postgres.start()

    def _prepare(self):
        self.project = self.kind.copy(self.folder)
        self.database = self.folder / "db.sqlite3"
        self.numbered = self.folder / "numbered.txt"
        self.numbered.touch()
        given = {
            "redis": self.url(),
            "database": self.postgres.url if self.postgres else f"sqlite:///{self.database}",
            "mail_port": self.mail.port,
            "processes": self.shape.processes,
            "numbered": str(self.numbered),
        }
        self.commands = self.kind.commands(self.project, given)
        if self.postgres:
            self.kind.migrate(self.project, self.commands)
        else:
            with (
                closing(sqlite3.connect(self.kind.empty_database)) as source,
                closing(sqlite3.connect(self.database)) as copy,
            ):
                source.backup(copy)
        # manage.py has the environment of the programs.
        self.project.settings = self.commands.first_environment()
        self.port = free_port()
        self.web = Web(self.port)

    def url(self, password=PASSWORD):
        """The URL of Redis that the service is given."""
        account = f":{urllib.parse.quote(password, safe='')}"
        return f"rediss://{account}@{self._host}:{self._redis_port}/0"

    # Starting and ending the service

    def start(self):
        """Start all programs of the service; wait for nothing."""
        self._starts += 1
        logs = self.folder / f"logs-{self._starts}"
        self.service = self.project.start(self.commands, port=self.port, logs=logs)
        (self.program,) = self.service.programs.values()

    def start_and_wait(self):
        """Start the service and wait until web and worker are at work."""
        self.start()
        self.wait_until_ready()

    def wait_until_ready(self):
        """Wait for the web and the worker."""
        ending.wait_until(self.serves, START, f"{PAGE} is served", every=0.3)
        ending.wait_until(self.worker_is_ready, START, "the worker is ready", every=0.3)

    def serves(self):
        """Say whether the web answers; `Failed` if the service has ended."""
        self._check_alive()
        try:
            return self.web.get(PAGE, 10) == 200
        except OSError:
            return False

    def worker_is_ready(self):
        """Say whether a worker of the last start has said so; `Failed` if the service ended."""
        self._check_alive()
        return " ready." in self.program.output()

    def stop_as_a_platform(self):
        """SIGTERM, SIGKILL after 30 s; return the seconds it took."""
        began = time.time()
        self.program.terminate()
        while self.program.family() and time.time() < began + STOP_GRACE:
            self.program.exit_code()  # Otherwise it stays as a zombie.
            ending.pause(0.2)
        self.program.kill()
        return time.time() - began

    def alive(self):
        """Say whether the container is up: the supervisor runs."""
        return self.program is not None and self.program.exit_code() is None

    def output(self):
        """All that the service has written in all its starts."""
        logs = sorted(self.folder.glob("logs-*/*"), key=lambda path: path.stat().st_mtime)
        return "".join(path.read_text(errors="replace") for path in logs)

    # Its processes

    def worker(self):
        """(id of the worker's main process or None, ids of its children)."""
        family = self.service.family()
        rows = {
            pid: psutil.Process(pid) for pid, text in family.items() if " worker " in f"{text} "
        }
        with contextlib.suppress(psutil.Error):
            parents = {pid: process.ppid() for pid, process in rows.items()}
            mains = [pid for pid, parent in parents.items() if parent not in rows]
            children = [pid for pid, parent in parents.items() if parent in mains]
            return (mains[0] if mains else None), children
        return None, []

    def signal_workers(self, number):
        """Send a signal to the worker's processes, the main one first."""
        main, children = self.worker()
        for pid in [main, *children]:
            if pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)

    def ports_of_the_worker(self):
        """The local ports of the connections that the worker has to Redis."""
        main, children = self.worker()
        found = set()
        for pid in [main, *children]:
            with contextlib.suppress(psutil.Error):
                for each in psutil.Process(pid).net_connections("tcp"):
                    if each.raddr and each.raddr.port == self._redis_port:
                        found.add(each.laddr.port)
        return found

    # What has been done

    def notes(self):
        """[(number, word, time)]: what the numbered tasks have written down so far."""
        found = []
        for line in self.numbered.read_text().splitlines():
            number, word, when, _ = line.split()
            found.append((int(number), word, float(when)))
        return found

    def close(self):
        """End the service and the servers, and remove their files."""
        if self.program is not None:
            self.program.kill()
        self._closing.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        ending.closed(self)

    def _check_alive(self):
        if not self.alive():
            raise Failed(f"{self.kind.name} ended:\n{self.program.last_lines(30)}")
