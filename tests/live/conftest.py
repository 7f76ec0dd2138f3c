"""Services baked and built once, each on a stand-in for its provider's Redis."""

import os
import secrets
import signal
from contextlib import ExitStack

import pytest

from tests.support.browser import Browser, Mailbox
from tests.support.certificates import Authority, self_signed
from tests.support.redis_server import INSTALL, RedisServer, find_server
from tests.support.service import OUTSIDE_NAME, Project, bake, commands_of
from tests.support.tls_front import TLSFront

PASSWORD = "pw-in-tests-$only/with+signs"

# What is baked. The Redis URL's variable is the provider's own or the general one.
ANSWERS = {
    "render": {"redis_provider": "render", "deploy_target": "render"},
    "upstash": {"redis_provider": "upstash", "deploy_target": "render_services"},
    "self_hosted": {"redis_provider": "self_hosted", "deploy_target": "server"},
    "heroku": {"redis_provider": "heroku", "deploy_target": "procfile"},
}


def pytest_sessionstart():
    # A run that is ended must end what it started, and fixtures do that only for exceptions.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


class Certificates:
    """Every certificate of the session.

    `public` is a CA of the system's store (services get it by SSL_CERT_FILE), `own` one's own,
    `stranger` one that nobody trusts.
    """

    def __init__(self, folder):
        self.public = Authority(folder, "Public test CA")
        self.own = Authority(folder, "Own test CA")
        self.stranger = Authority(folder, "Stranger CA")
        self.of_public = self.public.issue()
        self.of_own = self.own.issue()
        # As Heroku's: signed by itself, a CN that is not the host one connects to.
        self.herokus = self_signed(folder, "ec2-1-2-3-4.compute-1.amazonaws.com")

    def impostor(self, kind):
        """What a man in the middle can show."""
        if kind == "another CA":
            return self.stranger.issue()
        if kind == "public CA, another host":
            return self.public.issue("attacker.example")
        raise ValueError(kind)


class Deployment:
    """A built project, ready to be started again and again, each time with a new database."""

    def __init__(self, name, folder, certificates):
        answers = ANSWERS[name]
        self.name = name
        self.target = answers["deploy_target"]
        self.certificates = certificates
        self._folder = folder
        self._starts = 0
        self.project = Project(bake(folder, **answers))
        self.project.make_venv()
        self.commands = self._commands("redis://localhost:6379/0", folder / "build", {})
        self.project.build(self.commands)

    def start(self, url, **settings):
        """Migrate a new database and start everything as the target's files say.

        `url` is the Redis URL; more `settings` are environment variables, None takes one away.
        The service gets a `mailbox`, and `browser()` opens it.
        """
        self._starts += 1
        folder = self._folder / f"start-{self._starts}"
        folder.mkdir()
        commands = self._commands(url, folder, settings)
        # For manage.py, which has the environment of the web process on every platform.
        self.project.settings |= commands.first_environment()
        self.project.predeploy(commands)
        service = self.project.start(commands, logs=folder / "logs")
        service.mailbox = Mailbox(folder / "mail")
        service.browser = lambda: Browser(service.port, OUTSIDE_NAME)
        return service

    def _commands(self, url, folder, settings):
        # What the platform itself sets, or the person who deploys types in.
        given = {
            "DATABASE_URL": f"sqlite:///{folder}/db.sqlite3",
            "REDIS_URL": url,
            "EMAIL_URL": Mailbox(folder / "mail").url,
            "DEFAULT_FROM_EMAIL": f"service@{OUTSIDE_NAME}",
            # Its system store, with the public test CA in it.
            "SSL_CERT_FILE": str(self.certificates.public.pem),
        }
        if self.target in ("procfile", "server"):
            given |= {"ALLOWED_HOSTS": OUTSIDE_NAME, "SECRET_KEY": secrets.token_urlsafe(40)}
        else:
            given["RENDER_EXTERNAL_HOSTNAME"] = OUTSIDE_NAME
        if self.name == "self_hosted":
            given["REDIS_CA_CERTS"] = str(self.certificates.own.pem)
        given |= settings
        commands = commands_of(self.project, self.target, given)
        # Beyond the keys of render.yaml: what the platform adds by itself, and what is typed in.
        for environment in commands.environment.values():
            for name in ("SSL_CERT_FILE", "RENDER_EXTERNAL_HOSTNAME", *settings):
                if given.get(name) is not None:
                    environment[name] = given[name]
        return commands


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def deployment(tmp_path_factory, certificates):
    """deployment(name) -> Deployment, made once a session for each name of ANSWERS."""
    made = {}

    def deployment(name):
        if name not in made:
            made[name] = Deployment(name, tmp_path_factory.mktemp(name), certificates)
        return made[name]

    return deployment


@pytest.fixture
def redis_server():
    """redis_server(certificate, **options) -> a running RedisServer, with a password by default."""
    if find_server() is None:
        pytest.skip(f"NOT TESTED: {INSTALL}")
    with ExitStack() as stack:

        def start(certificate=None, **options):
            options.setdefault("password", PASSWORD)
            return stack.enter_context(RedisServer(certificate, **options))

        yield start


@pytest.fixture
def impostor(redis_server, certificates):
    """impostor(kind) -> (TLSFront, RedisServer): a server that lets everybody in, and counts."""
    with ExitStack() as stack:

        def start(kind):
            shown = certificates.impostor(kind)
            server = redis_server(port=0, password=None)
            front = stack.enter_context(TLSFront(server.socket, shown.chain, shown.key))
            return front, server

        yield start


@pytest.fixture
def running():
    """running(service): end it after the test, with whatever is left of it."""
    with ExitStack() as stack:

        def note(service):
            stack.callback(lambda: [program.kill() for program in service.programs.values()])
            return service

        yield note


@pytest.fixture(autouse=True)
def no_leftovers():
    """Every process of a test is a child of this one, or of a child of it: none may stay."""
    before = set(_descendants())
    yield
    left = {pid: text for pid, text in _descendants().items() if pid not in before}
    assert not left, f"processes left over: {left}"


def _descendants():
    import psutil

    found = {}
    for process in psutil.Process(os.getpid()).children(recursive=True):
        try:
            found[process.pid] = " ".join(process.cmdline())
        except psutil.Error:
            continue
    return found
