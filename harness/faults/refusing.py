"""Redis servers that answer but refuse. At the end of its context each server is well again.

`OPTIONS` are the options that a kind needs when its server is started.
"""

import contextlib
import socket
import time

from harness.processes import free_port, wait_until

# A server that loads its data answers once in so many bytes, here after each key.
OPTIONS = {
    "loading": [
        "enable-debug-command yes",
        "loading-process-events-interval-bytes 1024",
        "rdbcompression no",
    ]
}


@contextlib.contextmanager
def memory_full(server):
    """OOM: writes are refused. What waits can be fetched, but not kept."""
    server.command("CONFIG", "SET", "maxmemory", "100kb")
    yield
    server.command("CONFIG", "SET", "maxmemory", "0")


@contextlib.contextmanager
def read_only_replica(server):
    """READONLY: the server is now the replica of one that cannot be reached."""
    server.command("REPLICAOF", "127.0.0.1", free_port())
    yield
    server.command("REPLICAOF", "NO", "ONE")


@contextlib.contextmanager
def too_few_replicas(server):
    """NOREPLICAS: the server wants replicas before it writes."""
    server.command("CONFIG", "SET", "min-replicas-to-write", "1")
    yield
    server.command("CONFIG", "SET", "min-replicas-to-write", "0")


@contextlib.contextmanager
def cannot_save(server):
    """MISCONF: the last attempt to save failed, here because a folder is in the way."""
    in_the_way = server.socket.parent / "dump.rdb"
    (in_the_way / "something").mkdir(parents=True)
    server.command("CONFIG", "SET", "save", "3600 1000000")
    _save(server, "err")
    yield
    (in_the_way / "something").rmdir()
    in_the_way.rmdir()
    _save(server, "ok")
    server.command("CONFIG", "SET", "save", "")


@contextlib.contextmanager
def without_hset(server):
    """NOPERM for one of the commands that a worker needs."""
    server.command("ACL", "SETUSER", "default", "-hset")
    yield
    server.command("ACL", "SETUSER", "default", "+hset")


@contextlib.contextmanager
def reading_only(server):
    """NOPERM for everything that writes."""
    server.command("ACL", "SETUSER", "default", "-@write")
    yield
    server.command("ACL", "SETUSER", "default", "+@all")


@contextlib.contextmanager
def loading(server, seconds=40):
    """LOADING: the server reads its data, slowly."""
    server.command("CONFIG", "SET", "key-load-delay", "0")
    count = 1000
    for number in range(count):
        server.command("SET", f"ballast-{number}", "x" * 4096)
    server.command("CONFIG", "SET", "key-load-delay", int(seconds * 1_000_000 / count))
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(server.socket))
        for line in (f"AUTH {server.password}", "DEBUG RELOAD"):
            sock.sendall(f"{line}\r\n".encode())
        yield
        sock.settimeout(10 * seconds)
        answer = b""
        while answer.count(b"+OK") < 2:
            answer += sock.recv(4096)
            assert b"-ERR" not in answer, answer


def _save(server, status):
    """Let the server save until that ends in the wanted state."""

    def ended():
        info = server.command("INFO", "persistence")
        return "rdb_bgsave_in_progress:0" in info and f"rdb_last_bgsave_status:{status}" in info

    server.command("BGSAVE")
    time.sleep(0.5)
    wait_until(ended, 20, f"BGSAVE ends with {status}")
