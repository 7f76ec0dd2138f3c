"""Fixtures that start real servers and services, and end them."""

import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from harness import pythons
from harness.deployments import PASSWORD, Certificates, Deployment, Venv, made_once
from harness.leftovers import nothing_left_in
from harness.redis_server import INSTALL, RedisServer, find_server
from harness.service import Project
from harness.stand_ins import StandIn
from harness.tls_front import TLSFront

pytest.register_assert_rewrite("harness.impostors", "harness.journey")


def pytest_sessionstart():
    # A run that is ended must end what it started, and fixtures do that only after exceptions.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory):
    """A folder for what is made once for all processes of the run."""
    own = tmp_path_factory.getbasetemp()
    # Each process of pytest-xdist has a folder of its own, beside those of the others.
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def venv(shared_folder):
    """venv(python) -> Venv, one in a run for each Python, by default the running one."""

    def venv(python=sys.executable):
        name = Path(python).resolve().as_posix().strip("/").replace("/", "-")
        return Venv(shared_folder / name, python)

    return venv


@pytest.fixture(scope="session")
def deployment(tmp_path_factory, certificates, venv):
    """deployment(provider, strictness, python) -> Deployment, each made once a session."""
    made = {}

    def deployment(provider, strictness="recommended", python=sys.executable):
        key = provider, strictness, python
        if key not in made:
            # A short name: the path of supervisord's socket has a limit of about 100 characters.
            folder = tmp_path_factory.mktemp("of")
            made[key] = Deployment(provider, folder, certificates, venv(python), strictness)
        return made[key]

    return deployment


@pytest.fixture(scope="session")
def tables(server_program, deployment, shared_folder):
    """A migrated database to copy, because all services have the same tables; made once a run."""
    path = shared_folder / "tables.sqlite3"

    def make():
        place = deployment("self_hosted")
        url = "rediss://localhost:6379/0"
        place.project.predeploy(place.configure(url, DATABASE_URL=f"sqlite:///{path}"))

    made_once(path, make)
    return path


@pytest.fixture(scope="session", params=pythons.OTHERS)
def other_python(request):
    """The path of each other Python of this machine, one after the other."""
    if request.param not in pythons.others():
        pytest.skip(f"NOT TESTED: Python {request.param} is not on this machine")
    return pythons.others()[request.param]


@pytest.fixture(scope="session")
def server_program():
    """Skip the test if the machine has no server program."""
    if find_server() is None:
        pytest.skip(f"NOT TESTED: {INSTALL}")


@pytest.fixture(scope="session")
def stand_in(server_program, certificates):
    """stand_in(row) -> a StandIn, to be started by `with`."""
    return lambda row: StandIn(row, certificates.of(row), PASSWORD)


@pytest.fixture
def redis_server(server_program):
    """redis_server(certificate, **options) -> a running RedisServer, with a password by default."""
    with ExitStack() as stack:

        def start(certificate=None, **options):
            options.setdefault("password", PASSWORD)
            return stack.enter_context(RedisServer(certificate, **options))

        yield start


@pytest.fixture
def impostor(redis_server, certificates):
    """impostor(kind) -> (TLSFront, RedisServer): a front that counts, and an open server."""
    with ExitStack() as stack:

        def start(kind):
            shown = certificates.impostor(kind)
            server = redis_server(port=0, password=None)
            front = stack.enter_context(TLSFront(server.socket, shown.chain, shown.key))
            return front, server

        yield start


@pytest.fixture
def running():
    """running(service): after the test, end the service and whatever is left of it."""
    with ExitStack() as stack:

        def note(service):
            stack.callback(lambda: [program.kill() for program in service.programs.values()])
            return service

        yield note


@pytest.fixture(autouse=True)
def no_leftovers(tmp_path_factory):
    """Assert that no process of a test stays."""
    with nothing_left_in(tmp_path_factory.getbasetemp()):
        yield


@pytest.fixture(scope="session")
def developers(shared_folder):
    """developers(project) -> the same project, with what script/test installs; made once."""
    venv = shared_folder / "developers"

    def developers(project):
        other = Project(project.path, project.settings, venv=venv, host=project.host)

        def make():
            other.make_venv()
            install = [str(other.python), "-m", "pip", "install", "--quiet", "--require-hashes"]
            other.must([*install, "-r", "requirements-dev.txt"], other.machine(), seconds=900)

        made_once(venv, make)
        return other

    return developers
