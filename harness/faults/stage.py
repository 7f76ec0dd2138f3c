"""A service for a test that does it harm: numbered tasks, mails, and what becomes of them.

`send()` returns the numbers that `.delay()` accepted. `wait_done()` waits until they are done.
"""

import contextlib
import json
import os
import re
import secrets
import select
import shutil
import signal
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import Any

from harness.browser import Mailbox
from harness.deployments import DATABASE, PASSWORD
from harness.processes import Failed, processes, wait_until
from harness.redis_server import RedisServer

HERE = Path(__file__).parent
# Three times what is promised, because other work may use the machine at the same time.
CONSUMES_AGAIN = 3 * 45  # seconds
# The pages that tests themselves ask for.
OUTSIDE = re.compile(r'"GET /(healthz|readyz) |Service Unavailable: /readyz')


class Stage:
    """One service and one Redis. This context manager ends them and all else that it started."""

    def __init__(self, folder, build, certificates):
        """`build` is a Deployment. Nothing is started yet."""
        self.folder = folder
        self.certificates = certificates
        self._build = build
        self._stack = contextlib.ExitStack()
        self._numbers = 0
        # Each of them until it is started
        self._sender: Any = None
        self.place: Any = None
        self.server: Any = None
        self.service: Any = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """End everything, whatever state it is in."""
        self._stack.close()

    def add(self, context):
        """Enter a context that ends with the stage."""
        return self._stack.enter_context(context)

    # Its parts

    def start_redis(self, **options):
        """Start a redis-server with TLS. The first one is `server`."""
        options.setdefault("password", PASSWORD)
        server = RedisServer(self.certificates.of_public, **options)
        server.start()
        self._stack.callback(server.stop)
        self.server = self.server or server
        return server

    def prepare(self, url=None, **settings):
        """Make a copy of the project with the numbered tasks in it, and its environment."""
        self.place = self._build.copy(self.folder)
        self.project = self.place.project
        app = self.project.path / "numbered"
        app.mkdir()
        (app / "__init__.py").touch()
        shutil.copy(HERE / "numbered_tasks.py", app / "tasks.py")
        shutil.copy(HERE / "numbered_sender.py", app / "sender.py")
        self.append_to("settings.py", 'INSTALLED_APPS += ["numbered"]')
        self.numbered = self.folder / "numbers"
        self.numbered.mkdir()
        self.database = self.folder / DATABASE
        self.mailbox = Mailbox(self.folder / "mail")
        # The settings stay the same at every start, as those of one service do.
        self.settings = {
            "DATABASE_URL": f"sqlite:///{self.database}",
            "SECRET_KEY": secrets.token_urlsafe(40),
            "NUMBERED_FOLDER": str(self.numbered),
            "EMAIL_URL": self.mailbox.url,
            **settings,
        }
        self.url = url or self.server.url()
        self.place.configure(self.url, **self.settings)

    def start(self, *, ready=True, **options):
        """Start the service, again if it was stopped. A new one is prepared with `options`."""
        if self.place is None:
            self.prepare(**options)
        self.service = self.place.start(self.url, **self.settings)
        (self.program,) = self.service.programs.values()
        self._stack.callback(self.program.kill)
        if ready:
            self.service.wait_for_status("/readyz", 200, 90)
        return self.service

    def append_to(self, name, text):
        """Add a line to the project's only file of that name beside its settings."""
        (path,) = self.project.path.glob(f"*/{name}")
        path.write_text(f"{path.read_text()}\n{text}\n")

    def replace_in(self, name, pattern, text):
        """Replace what a regular expression finds in a file of the project, at least once."""
        path = self.project.path / name
        changed, count = re.subn(pattern, text, path.read_text(), flags=re.MULTILINE)
        assert count, f"{pattern} is not in {name}"
        path.write_text(changed)

    def sweep_often(self):
        """Let beat send housekeeping every 10 s, because a test has no time for 120."""
        self.append_to("settings.py", 'CELERY_BEAT_SCHEDULE["housekeeping"]["schedule"] = 10')

    # Tasks

    def send(self, count=1, *, task="numbered", seconds=0, **options):
        """Send so many tasks that take so long; return the numbers of those that were accepted."""
        numbers = list(range(self._numbers + 1, self._numbers + count + 1))
        self._numbers += count
        keywords = {"seconds": seconds} if seconds else {}
        accepted, self.refused = self._ask([task, numbers, keywords, options])
        return accepted

    def started(self):
        """Return the numbers of the tasks that began, in order."""
        return self._numbers_in("started")

    def done(self):
        """Return the numbers of the tasks that were done, in order. One may be there twice."""
        return self._numbers_in("done")

    def wait_started(self, numbers, seconds=30):
        """Wait until all of these have begun."""
        wait_until(lambda: set(numbers) <= set(self.started()), seconds, f"start of {numbers}")

    def wait_done(self, numbers, seconds=CONSUMES_AGAIN):
        """Wait until all of these are done; return how many seconds that took."""
        began = time.monotonic()
        while missing := set(numbers) - set(self.done()):
            self.service.check_alive()
            waited = time.monotonic() - began
            assert waited < seconds, (
                f"{len(missing)} of {len(numbers)} tasks not done {seconds} s later: "
                f"{sorted(missing)}\n{self.tail()}"
            )
            time.sleep(0.2)
        return time.monotonic() - began

    def _numbers_in(self, name):
        path = self.numbered / name
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def _ask(self, question):
        if self._sender is None:
            (settings,) = self.project.path.glob("*/settings.py")
            command = [
                self.project.python,
                "-m",
                "numbered.sender",
                f"{settings.parent.name}.settings",
            ]
            with (self.folder / "sender.log").open("ab") as log:
                self._sender = subprocess.Popen(
                    list(map(str, command)),
                    cwd=self.project.path,
                    env=self.project.environment(),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    start_new_session=True,
                )
            self._stack.callback(self._end_sender)
        self._sender.stdin.write(json.dumps(question) + "\n")
        self._sender.stdin.flush()
        if not select.select([self._sender.stdout], [], [], 120)[0]:
            raise Failed("`.delay()` did not return within 120 seconds")
        return json.loads(self._sender.stdout.readline())

    def _end_sender(self):
        self._sender.kill()
        self._sender.wait()
        self._sender.stdin.close()
        self._sender.stdout.close()

    # What one can see of it

    def readyz(self):
        """Return (status, {probe: state}) of the readiness page."""
        status, text, _ = self.service.status("/readyz")
        return status, json.loads(text)

    def tail(self, count=25):
        """Return the last lines of the log that say anything."""
        lines = [line for line in self.program.output().splitlines() if not OUTSIDE.search(line)]
        return "\n".join(lines[-count:])

    def lines(self):
        """Return how many lines the service has logged, except for pages that tests ask for."""
        return sum(not OUTSIDE.search(line) for line in self.program.output().splitlines())

    def pids(self):
        """Return {"supervise", "web" or "worker": the id of its main process, or None}."""
        found = {"supervise": self.program.pid, "web": None, "worker": None}
        for pid, row in processes().items():
            if row.parent == self.program.pid:
                for name, word in {"web": "gunicorn", "worker": " worker"}.items():
                    if word in row.command:
                        found[name] = pid
        return found

    def worker_family(self):
        """Return the ids of the worker's main process and its children."""
        main = self.pids()["worker"]
        return [pid for pid, row in processes().items() if main in (pid, row.parent)]

    def exits_of_worker(self):
        """Return the exit statuses of the worker so far, as supervisor has logged them."""
        ends = r"exited: celery_worker \((?:exit status (\d+)|terminated by (\w+))"
        return [code or name for code, name in re.findall(ends, self.program.output())]

    def doctor(self):
        """Return (exit status, {probe: state, what it saw and what to do, as one text})."""
        status, probes = self.project.doctor()
        return status, {
            name: f"{probe['state']}: {probe['seen']} {probe['fix']}"
            for name, probe in probes.items()
        }

    def key(self, name):
        """Return the name in Redis of a queue or another key of Celery."""
        return "{" + self.project.slug + "}:" + name

    def unacknowledged(self):
        """Return how many messages Redis keeps to give them out again."""
        return int(self.server.command("HLEN", self.key("unacked")))

    def waiting(self):
        """Return how many messages of any priority wait in the default queue."""
        keys = [self.key("celery" + step) for step in ("", "\x06\x163", "\x06\x166", "\x06\x169")]
        return sum(int(self.server.command("LLEN", key)) for key in keys)

    # The database

    def sql(self, statement, *values):
        """Run one statement in the service's database; return its rows."""
        with contextlib.closing(sqlite3.connect(self.database, timeout=30)) as database, database:
            return database.execute(statement, values).fetchall()

    def manage(self, code):
        """Run Python code in the service's shell."""
        done = self.project.manage("shell", "-c", code)
        assert done.returncode == 0, done.stdout + done.stderr

    def register(self, name):
        """Register through the form; return the address that a mail is promised to."""
        address = f"{name}@example.com"
        page = self.service.browser().register(name, address, "correct horse 7")
        assert page.url == "/accounts/login/", page.text
        return address

    def wait_ready(self, logged=0, seconds=90):
        """Wait for the worker's line that it is ready, after so many characters of the log."""
        ready = re.compile(r"celery@\S+ ready\.")
        wait_until(lambda: ready.search(self.program.output(), logged), seconds, "a ready worker")

    def age_promises(self, minutes):
        """Make every promised e-mail older and due earlier, instead of waiting."""
        self.sql(
            "UPDATE authentication_verificationemail SET"
            " requested_at = datetime(requested_at, ?), due_at = datetime(due_at, ?)"
            " WHERE closed_at IS NULL",
            *[f"-{minutes} minutes"] * 2,
        )


@contextlib.contextmanager
def stalled(server):
    """Stall the server: it neither answers nor closes anything."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)
