"""Fixtures that start real servers and services, and end them."""

import signal
import sys
from contextlib import ExitStack

import pytest

from tests.live.deployments import PASSWORD, Certificates, Deployment, Venv
from tests.live.leftovers import at_work_in, descendants
from tests.support.redis_server import INSTALL, RedisServer, find_server
from tests.support.tls_front import TLSFront


def pytest_sessionstart():
    # A run that is ended must end what it started, and fixtures do that only for exceptions.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_collection_modifyitems(items):
    # The fast tests first.
    items.sort(key=lambda item: item.get_closest_marker("live") is not None)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def venv(tmp_path_factory):
    """venv(python) -> Venv, one a session for each Python; this one's by default."""
    made = {}

    def venv(python=sys.executable):
        if python not in made:
            made[python] = Venv(tmp_path_factory.mktemp("venv") / "venv", python)
        return made[python]

    return venv


@pytest.fixture(scope="session")
def deployment(tmp_path_factory, certificates, venv):
    """deployment(provider, strictness, python) -> Deployment, each made once a session."""
    made = {}

    def deployment(provider, strictness="recommended", python=sys.executable):
        key = provider, strictness, python
        if key not in made:
            folder = tmp_path_factory.mktemp(f"{provider}-{strictness}")
            made[key] = Deployment(provider, folder, certificates, venv(python), strictness)
        return made[key]

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
def no_leftovers(tmp_path_factory):
    """No process of a test may stay: no child, and no orphan that works in one of its folders."""
    folder = tmp_path_factory.getbasetemp()
    before = descendants() | at_work_in(folder)
    yield
    after = descendants() | at_work_in(folder)
    left = {pid: text for pid, text in after.items() if pid not in before}
    assert not left, f"processes left over: {left}"
