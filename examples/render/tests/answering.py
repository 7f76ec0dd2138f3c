"""A server that answers like a Redis, for tests of what is sent to it and how many connect."""

import contextlib
import socketserver
import threading
from collections.abc import Iterator

HELLO = b"%1\r\n$5\r\nproto\r\n:3\r\n"


class Server(socketserver.ThreadingTCPServer):
    """It answers a command as `answers` says, and any other one with OK.

    `commands` are all that came; `open` and `most` count the connections, now and at most.
    """

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, answers: dict[str, bytes] | None = None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = {"HELLO": HELLO, "PING": b"+PONG\r\n", "LPUSH": b":1\r\n"} | (answers or {})
        self.commands: list[list[str]] = []
        self.open = 0
        self.most = 0

    @property
    def port(self) -> int:
        return self.server_address[1]


class Handler(socketserver.StreamRequestHandler):
    server: Server

    def handle(self) -> None:
        self.server.open += 1
        self.server.most = max(self.server.most, self.server.open)
        with contextlib.suppress(OSError):  # the client may end the connection at any time
            while line := self.rfile.readline():
                command = self.read_command(line)
                self.server.commands.append(command)
                self.wfile.write(self.server.answers.get(command[0].upper(), b"+OK\r\n"))
        self.server.open -= 1

    def read_command(self, line: bytes) -> list[str]:
        """A command from its first line: `*` and the number of its parts, or all of it in words."""
        if not line.startswith(b"*"):
            return line.decode(errors="replace").split() or [""]
        return [self.read_part() for _ in range(int(line[1:]))]

    def read_part(self) -> str:
        size = int(self.rfile.readline()[1:])
        return self.rfile.read(size + 2)[:-2].decode(errors="replace")


@contextlib.contextmanager
def answering(**answers: bytes) -> Iterator[Server]:
    with Server(answers) as server:
        threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()
