"""A server that answers like a Redis, for what a test wants to see sent or connected."""

import contextlib
import socketserver
import threading

HELLO = b"%1\r\n$5\r\nproto\r\n:3\r\n"


class Server(socketserver.ThreadingTCPServer):
    """`answers` says what to reply to a command; anything else is answered OK."""

    allow_reuse_address = daemon_threads = True

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
    def handle(self):
        self.server.open += 1
        self.server.most = max(self.server.most, self.server.open)
        with contextlib.suppress(OSError):
            while line := self.rfile.readline():
                parts = [self.part() for _ in range(int(line[1:]))]
                self.server.commands.append(parts)
                self.wfile.write(self.server.answers.get(parts[0].upper(), b"+OK\r\n"))
        self.server.open -= 1

    def part(self) -> str:
        size = int(self.rfile.readline()[1:])
        return self.rfile.read(size + 2)[:-2].decode(errors="replace")


@contextlib.contextmanager
def answering(**answers: bytes):
    with Server(answers) as server:
        threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()
