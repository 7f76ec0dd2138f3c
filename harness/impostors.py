"""The bad servers of the refusal matrix, what a service is told of them, and how they meet.

Web and worker run with the commands of the deployment's own files. All bad servers of a deployment
run side by side.
"""

import configparser
import re
import shutil
import sqlite3
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

from harness import refusals
from harness.browser import Browser, Mailbox
from harness.certificates import self_signed
from harness.deployments import PASSWORD
from harness.policy_classes import pin, pinned_itself
from harness.processes import Failed, wait_until
from harness.redis_server import RedisServer
from harness.refusals import KINDS, WRONG_CERTIFICATE, public
from harness.service import OUTSIDE_NAME, Service
from harness.tls_front import TLSFront

START = 60  # seconds; generous, because all services of a test start at once
REFUSE = 15  # seconds from the moment when a process is up or was asked
TLS_HANDSHAKE = b"\x16"
# The password as typed, and percent-encoded.
SECRET = PASSWORD.partition("$")[0]
UNVERIFIED = "encrypted, certificate not verified"

DAYS = {"expired": (-3, -1), "not yet valid": (1, 30)}
HEROKU = "ec2-1-2-3-4.compute-1.amazonaws.com"


def certificate(kind, row, certificates, folder):
    """Return the certificate that a server of this kind shows to a service of this row."""
    if kind == "another CA":
        return certificates.stranger.issue()
    if kind == "self-signed":
        return self_signed(folder, "localhost", "localhost")
    if kind == "public CA, another host":
        return certificates.public.issue("attacker.example")
    if pinned_itself(row):
        # Heroku's certificate never names the host of the URL. Only its days can be wrong.
        return self_signed(folder, HEROKU, days=DAYS.get(kind, (-1, 30)))
    authority = certificates.public if public(row) else certificates.own
    if kind == "wrong host":
        return authority.issue("other.example")
    return authority.issue(days=DAYS.get(kind, (-2, 30)))


def settings(kind, row, strictness, shown, certificates):
    """Return the settings that make a service verify where it is not rendered to, by a pin.

    Where `shown` is a variant of the right certificate, it is what they pin.
    """
    stranger = kind in ("another CA", "self-signed", "public CA, another host")
    pinned = certificates.herokus if stranger else shown
    return pin(row, strictness, str(pinned.chain))


def front(kind, shown, server, certificates):
    """Return a server of this kind, not yet started, that passes everything on to `server`."""
    if kind == "plain port":
        return TLSFront(server.socket)
    return TLSFront(
        server.socket,
        shown.chain,
        shown.key,
        outdated=kind == "TLS 1.1 only",
        client_ca=certificates.own.pem if kind == "no client certificate" else None,
    )


def impostor_url(front):
    return f"rediss://:{PASSWORD.replace('/', '%2F').replace('$', '%24')}@localhost:{front.port}/0"


@dataclass
class Encounter:
    """A running service, and the bad server that it was told to use."""

    kind: str
    front: TLSFront
    service: Service
    mailbox: Mailbox
    database: str
    slowest: float = 0  # seconds until the log gave the reason

    def refused(self):
        """Assert that worker, web and /readyz refuse and say why, and have sent nothing before."""
        why = f".*({KINDS[self.kind]})"
        self.service.programs["worker"].wait_for("TLS policy for Redis", START)
        self.says("worker", f"consumer: Cannot connect{why}", time.monotonic())
        self.service.wait_for_status("/healthz", 200, START)
        began = time.monotonic()
        assert self.register().url == "/accounts/login/"
        assert self.users() == ["ada"]
        self.says("web", f"verification e-mail of user .* not queued yet{why}", began)
        began = time.monotonic()
        status, text, _ = self.service.status("/readyz", REFUSE)
        assert status == 503, text
        self.says("web", f"not ready: broker{why}", began)
        assert len(self.front.connections) >= refusals.TRIES
        self.silent()

    def says(self, name, pattern, began):
        """Wait for `words` in the log of a program; fail as soon as the program has sent something.

        Raises AssertionError if that takes longer than REFUSE seconds from `began`.
        """
        program, front = self.service.programs[name], self.front
        wait_until(
            lambda: front.application_bytes or re.search(pattern, program.output()),
            REFUSE,
            f"{pattern!r} in the log of the {name}",
        )
        assert front.application_bytes == 0
        took = time.monotonic() - began
        self.slowest = max(self.slowest, took)
        assert took < REFUSE, f"{pattern!r} in the log of the {name}: after {took:.0f} s"

    def silent(self):
        """Assert that nothing was sent but TLS handshakes, and that no log has the password."""
        # A connection that was closed at once has no first byte.
        assert {seen.first_byte for seen in self.front.connections} - {b""} == {TLS_HANDSHAKE}
        assert self.front.application_bytes == 0
        assert SECRET not in self.service.output()

    def accepted(self):
        """Assert that the service works with this server."""
        self.service.programs["worker"].wait_for(r"celery@\S+ ready", START)
        self.service.wait_for_status("/healthz", 200, START)
        self.register()
        self.mailbox.wait("ada@example.com", START)
        # /readyz as a whole is not ready, because this service has no beat.
        works = '"broker": "ok"'
        wait_until(lambda: works in self.service.status("/readyz")[1], START, "the broker is ok")
        assert self.front.application_bytes > 0
        assert SECRET not in self.service.output()

    def believed(self):
        """Assert that a worker that does not verify warns of it, and works where it can."""
        worker = self.service.programs["worker"]
        worker.wait_for(f"WARNING .*TLS policy for Redis: {UNVERIFIED}", START)
        if self.kind in WRONG_CERTIFICATE:
            worker.wait_for(r"celery@\S+ ready", START)
            assert self.front.application_bytes > 0
        else:
            worker.wait_for(f"consumer: Cannot connect.*({KINDS[self.kind]})", REFUSE)
            self.silent()

    def register(self):
        browser = Browser(self.service.port, OUTSIDE_NAME)
        return browser.register("ada", "ada@example.com", "correct horse 7")

    def users(self):
        with closing(sqlite3.connect(self.database)) as database:
            return [
                name for (name,) in database.execute("SELECT username FROM authentication_user")
            ]


class Meeting:
    """Services of one deployment, each told to use a bad server of another kind, all running.

    It is a context manager. `server` is behind all bad servers.
    """

    def __init__(self, place, kinds, strictness, tables, only=("worker", "web")):
        self.place = place
        self.kinds = kinds
        self.strictness = strictness
        self.tables = tables
        self.only = only

    def __enter__(self):
        with ExitStack() as stack:
            self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            self.server = stack.enter_context(RedisServer(port=0))
            self.met = {kind: self._start(kind, stack) for kind in self.kinds}
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_):
        self._stack.close()

    @property
    def fronts(self):
        return {kind: each.front for kind, each in self.met.items()}

    def problems(self, judge):
        """Return {kind: what went wrong} where `judge` fails; all kinds are judged at once."""

        def problem(encounter):
            try:
                judge(encounter)
            except (AssertionError, Failed) as error:
                return f"{error}\n{encounter.service.tail()}"

        with ThreadPoolExecutor(len(self.met)) as pool:
            found = dict(zip(self.met, pool.map(problem, self.met.values()), strict=True))
        return {kind: text for kind, text in found.items() if text}

    def _start(self, kind, stack):
        place, certificates = self.place, self.place.certificates
        folder = self.folder / kind.replace(" ", "-")
        folder.mkdir()
        shown = certificate(kind, place.row, certificates, folder)
        server = stack.enter_context(front(kind, shown, self.server, certificates))
        mailbox = Mailbox(folder / "mail")
        tables = shutil.copy(self.tables, folder)
        commands = place.configure(
            impostor_url(server),
            DATABASE_URL=f"sqlite:///{tables}",
            EMAIL_URL=mailbox.url,
            **settings(kind, place.row, self.strictness, shown, certificates),
        )
        service = place.project.start(alone(place, commands, self.only), logs=folder / "logs")
        for program in service.programs.values():
            stack.callback(program.kill)
        return Encounter(kind, server, service, mailbox, tables)


def listing(failed):
    return "\n".join(f"{kind}: {text}" for kind, text in failed.items())


def alone(place, commands, only):
    """Return the deployment's own commands for these programs, even from supervisord.conf."""
    start, environment = commands.start, commands.environment
    if len(start) == 1:
        parser = configparser.RawConfigParser(inline_comment_prefixes=(";",))
        parser.read(place.project.path / "supervisord.conf")
        sections = [name for name in parser if name.startswith("program:")]
        start = {name: parser[name]["command"] for name in sections}
        environment = dict.fromkeys(start, commands.first_environment())
    names = {}
    (names["web"],) = (name for name, command in start.items() if command.startswith("gunicorn "))
    (names["worker"],) = (name for name, command in start.items() if command.endswith(" worker"))
    return replace(
        commands,
        start={program: start[names[program]] for program in only},
        environment={program: environment[names[program]] for program in only},
    )
