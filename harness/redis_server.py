"""A real redis-server (or valkey-server) for one test."""

import collections
import functools
import os
import shutil
import socket
import subprocess
import tempfile
import urllib.parse
from pathlib import Path
from typing import Any

from .processes import Failed, Program, free_port, wait_until

INSTALL = (
    "no redis-server or valkey-server that speaks TLS is on PATH: install one with"
    " 'apt-get install redis-server' (Debian, Ubuntu) or 'brew install redis' (macOS)"
)


@functools.cache
def find_server(tls=True):
    """Return the path of a redis-server or valkey-server, with `tls` one that has TLS; or None."""
    for name in ("redis-server", "valkey-server"):
        path = shutil.which(name)
        if path and (not tls or _speaks_tls(path)):
            return path
    return None


def _speaks_tls(path):
    # A server with TLS complains of the missing certificate. One without TLS stops before that.
    refused = subprocess.run(
        [path, "-"],
        input="port 0\ntls-port 1\n",
        capture_output=True,
        text=True,
        timeout=10,
    )
    return "Failed to configure TLS" in refused.stdout + refused.stderr


class RedisServer:
    """A server on loopback and on a private Unix socket; a context manager.

    On `port` it speaks TLS if it has a `certificate`, otherwise plain text. `port=None` takes a
    free port, and `port=0` opens the Unix socket only. `extra` are more lines of its configuration.
    """

    def __init__(
        self,
        certificate=None,
        *,
        port=None,
        password=None,
        databases=16,
        maxclients=1000,
        timeout=0,
        policy="noeviction",
        extra=(),
        binary=None,
    ):
        self.binary = binary or find_server(tls=certificate is not None)
        if self.binary is None:
            raise Failed(INSTALL)
        self.certificate = certificate
        self.port = port
        self.password = password
        self._lines = [
            "bind 127.0.0.1",
            f"databases {databases}",
            f"maxclients {maxclients}",
            f"timeout {timeout}",
            f"maxmemory-policy {policy}",
            'save ""',
            "appendonly no",
        ]
        self._extra = list(extra)
        self._program: Any = None  # until it is started
        self._own: collections.Counter[str] = collections.Counter()

    def start(self):
        """Start the server and wait until it answers; take another port if somebody was quicker."""
        # Not in the caller's folder, because a Unix socket's path must stay below 104 characters.
        self._folder = Path(tempfile.mkdtemp(prefix="redis-"))
        self.socket = self._folder / "socket"
        wanted = self.port
        for attempt in range(3):
            self.port = free_port() if wanted is None else wanted
            self._own.clear()
            self._write_configuration()
            self._program = Program(
                "redis-server",
                [self.binary, str(self._folder / "redis.conf")],
                cwd=self._folder,
                env={"PATH": os.defpath, "LANG": "C"},
                log=self._folder / "log",
            )
            try:
                wait_until(self._ready, 10, "redis-server answers")
                return self
            except Failed:
                output = self._program.last_lines()
                self._program.kill()
                if wanted is not None or attempt == 2:
                    shutil.rmtree(self._folder)
                    raise Failed(f"redis-server did not start:\n{output}") from None

    def stop(self):
        """End the server by its id and remove its files. `start()` takes the same port again."""
        if self._program is not None:
            self._program.stop(10)
            self._program = None
            shutil.rmtree(self._folder)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    @property
    def pid(self):
        """The id of the server's process."""
        return self._program.pid

    def url(self, host="localhost", database=0):
        """The URL with the password: rediss:// with a certificate, otherwise redis://."""
        scheme = "rediss" if self.certificate else "redis"
        account = f":{urllib.parse.quote(self.password, safe='')}@" if self.password else ""
        return f"{scheme}://{account}{host}:{self.port}/{database}"

    def command(self, *words):
        """Run one command over the Unix socket; return its answer as text."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(5)
            sock.connect(str(self.socket))
            with sock.makefile("rwb") as stream:
                if self.password:
                    self._ask(stream, "AUTH", self.password)
                return self._ask(stream, *words)

    def commands_seen(self):
        """Return {command: calls} of clients, such as {"auth": 1}, but not of `command()`."""
        own = self._own.copy()
        if self.password:
            own["auth"] += 1
        seen = {}
        for line in self.command("INFO", "commandstats").splitlines():
            if line.startswith("cmdstat_"):
                name, values = line.removeprefix("cmdstat_").split(":", 1)
                seen[name] = int(values.split(",")[0].removeprefix("calls="))
        return {name: calls - own[name] for name, calls in seen.items() if calls > own[name]}

    def _ask(self, stream, *words):
        parts = [f"*{len(words)}\r\n".encode()]
        for word in words:
            data = str(word).encode()
            parts += [b"$%d\r\n" % len(data), data, b"\r\n"]
        stream.write(b"".join(parts))
        stream.flush()
        self._own[words[0].lower()] += 1
        kind, rest = (line := stream.readline().rstrip(b"\r\n"))[:1], line[1:]
        if kind == b"$":
            size = int(rest)
            return "" if size < 0 else stream.read(size + 2)[:-2].decode(errors="replace")
        if kind == b"-":
            raise Failed(f"redis-server: {rest.decode()}")
        return rest.decode()

    def _ready(self):
        if self._program.exit_code() is not None:
            raise Failed("redis-server ended")
        try:
            return self.command("PING") == "PONG"
        except (OSError, Failed):
            return False

    def _write_configuration(self):
        tls = self.certificate is not None
        lines = [
            *self._lines,
            f"port {0 if tls else self.port}",
            f"unixsocket {self.socket}",
            "unixsocketperm 700",
        ]
        if tls:
            lines += [
                f"tls-port {self.port}",
                f"tls-cert-file {self.certificate.chain}",
                f"tls-key-file {self.certificate.key}",
                f"tls-ca-cert-file {self.certificate.chain}",
                "tls-auth-clients no",
            ]
        if self.password:
            lines.append(f"requirepass {self.password}")
        text = "\n".join([*lines, *self._extra, ""])
        (self._folder / "redis.conf").write_text(text)
