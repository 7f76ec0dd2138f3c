"""A mail server that keeps what it gets. It can be slow, and can refuse addresses for good."""

import collections
import contextlib
import email
import email.policy
import socket
import threading
import time


class SMTPSink:
    """Listens on loopback, a thread for each connection; a context manager.

    It answers 550 to every address for which `refuses(address)` is true. Its greeting takes `slow`
    seconds, one line now and then, so that a client's timeout for one line does not end it.
    """

    REFUSAL = "5.1.1 nobody of that name"
    GREETING_LINE_EVERY = 3  # seconds; shorter than any client's timeout

    def __init__(self, *, refuses=lambda address: False, slow=0):
        self.refuses = refuses
        self.slow = slow
        self.greeting = 0  # The number of clients that are being greeted now.
        # {address: how often a mail to it was offered}
        self.tried: collections.Counter[str] = collections.Counter()
        self._messages = []

    @property
    def url(self):
        """The server's EMAIL_URL."""
        return f"smtp://127.0.0.1:{self.port}"

    def messages(self, to=None):
        """Return every message taken, oldest first; with `to`, only those to that address."""
        taken = list(self._messages)
        return [message for message in taken if to is None or to in str(message["To"])]

    def start(self):
        """Listen, then serve until `stop()`."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name="smtp-sink", daemon=True).start()
        return self

    def stop(self):
        """Close the port."""
        self._listener.close()

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client):
        with contextlib.suppress(OSError), client, client.makefile("rwb") as stream:
            self._say(stream, "220 sink")
            while line := stream.readline():
                word = line[:4].upper()
                if word == b"EHLO":
                    self._greet(stream)
                elif word == b"RCPT":
                    address = line.decode().partition("<")[2].partition(">")[0]
                    self.tried[address] += 1
                    refused = self.refuses(address)
                    self._say(stream, f"550 {self.REFUSAL}" if refused else "250 ok")
                elif word == b"DATA":
                    self._say(stream, "354 go on")
                    self._keep(stream)
                    self._say(stream, "250 taken")
                elif word == b"QUIT":
                    self._say(stream, "221 bye")
                    return
                else:
                    self._say(stream, "250 ok")

    def _greet(self, stream):
        self.greeting += 1
        try:
            end = time.monotonic() + self.slow
            while (left := end - time.monotonic()) > 0:
                self._say(stream, "250-NOOP")
                time.sleep(min(left, self.GREETING_LINE_EVERY))
            self._say(stream, "250 8BITMIME")
        finally:
            self.greeting -= 1

    def _keep(self, stream):
        lines = []
        while (line := stream.readline()) not in (b"", b".\r\n"):
            lines.append(line.removeprefix(b".") if line.startswith(b"..") else line)
        if line:
            self._messages.append(
                email.message_from_bytes(b"".join(lines), policy=email.policy.default)
            )

    @staticmethod
    def _say(stream, text):
        stream.write(f"{text}\r\n".encode())
        stream.flush()
