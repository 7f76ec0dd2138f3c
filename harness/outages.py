"""Eight ways in which Redis can be out of reach for whoever wants to send a task."""

import contextlib
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote

from .redis_server import RedisServer


@dataclass
class Outage:
    """`url` is the service's Redis URL. Until `begin()` the server may still be well."""

    url: str
    begin: Callable[[], object] = lambda: None


def url_of(sock, password):
    return f"rediss://:{quote(password, safe='')}@localhost:{sock.getsockname()[1]}/0"


@contextlib.contextmanager
def down(certificates, password):
    with RedisServer(certificates.of_own, password=password) as server:
        yield Outage(server.url(), server.stop)


@contextlib.contextmanager
def silent(certificates, password):
    """The server keeps its connections, but answers nothing any more."""
    with RedisServer(certificates.of_own, password=password) as server:
        try:
            yield Outage(server.url(), lambda: os.kill(server.pid, signal.SIGSTOP))
        finally:
            os.kill(server.pid, signal.SIGCONT)


@contextlib.contextmanager
def black_hole(certificates, password):
    """Nobody answers a SYN: the kernel drops what does not fit into a listening socket's queue."""
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(socket.socket())
        sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(sock.getsockname())
        yield Outage(url_of(sock, password))


@contextlib.contextmanager
def no_handshake(certificates, password):
    """The server takes connections, but never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as sock:
        yield Outage(url_of(sock, password))


@contextlib.contextmanager
def full(certificates, password):
    with RedisServer(certificates.of_own, password=password) as server:
        yield Outage(server.url(), lambda: server.command("CONFIG", "SET", "maxmemory", "1"))


@contextlib.contextmanager
def replica(certificates, password):
    with RedisServer(certificates.of_own, password=password) as server:
        yield Outage(server.url(), lambda: server.command("REPLICAOF", "127.0.0.1", "1"))


@contextlib.contextmanager
def no_connection_left(certificates, password):
    with RedisServer(certificates.of_own, password=password) as server:

        def begin():
            server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            server.command("CONFIG", "SET", "maxclients", "1")
            hog.connect(str(server.socket))

        with socket.socket(socket.AF_UNIX) as hog:
            yield Outage(server.url(), begin)


@contextlib.contextmanager
def another_ca(certificates, password):
    with RedisServer(certificates.stranger.issue(), password=password) as server:
        yield Outage(server.url())


OUTAGES = {
    "down": down,
    "silent": silent,
    "black hole": black_hole,
    "no handshake": no_handshake,
    "full": full,
    "replica": replica,
    "no connection left": no_connection_left,
    "another CA": another_ca,
}
